"""What a run was computed with: versions, device, threads, commit; written beside every result."""

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def environment(device: torch.device) -> dict[str, str | int | None]:
    """Return versions of the libraries that decide numbers, the device's name, and the number of threads."""
    return {
        "heedful": version("heedful"),
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "lightning")},
        "device": f"{device.type}: {_device_name(device)}",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        for line in cpu_info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _commit() -> str | None:
    """Return the commit of heedful's own checkout, or None where it is installed as a package."""
    source = Path(__file__).parents[3]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
