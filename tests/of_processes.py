"""Runs a function in several processes that meet as those of torchrun do."""

import os
import socket
from pathlib import Path

import torch
from torch import multiprocessing


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(number: int, num: int, port: int) -> dict[str, str]:
    """Return what torchrun tells a process."""
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(num),
        "LOCAL_WORLD_SIZE": str(num),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def results(function, num: int, folder: Path) -> list:
    """Return what the function returns in each of `num` processes; it must be importable."""
    multiprocessing.spawn(_one, (function, num, free_port(), folder), nprocs=num)
    return [torch.load(folder / f"{number}.pt", weights_only=False) for number in range(num)]


def _one(number: int, function, num: int, port: int, folder: Path) -> None:
    from heedful.train import ranks

    os.environ.update(environment(number, num, port))
    torch.set_num_threads(1)
    with ranks.together("cpu"):
        torch.save(function(), folder / f"{number}.pt")
