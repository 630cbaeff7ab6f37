"""SE and CBAM against timm's `SEModule` and `CbamModule` of the same hidden width: forward and backward, one layer.

Run with `python benchmarks/attention_layers.py`. Shapes are those of CIFAR ResNets and of ResNet-50 at 224 pixels, in
both memory formats; gradients flow to the input and to the parameters. CBAM is measured as [L] and heedful have it,
without batch norm, and with it, as timm has it. Target: a time ratio of at most 1.0.
"""

from collections.abc import Callable
from functools import partial
from statistics import geometric_mean, median

import torch
from timm.layers import SEModule
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from common import paired, write
from heedful import CBAM, SqueezeExcitation

SHAPES = [(128, 16, 32, 32), (128, 64, 8, 8), (8, 256, 56, 56), (8, 512, 28, 28), (8, 1024, 14, 14), (8, 2048, 7, 7)]
FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
REPETITIONS = 15
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAIRS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]] = {
    "SE / timm SEModule": (
        partial(SqueezeExcitation, reduction=16),
        lambda channels: SEModule(channels, rd_channels=channels // 16),
    ),
    "CBAM / timm CbamModule": (
        partial(CBAM, reduction=16),
        lambda channels: CbamModule(channels, rd_channels=channels // 16),
    ),
    "CBAM with batch norm / timm CbamModule": (
        partial(CBAM, reduction=16, convention="timm"),
        lambda channels: CbamModule(channels, rd_channels=channels // 16),
    ),
}


def step(layer: nn.Module, x: Tensor, upstream: Tensor) -> None:
    """Go forward and backward, as often as takes some milliseconds."""
    for _ in range(3):
        x.grad = None
        layer(x).backward(upstream)
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    ratios: dict[str, dict[str, float]] = {}
    for pair, makers in PAIRS.items():
        ratios[pair] = {}
        for layout, memory_format in FORMATS.items():
            for shape in SHAPES:
                x = torch.randn(shape, device=DEVICE).to(memory_format=memory_format)
                upstream = torch.randn(shape, device=DEVICE).to(memory_format=memory_format)
                layers = [make(shape[1]).to(DEVICE) for make in makers]
                ways = {
                    name: partial(step, layer, x.clone().requires_grad_(), upstream)
                    for name, layer in zip(("ours", "timm"), layers, strict=True)
                }
                seconds = paired(ways, REPETITIONS)
                ratio = median(a / b for a, b in zip(seconds["ours"], seconds["timm"], strict=True))
                ratios[pair][f"{layout}, {'x'.join(map(str, shape))}"] = round(ratio, 3)
    means = {pair: round(geometric_mean(by_shape.values()), 3) for pair, by_shape in ratios.items()}
    result = {
        "settings": f"{DEVICE}, float32, forward and backward",
        "repetitions": REPETITIONS,
        "ratios": means,
        "ratios_by_shape": ratios,
    }
    print(means, write("attention_layers", result))
    for pair, by_shape in ratios.items():
        print(pair, by_shape)


if __name__ == "__main__":
    main()
