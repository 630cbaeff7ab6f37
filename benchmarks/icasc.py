"""What ICASC adds to a training step: ResNet-18 and ResNet-50, exact and first order, beside captum's maps in a loss.

Run with `uv run --group bench python icasc.py` in this folder: on a GPU in bfloat16 with 128 images of 224 pixels, also
with `torch.compile` on the trunk's first stages; else in float32 with 8. Step: forward pass, losses, backward pass;
layers 3 and 4, the true and the most confusing class. Ratios to the plain step; `saved` are the bytes kept for the
backward pass. Targets: 1.55 exact, 1.12 of first order, saved activations 1.15.
"""

import argparse
import warnings
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common import paired, write
from heedful import ICASC
from heedful.evaluate.cost import kept_bytes

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BATCH_SIZE = 128 if CUDA else 8
Loss = Callable[[Tensor, Tensor], Tensor]
NETWORKS = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}


def plain_loss(model: nn.Module) -> Loss:
    return lambda images, labels: F.cross_entropy(model(images), labels)


def icasc_loss(model: nn.Module, **options: object) -> Loss:
    criterion = ICASC(model, "layer3", "layer4", **options)
    return lambda images, labels: criterion(images, labels).total


def captum_loss(model: nn.Module) -> Loss:
    """Return cross-entropy and the overlap of captum's differentiable Grad-CAM maps at both layers."""
    from captum.attr import LayerGradCam

    methods = [LayerGradCam(model, model.get_submodule(layer)) for layer in ("layer3", "layer4")]

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits = model(images)
        confusing = logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
        total = F.cross_entropy(logits, labels)
        for method in methods:
            true, other = (
                method.attribute(images, target=c, relu_attributions=True, grad_kwargs={"create_graph": True})
                for c in (labels, confusing)
            )
            total = total + (2 * torch.minimum(true, other).sum() / (true + other).sum().clamp_min(1e-8))
        return total

    return loss


def losses(network: str) -> dict[str, tuple[nn.Module, Loss]]:
    """Return what is compared: name -> a network, always with the same weights, and the loss on it."""

    def pair(make: Callable[..., Loss], *, compiled: bool = False, **options: object) -> tuple[nn.Module, Loss]:
        torch.manual_seed(0)
        model = NETWORKS[network]().to(DEVICE, memory_format=torch.channels_last if CUDA else torch.contiguous_format)
        for name in ("layer1", "layer2") if compiled else ():
            model.get_submodule(name).compile()
        return model, under_autocast(make(model, **options))

    found = {
        "plain": pair(plain_loss),
        "heedful": pair(icasc_loss),
        "heedful grad-cam": pair(icasc_loss, method="grad-cam"),
        "heedful first order": pair(icasc_loss, first_order=True),
        "captum": pair(captum_loss),
    }
    if CUDA:
        found |= {
            "plain, compiled trunk": pair(plain_loss, compiled=True),
            "heedful, compiled trunk": pair(icasc_loss, compiled=True),
        }
    return found


def under_autocast(loss: Loss) -> Loss:
    def run(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
            return loss(images, labels)

    return run


def step(loss: Loss, images: Tensor, labels: Tensor) -> None:
    loss(images, labels).backward()
    if CUDA:
        torch.cuda.synchronize()


def measured(network: str, repetitions: int) -> dict[str, dict[str, float]]:
    """Return what each loss costs, as ratios to the plain one."""
    torch.manual_seed(0)
    images = torch.randn(BATCH_SIZE, 3, 224, 224, device=DEVICE)
    labels = torch.randint(1000, (BATCH_SIZE,), device=DEVICE)
    runs = losses(network)
    flops, saved = {}, {}
    for name, (model, loss) in runs.items():
        if "compiled" not in name:
            with FlopCounterMode(display=False) as counter:
                step(loss, images, labels)
            flops[name] = counter.get_total_flops()
            saved[name] = kept_bytes(model, lambda loss=loss: loss(images, labels))
    steps = {name: lambda loss=loss: step(loss, images, labels) for name, (_, loss) in runs.items()}
    seconds = paired(steps, repetitions)
    return {
        f"{network} {kind}": {name: round(found[name] / found["plain"], 3) for name in found}
        for kind, found in (("flops", flops), ("saved", saved))
    } | {
        f"{network} seconds": {
            name: round(median(a / b for a, b in zip(times, seconds["plain"], strict=True)), 3)
            for name, times in seconds.items()
        }
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    result = {
        "settings": f"{BATCH_SIZE} images of 224 pixels, " + ("bfloat16 autocast" if CUDA else "float32"),
        "repetitions": options.repetitions,
        "ratios": {},
    }
    for network in NETWORKS:
        result["ratios"] |= measured(network, options.repetitions)
    path = write("icasc" + ("_cuda" if CUDA else ""), result, "captum")
    for name, found in result["ratios"].items():
        print(f"{name:20}", found)
    print(path)


if __name__ == "__main__":
    main()
