"""What [J]'s attention adds to its own trunk: training step, inference and saved activations, as ratios to att0.

Run with `python benchmarks/pay_attention.py`: the VGG trunk of "Learn to pay attention" at full width on images of 32
pixels, on a CPU 16 of them in float32, on a GPU 256 in bfloat16. The control is the same trunk with one linear map on
its global vector; the trunk a second time shows how far two equal networks differ. Target of att2: 1.03 in training.
"""

import torch
from torch import nn

from attention_overhead import CUDA, DEVICE, Work, median
from common import paired, write
from heedful import build
from heedful.evaluate.cost import saved_bytes

VARIANTS = ("none", "pay2-pc", "pay2-dp", "pay2-additive", "pay2-pc-ign1(0.5)", "pay3-pc")
BATCH_SIZE = 256 if CUDA else 16
REPETITIONS = 9


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median over the repetitions of the ratio to the trunk within one."""
    first = seconds["none"]
    return {name: round(median(a / b for a, b in zip(times, first, strict=True)), 3) for name, times in seconds.items()}


def main() -> None:
    """Measure, write and print."""
    torch.manual_seed(0)
    images = torch.randn(BATCH_SIZE, 3, 32, 32, device=DEVICE)
    labels = torch.randint(100, (BATCH_SIZE,), device=DEVICE)
    models: dict[str, nn.Module] = {name: build("cifar_vgg_att", name, num_classes=100).to(DEVICE) for name in VARIANTS}
    models["none again"] = build("cifar_vgg_att", "none", num_classes=100).to(DEVICE)
    with torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
        saved = {name: saved_bytes(model, images) for name, model in models.items()}
    found = {"saved": {name: round(size / saved["none"], 3) for name, size in saved.items()}}
    for phase in ("training", "inference"):
        works = {name: Work(model, images, labels, train=phase == "training") for name, model in models.items()}
        found[phase] = ratios(paired(works, REPETITIONS))
    settings = f"cifar_vgg_att, {BATCH_SIZE} images of 32 pixels, " + ("bfloat16 autocast" if CUDA else "float32")
    path = write(
        "pay_attention" + ("_cuda" if CUDA else ""),
        {"settings": settings, "repetitions": REPETITIONS, "ratios": found},
    )
    for name in models:
        print(f"{name:20}" + "".join(f"  {phase} {values[name]:.3f}" for phase, values in found.items()))
    print(path)


if __name__ == "__main__":
    main()
