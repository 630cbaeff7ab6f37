"""AW-convolutions by each method against the plain convolution: the 3x3 shapes of ResNet-50, and the whole network.

Run with `python benchmarks/aw_convolution.py`. Batch 8 at 224 pixels, forward pass alone and with the backward pass;
ratios of times are medians of paired repetitions. `grouped by autograd` is the same grouped convolution without the
functions of heedful that save only their inputs. Targets for the network: time ratios of at most 1.12 for a training
step and 1.08 for inference, 1.15 for what is saved for the backward pass.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from common import paired, write
from heedful.layers import per_sample_plain as plain
from heedful.layers.aw_conv import AWConv2d
from heedful.layers.per_sample_conv import choose, per_sample_conv
from heedful.layers.per_sample_geometry import Geometry

SHAPES = [(64, 56, 1), (128, 56, 2), (128, 28, 1), (256, 28, 2), (256, 14, 1), (512, 14, 2), (512, 7, 1)]
"""Channels, side of the input map, stride."""
BATCH = 8
REPETITIONS = 9
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def finish() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def forward(run: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        run()
    finish()


def step(run: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    y = run()
    torch.autograd.grad(y, parameters, torch.ones_like(y), allow_unused=True)
    finish()


def measured(candidates: dict[str, tuple[Callable[[], Tensor], list[Tensor]]]) -> dict[str, dict[str, float]]:
    """Return, for each candidate but the first, its time divided by the first's, in inference and in training."""
    base = next(iter(candidates))
    ratios: dict[str, dict[str, float]] = {name: {} for name in candidates if name != base}
    ways = {
        "inference": {name: partial(forward, run) for name, (run, _) in candidates.items()},
        "training": {name: partial(step, run, parameters) for name, (run, parameters) in candidates.items()},
    }
    for kind, runs in ways.items():
        seconds = paired(runs, REPETITIONS)
        for name, of in ratios.items():
            of[kind] = round(median(a / b for a, b in zip(seconds[name], seconds[base], strict=True)), 3)
    return ratios


def of_layer(channels: int, side: int, stride: int) -> tuple[str, dict[str, dict[str, float]]]:
    geometry = Geometry((3, 3), (stride, stride), (1, 1, 1, 1))
    x = torch.randn(BATCH, channels, side, side, device=DEVICE, requires_grad=True)
    weight = torch.randn(channels, channels, 3, 3, device=DEVICE, requires_grad=True)
    scale = torch.rand(BATCH, channels, 1, 3, 3, device=DEVICE, requires_grad=True)
    tensors = [x, weight, scale]
    candidates = {"plain": (partial(nn.functional.conv2d, x, weight, None, stride, 1), tensors[:2])}
    for method in ("taps", "grouped"):
        candidates[method] = partial(per_sample_conv, x, weight, scale, geometry, method), tensors
    candidates["grouped by autograd"] = partial(plain.grouped, x, weight, scale, geometry), tensors
    return choose(x, weight, scale, geometry), measured(candidates)


def network(method: str | None) -> nn.Module:
    torch.manual_seed(0)
    model = resnet50().to(DEVICE)
    for module in list(model.modules()):
        if method is not None and type(module) is nn.Conv2d and module.kernel_size == (3, 3):
            AWConv2d.put_into(module, method=method)
    return model


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Return how much is saved for the backward pass, less the parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def main() -> None:
    layers = {}
    for channels, side, stride in SHAPES:
        name = f"{channels} channels at {side}x{side}" + (", stride 2" if stride == 2 else "")
        chosen, ratios = of_layer(channels, side, stride)
        layers[name] = {"chosen": chosen, **ratios}
        print(name, layers[name], flush=True)
    x = torch.randn(BATCH, 3, 224, 224, device=DEVICE)
    models = {"plain": network(None), "auto": network("auto"), "grouped": network("grouped")}
    saved = {name: saved_bytes(model, x) for name, model in models.items()}
    whole = measured({name: (partial(model, x), list(model.parameters())) for name, model in models.items()})
    for name, of in whole.items():
        of["saved"] = round(saved[name] / saved["plain"], 3)
    result = {
        "settings": f"{DEVICE}, float32, batch {BATCH}",
        "repetitions": REPETITIONS,
        "ratios": whole,
        "ratios_by_layer": layers,
    }
    print(whole, write("aw_convolution", result))


if __name__ == "__main__":
    main()
