"""The share that one of several processes has in the batches of an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch.utils.data import BatchSampler, RandomSampler

from heedful.errors import InputError


@dataclass(frozen=True)
class Share:
    """One of `num` parts of a sequence, which follow each other and differ in length by one at most.

    Args:
        index: which, from 0.
        num: of how many.
    """

    index: int = 0
    num: int = 1

    def of(self, count: int) -> slice:
        """Return where this part of so many elements lies."""
        return slice(self.index * count // self.num, (self.index + 1) * count // self.num)


WHOLE = Share()


def num_training_batches(count: int, batch_size: int, share: Share = WHOLE) -> int:
    """Return how many batches of `batch_size` in all, shared by the processes, so many images give in an epoch.

    A last batch with less than one image for each process, or of a single image, is left out: batch norm cannot train
    on one.
    """
    whole, rest = divmod(count, batch_size)
    return whole + (rest >= max(2, share.num))


def in_order(count: int, batch_size: int, share: Share = WHOLE) -> list[slice]:
    """Return where the batches lie in which a process goes through its own part of so many images, each image once."""
    own, step = share.of(count), -(-batch_size // share.num)
    return [slice(start, min(start + step, own.stop)) for start in range(own.start, own.stop, step)]


def batch_sampler(
    count: int, batch_size: int, seed: int | None = None, share: Share = WHOLE
) -> "Sequence[list[int]] | Drawn":
    """Return the numbers of the images in each batch of a process, for a DataLoader.

    Args:
        count: images in the split.
        batch_size: of all processes together.
        seed: draws the order of an epoch; None: in order, for evaluation.
        share: of the process: of each drawn batch, or of the split.

    Raises:
        InputError: as `check_share`.
    """
    check_share(count, batch_size, share, training=seed is not None)
    if seed is None:
        return [list(range(place.start, place.stop)) for place in in_order(count, batch_size, share)]
    return Drawn(count, batch_size, seed, share)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A process's share of the batches of an epoch, the same however often it is asked for; see `batch_sampler`."""

    count: int
    batch_size: int
    seed: int
    share: Share

    def __len__(self) -> int:
        return num_training_batches(self.count, self.batch_size, self.share)

    def __iter__(self) -> Iterator[list[int]]:
        # Lightning goes through a loader's beginning twice when it resumes: a generator kept here would go on.
        order = RandomSampler(range(self.count), generator=torch.Generator().manual_seed(self.seed))
        for batch in islice(BatchSampler(order, self.batch_size, drop_last=False), len(self)):
            yield batch[self.share.of(len(batch))]


def check_share(count: int, batch_size: int, share: Share, *, training: bool) -> None:
    """Raise an InputError unless each process has a part in the split and every whole batch, and enough to train on."""
    if batch_size < share.num:
        raise InputError(
            f"batch_size is {batch_size}, but {share.num} processes share each batch: give at least {share.num}, or "
            "start fewer processes"
        )
    if count < share.num > 1:
        raise InputError(f"a split has {count} images for {share.num} processes: give more, or start fewer processes")
    if training and num_training_batches(count, batch_size, share) == 0:
        raise InputError(
            f"the training split has {count} image or clip, but batch norm cannot train on less than 2: add some, or "
            "raise the limit if there is one"
        )
