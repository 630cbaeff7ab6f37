"""What a network costs: parameters, floating-point operations, and time for one image."""

import time

import torch
from torch import Tensor, nn

from heedful.maps.record import evaluation_mode


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable and frozen parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def num_flops(model: nn.Module, image: Tensor) -> int:
    """Return the floating-point operations of one forward pass, a multiply-add counted as two.

    Convolutions and matrix products count, as in `torch.utils.flop_counter`; element-wise work does not.

    Args:
        model: run in evaluation mode.
        image: (1, C, H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    with evaluation_mode(model), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())


@torch.inference_mode()
def inference_seconds(model: nn.Module, images: Tensor, *, repetitions: int = 10) -> float:
    """Return the least wall-clock seconds for one image, over repeated passes of this batch after a warm-up.

    The least, since other work on the machine only ever adds to it.

    Args:
        model: run in evaluation mode.
        images: (N, C, H, W), on the model's device.
        repetitions: number of timed passes.
    """
    seconds = []
    with evaluation_mode(model):
        for _ in range(1 + repetitions):
            start = time.perf_counter()
            model(images)
            if images.device.type == "cuda":
                torch.cuda.synchronize(images.device)
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / len(images)
