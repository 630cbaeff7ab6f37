"""Batches of a split: shuffled, augmented and normalised, from memory; `batches` takes files as well."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from heedful.data.augment import AUGMENTATIONS, check_names
from heedful.data.dataset import DataSet, ImageArray, Split
from heedful.data.loaded import Loaded
from heedful.data.share import WHOLE, Share, check_share, in_order, num_training_batches
from heedful.errors import InputError

Labels = Int64[Tensor, "batch"] | Int64[Tensor, "batch classes"]
Batch = tuple[Float32[Tensor, "batch 3 height width"], Labels]
Channels = tuple[float, float, float]


def normalise(
    images: UInt8[Tensor, "batch 3 height width"], mean: Channels, deviation: Channels
) -> Float32[Tensor, "batch 3 height width"]:
    """Return (images / 255 − mean) / deviation, per channel, laid out channels last.

    Channels last: on a 2-core CPU a training step of 3 × 3 convolutions, batch 128 of 32 × 32 images, took 0.75 of the
    time that it takes on channels first, whatever the layout of the weights.

    Args:
        images: uint8, 0 to 255.
        mean: per channel, in [0, 1].
        deviation: per channel, in [0, 1], not 0.
    """
    centre, scale = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) * 255 for values in (mean, deviation))
    # In place, and laid out anew only at the end: subtracting three channels last is six times slower.
    normalised = images.float().sub_(centre).mul_(1 / scale)
    return normalised.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one epoch of a split in memory, on the split's device; iterated again, they are the same.

    Args:
        split: the images.
        mean: per channel, to normalise with.
        deviation: likewise.
        batch_size: images per batch; the last may be smaller. A last training batch of one image is left out: batch
            norm cannot train on one.
        augment: names from AUGMENTATIONS, applied in this order.
        seed: for training: decides order and augmentation of this epoch. None: in order, as the images are.
        share: of the process: of each training batch, which is drawn and augmented whole, so that it does not depend on
            the number of processes; without a seed, of the split.

    Raises:
        InputError: if batch_size is below 1 or the number of processes, a name is unknown, or there is augmentation but
            no seed.
    """

    split: ImageArray
    mean: Channels
    deviation: Channels
    batch_size: int
    augment: tuple[str, ...] = ()
    seed: int | None = None
    share: Share = WHOLE

    def __post_init__(self) -> None:
        check_batches(self.batch_size, self.augment, self.seed)
        check_share(len(self.split), self.batch_size, self.share, training=self.seed is not None)

    def __len__(self) -> int:
        if self.seed is None:
            return len(in_order(len(self.split), self.batch_size, self.share))
        return num_training_batches(len(self.split), self.batch_size, self.share)

    def __iter__(self) -> Iterator[Batch]:
        images, labels = self.split.images, self.split.labels
        if self.seed is None:
            for place in in_order(len(labels), self.batch_size, self.share):
                yield normalise(images[place], self.mean, self.deviation), labels[place]
            return
        generator = torch.Generator(images.device).manual_seed(self.seed)
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in torch.split(order, self.batch_size)[: len(self)]:
            with _one_thread():
                chunk = images.index_select(0, index)
                for name in self.augment:
                    chunk = AUGMENTATIONS[name](chunk, generator)
                own = self.share.of(len(index))
                batch = normalise(chunk[own], self.mean, self.deviation)
            yield batch, labels[index[own]]


@dataclass(frozen=True)
class Moved:
    """Batches that are moved to a device one by one, as often as they are iterated over."""

    loader: Iterable[Any]
    device: torch.device

    def __iter__(self) -> Iterator[Any]:
        return (moved(batch, self.device) for batch in self.loader)


def moved(batch: Any, device: torch.device) -> Any:
    """Return a tensor, or a tuple, list or dict of such, on the device; itself, if it is there already."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: moved(each, device) for name, each in batch.items()}
    return type(batch)(moved(each, device) for each in batch)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one CPU thread for operations on uint8 images, each of which takes well under a millisecond.

    To hand such an operation to a second thread and wait for it costs more than it saves: on two busy cores, two
    threads made 12,000 images a second and one 45,000. Changing the number of threads takes a microsecond.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def check_batches(batch_size: int, augment: tuple[str, ...], seed: int | None) -> None:
    """Raise an InputError if batches could not be made so."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, but it must be at least 1, for example 128")
    check_names(augment)
    if augment and seed is None:
        raise InputError(f"augment is {augment}, but without a seed nothing is drawn: give a seed, or augment=()")


def batches(
    split: Split,
    dataset: DataSet,
    batch_size: int,
    *,
    augment: tuple[str, ...] = (),
    seed: int | None = None,
    num_workers: int = 0,
    share: Share = WHOLE,
) -> Batches | Loaded[Batch]:
    """Return the batches of one epoch, with a length: `Batches` for a split in memory, `file_batches` for files.

    Args:
        split: one of the data set's, on whichever device it is to be augmented on.
        dataset: gives mean and deviation.
        batch_size: images per batch, of all processes together.
        augment: names from AUGMENTATIONS.
        seed: decides this epoch's order and augmentation; None: in order, without augmentation.
        num_workers: processes that read files; unused for a split in memory.
        share: of this process, if several train together: see `Batches`.

    Raises:
        InputError: as `Batches`.
    """
    if isinstance(split, ImageArray):
        return Batches(split, dataset.mean, dataset.deviation, batch_size, augment=augment, seed=seed, share=share)
    from heedful.data.file_batches import file_batches  # torchvision takes a second to import

    mean, deviation = dataset.mean, dataset.deviation
    return file_batches(
        split, mean, deviation, batch_size, augment=augment, seed=seed, num_workers=num_workers, share=share
    )
