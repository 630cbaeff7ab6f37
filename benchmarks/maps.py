"""Grad-CAM by heedful, pytorch-grad-cam, torch-cam and captum: operations, time and memory on ResNet-50.

Run with `uv run --group bench python maps.py` in this folder: 8 images of 224 pixels in float32 with random weights (a
GPU is used where there is one). Maps of 1 class at layer 4; of 5 classes at layers 3 and 4, each on its own; and of all
1000 classes at layer 4, which only heedful gives in one call. FLOPs and times are ratios to a forward and backward pass
and, as `to_forward`, to a forward pass in inference mode; memory is what the process's peak grows by, as a ratio to
that of a forward pass. Targets: 5 classes x 2 layers in at most 2.0 / 2.97 of the FLOPs of a forward and backward pass,
at most torch-cam's time and 1.5 of a forward pass's memory; 1000 classes in 1.05 of a forward pass.
"""

import argparse
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common import paired, write
from heedful import attention_maps

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH_SIZE = 8
CLASSES = torch.arange(5) * 150
LAYERS = ["layer3", "layer4"]


def synchronised(run: Callable[[], object]) -> None:
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def forward(model: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        model(images)


def forward_and_backward(model: nn.Module, images: Tensor) -> None:
    model(images).sum().backward()
    model.zero_grad(set_to_none=True)


def by_heedful(model: nn.Module, images: Tensor, classes: Tensor, layers: list[str]) -> None:
    attention_maps(model, images, layers=layers, classes=classes.to(DEVICE).expand(len(images), -1))


def by_torch_cam(model: nn.Module, images: Tensor, classes: Tensor, layers: list[str]) -> None:
    from torchcam.methods import GradCAM

    with GradCAM(model, layers) as extractor:
        scores = model(images)
        for number, cls in enumerate(classes.tolist()):
            extractor(cls, scores, normalized=False, retain_graph=number + 1 < len(classes))


def by_captum(model: nn.Module, images: Tensor, classes: Tensor, layers: list[str]) -> None:
    from captum.attr import LayerGradCam

    for layer in layers:
        method = LayerGradCam(model, model.get_submodule(layer))
        for cls in classes.tolist():
            method.attribute(images, target=cls, relu_attributions=True).detach()


def by_pytorch_grad_cam(model: nn.Module, images: Tensor, classes: Tensor, layers: list[str]) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    for layer in layers:  # in one call it would give the layers' mean
        with GradCAM(model=model, target_layers=[model.get_submodule(layer)]) as method:
            for cls in classes.tolist():
                method(input_tensor=images, targets=[ClassifierOutputTarget(cls)] * len(images))
    model.zero_grad(set_to_none=True)


PACKAGES = {
    "heedful": by_heedful,
    "torch-cam": by_torch_cam,
    "captum": by_captum,
    "pytorch-grad-cam": by_pytorch_grad_cam,
}
TASKS = {"1 class, layer 4": (CLASSES[:1], LAYERS[1:]), "5 classes, layers 3 and 4": (CLASSES, LAYERS)}


def candidates() -> dict[str, Callable[[], None]]:
    """Return what is measured, by name."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval().to(DEVICE)
    images = torch.randn(BATCH_SIZE, 3, 224, 224, device=DEVICE)
    found: dict[str, Callable[[], None]] = {
        "forward": lambda: forward(model, images),
        "forward and backward": lambda: forward_and_backward(model, images),
    }
    for task, (classes, layers) in TASKS.items():
        for package, run in PACKAGES.items():
            found[f"{package}: {task}"] = lambda run=run, classes=classes, layers=layers: run(
                model, images, classes, layers
            )
    found["heedful: 1000 classes, layer 4"] = lambda: by_heedful(model, images, torch.arange(1000), LAYERS[1:])
    return {name: lambda run=run: synchronised(run) for name, run in found.items()}


def num_flops(run: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def memory_growth(name: str) -> float:
    """Return by how many MiB the peak memory of this process, or of the GPU, grows as a candidate runs twice."""
    run = candidates()[name]
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is from now on
    before = peak_memory()
    run()
    run()
    return peak_memory() - before


def peak_memory() -> float:
    """Return this process's peak memory in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def memory_in_a_process_of_its_own(name: str) -> float:
    command = [sys.executable, __file__, "--memory-of", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def ratios(values: dict[str, list[float]], base: str) -> dict[str, float]:
    return {
        name: round(median(a / b for a, b in zip(found, values[base], strict=True)), 3)
        for name, found in values.items()
    }


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--memory-of", help="print the memory of one candidate and end")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.memory_of:
        print(memory_growth(options.memory_of))
        return
    runs = candidates()
    flops = {name: [float(num_flops(run))] for name, run in runs.items()}
    memory = {name: [memory_in_a_process_of_its_own(name)] for name in runs}
    seconds = paired(runs, options.repetitions)
    result = {
        "settings": f"ResNet-50, {BATCH_SIZE} images of 224 pixels, float32, {DEVICE}",
        "repetitions": options.repetitions,
        "ratios": {
            "flops": ratios(flops, "forward and backward"),
            "seconds": ratios(seconds, "forward and backward"),
            "seconds_to_forward": ratios(seconds, "forward"),
            "memory_to_forward": ratios(memory, "forward"),
        },
        "forward_seconds": round(median(seconds["forward"]), 4),
        "forward_memory_mib": round(memory["forward"][0], 1),
    }
    path = write("maps" + ("_cuda" if DEVICE == "cuda" else ""), result, "captum", "grad-cam", "torchcam")
    for name in runs:
        print(f"{name:45}", json.dumps({key: found[name] for key, found in result["ratios"].items()}))
    print(path)


if __name__ == "__main__":
    main()
