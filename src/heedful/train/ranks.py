"""What the processes of one run share: losses, errors, what the first of them does for all, and how they end.

torchrun starts them, each with a share of every batch (`heedful.data.share`); Lightning's DDP takes the mean of their
gradients, `heedful.layers.synchronised` is their batch norm. Outside torchrun there is one, and all here is nothing.
"""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from heedful.data.share import WHOLE, Share
from heedful.errors import InputError
from heedful.layers.synchronised import synchronised
from heedful.train.launched import is_first, num_processes, number, number_here
from heedful.train.learner import Counter

T = TypeVar("T")

PATIENCE = timedelta(days=365)
"""How long processes wait for each other: the first may test and evaluate for long, and the death of one is seen."""

GRACE_SECONDS = 1.0
"""Between another process's end and this one's: time to end by itself, where both end for the same reason."""


def share() -> Share:
    """Return this process's share of every batch."""
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else WHOLE


def part_of_batch(count: int, device: torch.device) -> Float[Tensor, ""] | float:
    """Return which part of the batch of all processes these images are; 1 for a single process.

    Args:
        count: images that this process has of the batch.
        device: where it trains.
    """
    if not dist.is_initialized():
        return 1.0
    own = torch.tensor(float(count), device=device)
    return own / summed(own)


def summed(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the sums over all processes, without a gradient; of a single process, the values."""
    if not dist.is_initialized():
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def gathered(value: T) -> list[T]:
    """Return what each process gave, in their order, its tensors on the CPU; of a single process, the value itself.

    Args:
        value: anything that can be pickled; the same call must be made by all.
    """
    if not dist.is_initialized():
        return [value]
    written = io.BytesIO()
    torch.save(value, written)
    contents: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(contents, written.getvalue())
    return [torch.load(io.BytesIO(content), map_location="cpu", weights_only=False) for content in contents]


def combined(counter: Counter) -> Counter:
    """Return a counter of what those of all processes counted; of a single process, the counter itself."""
    first, *others = gathered(counter)
    for other in others:
        first.include(other)
    return first


def batch_norms() -> AbstractContextManager[object]:
    """Return the context in which batch norms take their statistics over all processes."""
    return synchronised() if dist.is_initialized() else nullcontext()


def by_the_first(action: Callable[[], T]) -> T:
    """Return what the action returns in the first process, which alone carries it out, while the others wait.

    Raises:
        InputError: or OSError, in the first process, if the action does; the others then leave by SystemExit, for they
            need not say it again.
    """
    if not dist.is_initialized():
        return action()
    result: list[Any] = [None, False]
    error: Exception | None = None
    if is_first():
        try:
            result = [action(), True]
        except (InputError, OSError) as found:
            error = found
    dist.broadcast_object_list(result)
    value, is_done = result
    if is_done:
        return value
    _way.is_agreed = True
    raise error or SystemExit(2)


@dataclass
class _Way:
    """How far the run is, and whether all processes end for a reason that the first one tells."""

    next_epoch: int = 1
    is_agreed: bool = False


_way = _Way()


def reached(num_finished: int) -> None:
    """Note how many epochs are saved, to be told if another process ends."""
    _way.next_epoch = num_finished + 1


@contextmanager
def together(device: str = "auto") -> Iterator[None]:
    """Train together with the other processes that torchrun started, while the context lasts; otherwise do nothing.

    If another process ends before its time (killed, out of memory), this one says so and ends too, wherever it waits.

    Args:
        device: as in `heedful.train.run.Machine`.
    """
    if num_processes() == 1 or dist.is_initialized():
        yield
        return
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(number_here())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    watch = _Watch()
    try:
        yield
    except RuntimeError:
        watch.wait()  # if the others are gone this ends the process; if not, the error is its own
        raise
    else:
        _way.is_agreed = True
    finally:
        watch.leave(said=_way.is_agreed)
    dist.destroy_process_group()


def heed_sigterm() -> None:
    """Let SIGTERM, by which torchrun ends the others when one has ended, end this process with a message.

    Lightning's own answer to it asks all processes, of which one may be gone.
    """
    if dist.is_initialized():
        signal.signal(signal.SIGTERM, lambda *_: _leave("SIGTERM has come, or another process of this run ended"))


class _Watch:
    """Waits, beside the work, for a word of the next process; a process that ends without one has failed."""

    def __init__(self) -> None:
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(group, dist.ProcessGroup)
        self._group = group
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        heed_sigterm()

    def _listen(self) -> None:
        try:
            dist.recv(torch.empty(1), src=(number() + 1) % num_processes(), group=self._group)
        except RuntimeError:
            time.sleep(GRACE_SECONDS)
            _leave("another process of this run ended")

    def wait(self) -> None:
        """Wait for the thread to end the process, if it is about to."""
        self._thread.join(3 * GRACE_SECONDS)

    def leave(self, *, said: bool) -> None:
        """Say the word, unless this process fails, and wait for that of the other."""
        if said:
            with suppress(RuntimeError):  # it is gone, which the others are about to hear, and this one from them
                dist.send(torch.zeros(1), dst=(number() - 1) % num_processes(), group=self._group)
            self._thread.join()


def _leave(reason: str) -> None:
    """End this process at once, wherever it is, and say why."""
    sys.stderr.write(
        f"error: {reason}, so process {number()} of {num_processes()} ends, too: the same command goes on from epoch "
        f"{_way.next_epoch}\n"
    )
    sys.stderr.flush()
    os._exit(1)
