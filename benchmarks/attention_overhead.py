"""What attention adds to a whole network: training step, inference and saved activations, as ratios to plain ResNet-50.

Run with `python benchmarks/attention_overhead.py`: on a GPU in bfloat16 and channels_last with 128 images of 224
pixels, else in float32 with 8. Beside heedful's, attached to torchvision's ResNet-50, stand timm's SE, ECA and CBAM in
timm's, timm's plain ResNet-50 as a control, and the AW-convolution of [Z] written naively, as one grouped convolution
over the images. `--compile` times what `torch.compile` makes of them. Targets on a CPU, training / inference / saved:
SE 1.05 / 1.02 / 1.10, CBAM 1.15 / 1.06 / 1.15, AW 1.12 / 1.08 / 1.15; on a GPU SE 1.06, CBAM 1.15, AW 1.5 / 1.15.

Seconds are of the wall clock; `cpu_ratios` are those of the process's own time, which another process slows less.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import heedful
from common import paired, write
from heedful.evaluate.cost import saved_bytes
from heedful.layers import CONVOLUTIONS, LAYERS

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCH_SIZE = 128 if CUDA else 8
MEMORY_FORMAT = torch.channels_last if CUDA else torch.contiguous_format


class NaiveAWConv2d(nn.Module):
    """AW-convolution, equations 4 to 8 of [Z], with all weights of all images side by side."""

    def __init__(self, conv: nn.Conv2d, reduction: int = 16) -> None:
        super().__init__()
        self.conv = conv
        hidden = conv.in_channels // reduction
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(conv.kernel_size),
            nn.Conv2d(conv.in_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, conv.out_channels, 1, bias=False),
            nn.BatchNorm2d(conv.out_channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of each image with its own weights."""
        num_images = len(x)
        weights = self.conv.weight * (1 + self.attention(x)[:, :, None])
        stacked = x.reshape(1, -1, *x.shape[2:])
        result = F.conv2d(
            stacked,
            weights.flatten(0, 1).to(x.dtype),
            None,
            self.conv.stride,
            self.conv.padding,
            self.conv.dilation,
            groups=num_images,
        )
        return result.view(num_images, -1, *result.shape[2:])


def plain() -> nn.Module:
    """Return torchvision's ResNet-50."""
    return torchvision.models.resnet50()


def with_ours(variant: str) -> nn.Module:
    """Return the same with attention as the papers begin with it."""
    model = plain()
    heedful.attach(model, variant, start="paper")
    return model


def with_timms(layer: str | None) -> nn.Module:
    """Return timm's ResNet-50, which computes the same as torchvision's, with timm's attention."""
    return timm.create_model("resnet50", block_args={"attn_layer": layer} if layer else {})


def with_naive_aw() -> nn.Module:
    """Return torchvision's with naive AW-convolutions for its 3x3 ones."""
    model = plain()
    for module in list(model.modules()):
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv2 = NaiveAWConv2d(module.conv2)
    return model


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    **{f"heedful {variant}": partial(with_ours, variant) for variant in [*LAYERS, *CONVOLUTIONS, "aw+se"]},
    "timm plain": partial(with_timms, None),
    **{f"timm {layer}": partial(with_timms, layer) for layer in ("se", "eca", "cbam")},
    "naive aw": with_naive_aw,
}


class Work:
    """A training step or a forward pass of one network, which counts its own process time."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, *, train: bool) -> None:
        self.model, self.images, self.labels, self.train = model, images, labels, train
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        self.cpu_seconds: list[float] = []

    def __call__(self) -> None:
        """Do it once."""
        start = time.process_time()
        self.model.train(self.train)
        with torch.set_grad_enabled(self.train), torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
            logits = self.model(self.images)
            loss = F.cross_entropy(logits, self.labels)
        if self.train:
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        if CUDA:
            torch.cuda.synchronize()
        self.cpu_seconds.append(time.process_time() - start)


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median over the repetitions of the ratio to the plain network within one."""
    first = seconds["plain"]
    return {name: round(median(a / b for a, b in zip(times, first, strict=True)), 3) for name, times in seconds.items()}


def measured(names: list[str], options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Return "ratios", "cpu_ratios" and "plain_seconds" by phase of the networks with these names, beside plain's."""
    torch.manual_seed(0)
    images = torch.randn(BATCH_SIZE, 3, 224, 224, device=DEVICE).to(memory_format=MEMORY_FORMAT)
    labels = torch.randint(1000, (BATCH_SIZE,), device=DEVICE)
    models = {name: MAKERS[name]().to(DEVICE, memory_format=MEMORY_FORMAT) for name in ["plain", *names]}
    with torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
        saved = {name: saved_bytes(model, images) for name, model in models.items()}
    result = {
        "ratios": {"saved": {name: round(size / saved["plain"], 3) for name, size in saved.items()}},
        "cpu_ratios": {},
        "plain_seconds": {},
    }
    for phase in ("training", "inference"):
        timed = {name: torch.compile(model) if options.compile else model for name, model in models.items()}
        works = {name: Work(model, images, labels, train=phase == "training") for name, model in timed.items()}
        seconds = paired(works, options.repetitions)
        result["ratios"][phase] = ratios(seconds)
        result["cpu_ratios"][phase] = ratios({name: work.cpu_seconds[1:] for name, work in works.items()})
        result["plain_seconds"][phase] = {names[0]: round(median(seconds["plain"]), 4)}
    return result


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--compile", action="store_true", help="time what torch.compile makes of the networks")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=list(MAKERS), choices=list(MAKERS), help="beside plain")
    options = parser.parse_args()
    names = [name for name in options.only if name != "plain"]
    torch._dynamo.config.recompile_limit = 2 * len(MAKERS)  # all networks share the code of one forward

    result = {
        "settings": f"ResNet-50, {BATCH_SIZE} images of 224 pixels, "
        + ("bfloat16 autocast, channels_last" if CUDA else "float32")
        + (", compiled" if options.compile else ", eager"),
        "repetitions": options.repetitions,
    }
    for start in range(0, len(names), 6):  # all at once would need more than 24 GiB
        for key, phases in measured(names[start : start + 6], options).items():
            for phase, values in phases.items():
                result.setdefault(key, {}).setdefault(phase, {}).update(values)
    path = write("attention_overhead" + ("_compiled" if options.compile else "") + ("_cuda" if CUDA else ""), result)
    for name in names:
        row = [f"{name:14} saved {result['ratios']['saved'][name]:.3f}"]
        for phase in ("training", "inference"):
            row.append(f"{phase} {result['ratios'][phase][name]:.3f} (cpu {result['cpu_ratios'][phase][name]:.3f})")
        print("  ".join(row))
    print(path)


if __name__ == "__main__":
    main()
