"""What attention in an FPN adds to a detector: training steps, detecting, saved activations, as ratios to plain.

Run with `python benchmarks/fpn_attention.py`: Faster R-CNN with a ResNet-FPN on images of 800 x 1066 pixels with ten
boxes each, on a CPU ResNet-18 and one image in float32, on a GPU ResNet-50 and two in bfloat16. Attention stands in and
right before all lateral and output convolutions, as in section 4.2 of [Z]. The plain detector a second time shows how
far two equal ones differ.
"""

import argparse
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from attention_overhead import CUDA, DEVICE, ratios
from common import paired, write
from heedful.evaluate.cost import kept_bytes, num_parameters
from heedful.models.detection import build_detector

VARIANTS = ("aw", "se", "cbam", "aw+se", "aw+cbam")
HEIGHT, WIDTH, NUM_BOXES, NUM_CLASSES = 800, 1066, 10, 80


def detector(name: str, variant: str) -> nn.Module:
    """Return a detector of images at their own size."""
    torch.manual_seed(0)
    return build_detector(name, variant, num_classes=NUM_CLASSES, image_size=HEIGHT).to(DEVICE).train()


def batch(num_images: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return images of noise, and boxes of many sizes in them."""
    torch.manual_seed(1)
    images = [torch.rand(3, HEIGHT, WIDTH, device=DEVICE) for _ in range(num_images)]
    corners = torch.rand(num_images, NUM_BOXES, 2, device=DEVICE) * torch.tensor([WIDTH / 2, HEIGHT / 2], device=DEVICE)
    sides = 16 + torch.rand(num_images, NUM_BOXES, 2, device=DEVICE) * (HEIGHT / 2 - 16)
    labels = torch.randint(1, NUM_CLASSES + 1, (num_images, NUM_BOXES), device=DEVICE)
    boxes = torch.cat([corners, corners + sides], 2)
    return images, [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]


def loss(model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
    with torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
        return torch.stack(list(model(images, targets).values())).sum()


def step(model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
    loss(model.train(), images, targets).backward()
    model.zero_grad(set_to_none=True)
    finish()


@torch.no_grad()
def detect(model: nn.Module, images: list[Tensor]) -> None:
    with torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
        model.eval()(images)
    finish()


def finish() -> None:
    if CUDA:
        torch.cuda.synchronize()


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="fasterrcnn_resnet50_fpn" if CUDA else "fasterrcnn_resnet18_fpn")
    parser.add_argument("--images", type=int, default=2 if CUDA else 1)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    images, targets = batch(options.images)
    models = {"plain": detector(options.model, "none")}
    models |= {name: detector(options.model, name) for name in VARIANTS}
    models["plain again"] = detector(options.model, "none")
    plain = models["plain"]
    saved = {name: kept_bytes(model, partial(loss, model, images, targets)) for name, model in models.items()}
    found = {
        "saved": {name: round(size / saved["plain"], 3) for name, size in saved.items()},
        "parameters": {name: round(num_parameters(m) / num_parameters(plain), 4) for name, m in models.items()},
    }
    seconds = {}
    for phase, work in (("training", partial(step, targets=targets)), ("inference", detect)):
        times = paired({name: partial(work, model, images) for name, model in models.items()}, options.repetitions)
        found[phase], seconds[phase] = ratios(times), round(median(times["plain"]), 3)
    result = {
        "settings": f"{options.model}, {options.images} image(s) of {HEIGHT} x {WIDTH} pixels, "
        + ("bfloat16 autocast" if CUDA else "float32"),
        "repetitions": options.repetitions,
        "ratios": found,
        "plain_seconds": seconds,
        "plain_saved_mib": round(saved["plain"] / 2**20, 1),
    }
    path = write("fpn_attention" + ("_cuda" if CUDA else ""), result)
    for name in models:
        print(f"{name:12}" + "".join(f"  {phase} {values[name]:.3f}" for phase, values in found.items()))
    print(path)


if __name__ == "__main__":
    main()
