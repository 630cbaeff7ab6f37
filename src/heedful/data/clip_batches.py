"""Batches of clips of one or more streams: shuffled, cut in time, turned, mirrored and normalised."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heedful.data.clip_data import ClipData, ClipSplit
from heedful.data.clip_windows import middle_windows, random_windows
from heedful.data.loaded import Loaded
from heedful.data.share import WHOLE, Share, check_share, in_order, num_training_batches
from heedful.data.skeletons import mirrored, random_turns, turned
from heedful.errors import InputError, unknown

ClipBatch = tuple[dict[str, Float32[Tensor, "..."]], Int64[Tensor, "..."]]

AUGMENTATIONS = ("window", "turn", "flip")


def clip_batches(
    split: ClipSplit,
    data: ClipData,
    batch_size: int,
    *,
    augment: tuple[str, ...] = (),
    seed: int | None = None,
    num_workers: int = 0,
    share: Share = WHOLE,
) -> Loaded[ClipBatch]:
    """Return the batches of one epoch, with a length: ({stream: (N, channels, frames, ...)}, labels).

    What is drawn follows from the seed alone, whatever the number of workers. Each clip is normalised per channel.

    Args:
        split: one of the data's, on whichever device.
        data: gives shapes, mean and deviation.
        batch_size: clips per batch; the last may be smaller. A last training batch of one clip is left out: batch norm
            cannot train on one.
        augment: "window": a part of each clip at random, the same of all its streams, as HCN and MMTM train; without
            it, and in evaluation, the middle 0.9 of each. "turn": skeletons turned at random by up to 0.3 radians about
            each axis; other streams stay. "flip": half of the clips mirrored, all streams; it makes other actions of
            those that are told by their side, such as UTD-MHAD's "swipe_left".
        seed: for training: decides order and augmentation of this epoch. None: in order, without augmentation.
        num_workers: processes that read and cut; 0: this one.
        share: of this process, if several train together: of each training batch, or without a seed of the split.

    Raises:
        InputError: if batch_size is below 1, a name is unknown, there is augmentation but no seed, or inertial sensors
            would have to be mirrored; from the loader, if a file cannot be read.
    """
    check_augment(augment, data.shapes)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, but it must be at least 1, for example 16")
    if augment and seed is None:
        raise InputError(f"augment is {augment}, but without a seed nothing is drawn: give a seed, or augment=()")
    generator = torch.Generator().manual_seed(seed or 0)
    chosen = _numbers(len(split), batch_size, None if seed is None else generator, share)
    epoch = _Epoch(split, data, _draw(len(split), augment, generator))
    # Whole batches are made at once, and the loader's own draw leaves the process's random numbers alone.
    loader = DataLoader(epoch, batch_size=None, sampler=chosen, num_workers=num_workers, generator=generator)
    return Loaded(loader)


def _numbers(count: int, batch_size: int, generator: torch.Generator | None, share: Share) -> list[Tensor]:
    """Return the numbers of the clips in each batch of this process; without a generator in order."""
    check_share(count, batch_size, share, training=generator is not None)
    if generator is None:
        return [torch.arange(place.start, place.stop) for place in in_order(count, batch_size, share)]
    batches = torch.split(torch.randperm(count, generator=generator), batch_size)
    return [batch[share.of(len(batch))] for batch in batches[: num_training_batches(count, batch_size, share)]]


def check_augment(augment: Collection[str], streams: Collection[str]) -> None:
    """Raise an InputError if a name is unknown or a stream cannot be augmented so."""
    for name in augment:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation of clips", name, AUGMENTATIONS)
    if "flip" in augment and "inertial" in streams:
        raise InputError("augment 'flip': what an inertial sensor saw cannot be mirrored: leave flip or the stream out")


@dataclass(frozen=True)
class _Drawn:
    """What an epoch does to each clip of a split; None: nothing."""

    windows: Float[Tensor, "count 2"]
    angles: Float[Tensor, "count 3"] | None
    mirrored: Bool[Tensor, "count"] | None


def _draw(count: int, augment: tuple[str, ...], generator: torch.Generator) -> _Drawn:
    return _Drawn(
        windows=random_windows(count, generator) if "window" in augment else middle_windows(count),
        angles=random_turns(count, generator) if "turn" in augment else None,
        mirrored=torch.rand(count, generator=generator) < 0.5 if "flip" in augment else None,
    )


@dataclass(frozen=True, eq=False)
class _Epoch(Dataset[ClipBatch]):
    """A batch for each tensor of numbers of clips."""

    split: ClipSplit
    data: ClipData
    drawn: _Drawn

    def __getitem__(self, chosen: Int64[Tensor, "chosen"]) -> ClipBatch:
        num_frames = {name: shape[1] for name, shape in self.data.shapes.items()}
        streams = self.split.cut(chosen, self.drawn.windows[chosen], num_frames)
        if self.drawn.angles is not None and "skeleton" in streams:
            angles = self.drawn.angles[chosen].to(streams["skeleton"].device)
            streams["skeleton"] = turned(streams["skeleton"], angles)
        if self.drawn.mirrored is not None:
            streams = _mirrored(streams, self.drawn.mirrored[chosen], self.split.partners)
        return normalised(streams, self.data), self.split.labels[chosen.to(self.split.labels.device)]


def _mirrored(
    streams: Mapping[str, Tensor], which: Bool[Tensor, "batch"], partners: tuple[int, ...]
) -> dict[str, Tensor]:
    """Return all streams, those of the clips in question as a mirror shows them."""
    made = {}
    for name, values in streams.items():
        turned_round = mirrored(values, partners) if name == "skeleton" else values.flip(-1)
        chosen = which.to(values.device).view(-1, *(1 for _ in values.shape[1:]))
        made[name] = torch.where(chosen, turned_round, values)
    return made


def normalised(streams: Mapping[str, Float[Tensor, "..."]], data: ClipData) -> dict[str, Float[Tensor, "..."]]:
    """Return batches of streams, (value - mean) / deviation, per channel."""
    made = {}
    for name, values in streams.items():
        shape = (-1, *(1 for _ in values.shape[2:]))
        mean, deviation = (
            torch.tensor(each[name], device=values.device).view(shape) for each in (data.mean, data.deviation)
        )
        made[name] = (values - mean) / deviation
    return made
