"""What torchrun says of this process: one of several that train the same runs together. Imports nothing heavy."""

import os


def num_processes() -> int:
    """Return how many processes torchrun started, on all machines; 1 outside of it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def num_here() -> int:
    """Return how many of them run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if num_processes() > 1 else 1


def number() -> int:
    """Return which of them this is, from 0."""
    return int(os.environ["RANK"]) if num_processes() > 1 else 0


def number_here() -> int:
    """Return which of those on this machine this is, from 0."""
    return int(os.environ["LOCAL_RANK"]) if num_processes() > 1 else 0


def is_first() -> bool:
    """Return whether this is the process that writes and prints for all."""
    return number() == 0
