"""Clips: what a person does, seen by several sensors at once, so that each clip has several streams and one label.

A stream lies in one tensor: (clips, channels, time, ...). Its clips had lengths of their own and were resampled to one;
each sensor may keep its own number of frames, since moments are fractions of the clip.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heedful.data.clip_windows import windowed
from heedful.data.draws import ranks, share
from heedful.errors import InputError


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips of several streams, in memory.

    Args:
        name: of the data set.
        streams: name of a sensor → (clips, channels, time, ...); all of the same clips in the same order.
        labels: class numbers, from 0, one per clip.
        subjects: the number of the person in each clip.
        classes: class names; a label is a place in this tuple.
        fingerprint: hex digest of what decides the data.
        partners: of each joint of the skeletons that on the other side of the body; its own in the middle.

    Raises:
        InputError: if there is no stream, or streams, labels and subjects differ in their number of clips, or a label
            is no place in `classes`.
    """

    name: str
    streams: Mapping[str, Float[Tensor, "..."]]
    labels: Int64[Tensor, "count"]
    subjects: Int64[Tensor, "..."]
    classes: tuple[str, ...]
    fingerprint: str = ""
    partners: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.streams:
            raise InputError("streams is empty, but clips must have one stream or more, for example 'skeleton'")
        counts = {f"stream {name!r}": len(values) for name, values in self.streams.items()}
        counts |= {"labels": len(self.labels), "subjects": len(self.subjects)}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(f"these differ in their number of clips: {listed}; give each of the same clips")
        outside = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(outside):
            raise InputError(
                f"labels hold {int(outside[0])}, but with {len(self.classes)} classes they must be 0 to "
                f"{len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, chosen: Int64[Tensor, "chosen"]) -> "Clips":
        """Return the chosen clips, in that order."""
        streams = {name: values[chosen] for name, values in self.streams.items()}
        return replace(self, streams=streams, labels=self.labels[chosen], subjects=self.subjects[chosen])

    def to(self, device: torch.device) -> "Clips":
        """Return the clips on a device."""
        streams = {name: values.to(device) for name, values in self.streams.items()}
        return replace(self, streams=streams, labels=self.labels.to(device), subjects=self.subjects.to(device))

    def cut(
        self, chosen: Int64[Tensor, "chosen"], windows: Float[Tensor, "chosen 2"], num_frames: Mapping[str, int]
    ) -> dict[str, Float[Tensor, "chosen ..."]]:
        """Return parts of the chosen clips.

        Args:
            chosen: numbers of clips, from 0.
            windows: where each part begins and ends, as fractions of the clip.
            num_frames: of each stream, in its part.
        """
        chosen, windows = chosen.to(self.labels.device), windows.to(self.labels.device)
        return {name: windowed(values[chosen], windows, num_frames[name]) for name, values in self.streams.items()}


def by_subject(
    clips: Clips, *, test: Collection[int], val_fraction: float = 0.1, seed: int = 0
) -> tuple[Clips, Clips, Clips]:
    """Return the clips for training, validation and testing: some people are for testing alone.

    Validation is on clips of the people trained on, which are easier: accuracy there lies above that on test. With four
    people to train on, as in UTD-MHAD, to leave one of them out for it costs more than it tells.

    Args:
        clips: all clips, as they were read.
        test: the numbers of the people to test on; nobody else's clips are in the test split.
        val_fraction: of each class's other clips, drawn for validation, in (0, 1); one clip at least.
        seed: decides which are drawn; at least 0.

    Raises:
        InputError: if nobody is left to train on, a person is in no clip, the fraction is out of range, or a class has
            no training clip.
    """
    _check_people(clips, test)
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}, but it must be in (0, 1), for example 0.1")
    is_test = torch.isin(clips.subjects, torch.tensor(list(test)))
    is_val = _drawn(clips.labels, ~is_test, val_fraction, seed)
    train = clips.at((~is_test & ~is_val).nonzero().flatten())
    _require_every_class(train)
    return train, clips.at(is_val.nonzero().flatten()), clips.at(is_test.nonzero().flatten())


def _check_people(clips: Clips, test: Collection[int]) -> None:
    people = set(clips.subjects.tolist())
    if not test:
        raise InputError(f"test is empty: name people of the subjects {sorted(people)}")
    absent = sorted(set(test) - people)
    if absent:
        raise InputError(f"test names subject {absent[0]}, but {clips.name} has the subjects {sorted(people)}")
    if people <= set(test):
        raise InputError(f"test {sorted(test)} leaves nobody to train on: leave subjects out")


def _drawn(labels: Tensor, allowed: Tensor, fraction: float, seed: int) -> Tensor:
    """Mark the share of each class's allowed clips that is drawn."""
    candidates = allowed.nonzero().flatten()
    numbers = labels[candidates]
    quotas = torch.tensor([share(fraction, count) for count in numbers.bincount().tolist()])
    places = ranks(numbers, torch.Generator().manual_seed(seed))
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    drawn[candidates[places < quotas[numbers]]] = True
    return drawn


def _require_every_class(train: Clips) -> None:
    counts = train.labels.bincount(minlength=len(train.classes)).tolist()
    for name, count in zip(train.classes, counts, strict=True):
        if count == 0:
            raise InputError(f"class {name!r} has no training clip: test on fewer people, or leave the class out")


def moments(
    streams: Mapping[str, Float[Tensor, "clips channels ..."]],
) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    """Return mean and deviation of each stream per channel, over clips, time and places; at least 1e-6 the latter."""
    mean, deviation = {}, {}
    for name, values in streams.items():
        variance, average = torch.var_mean(values.transpose(0, 1).flatten(1), dim=1, correction=0)
        mean[name] = tuple(average.tolist())
        deviation[name] = tuple(variance.sqrt().clamp(min=1e-6).tolist())
    return mean, deviation
