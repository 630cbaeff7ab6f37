"""What the benchmarks share: candidates timed in turn in one process, and results written with what they ran on."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def paired(candidates: dict[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    """Return the seconds that each candidate took, repetition by repetition.

    In each repetition all candidates run, in alternating order, so that what else the machine does meets them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()  # the first time pays for imports, caches and workers
    for repetition in range(repetitions):
        for name in list(candidates) if repetition % 2 == 0 else reversed(candidates):
            start = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def write(name: str, result: dict[str, Any], *peers: str) -> Path:
    """Write a benchmark's result, with versions and hardware, into $OUT or benchmarks/results; return the file.

    Args:
        name: of the benchmark, and of the file.
        result: "ratios" and what else was measured.
        peers: further packages whose versions belong to it.
    """
    packages = ("heedful", "torch", "torchvision", "timm", *peers)
    versions = {package: importlib.metadata.version(package) for package in packages}
    content = {"benchmark": name, **result, "versions": versions, "hardware": hardware()}
    folder = Path(os.environ.get("OUT") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def hardware() -> str:
    """Return the processor's model, the threads that torch uses and, if there is one, the GPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    parts = [models[0] if models else platform.processor() or platform.machine(), f"{torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
