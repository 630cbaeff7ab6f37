"""Clips: what a person does, seen by several sensors at once, so that each clip has several streams and one label.

A stream lies in one tensor, ready for a network: (clips, channels, time, ...). Its clips had lengths of their own and
were resampled to one; each sensor may keep its own number of frames, since moments are fractions of the clip.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

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
        return Clips(self.name, streams, self.labels[chosen], self.subjects[chosen], self.classes, self.fingerprint)


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Three splits that share no clip, normalised by the training split.

    Args:
        train: the clips to learn from; each channel of each stream has mean 0 and deviation 1 over them.
        val: the clips to choose the best epoch by.
        test: the clips to report on, of people that are in no other split.
        mean: of each stream, per channel, over the training clips: what was subtracted.
        deviation: likewise, the standard deviation: what was divided by; at least 1e-6.
    """

    train: Clips
    val: Clips
    test: Clips
    mean: Mapping[str, Float[Tensor, "channels"]]
    deviation: Mapping[str, Float[Tensor, "channels"]]


def by_subject(
    clips: Clips, *, test: Collection[int], val: Collection[int] = (), val_fraction: float = 0.1, seed: int = 0
) -> ClipSet:
    """Return the clips divided by the people in them, and normalised.

    Args:
        clips: all clips, as they were read.
        test: the numbers of the people to test on; nobody else's clips are in the test split.
        val: of the others, the people to validate on, as Pérez-Rúa et al., "MFAS" (2019), do on NTU RGB+D. If empty,
            `val_fraction` of each class's training clips is drawn: with few people, as in UTD-MHAD, that keeps all of
            them for training, but people already known are easier, so the accuracy on val lies above that on test.
        val_fraction: in (0, 1); without effect if `val` names people.
        seed: decides which clips are drawn; at least 0.

    Raises:
        InputError: if nobody is left to train on, a person is in no clip or in two splits, a number is out of range,
            or a class has no training clip.
    """
    _check_people(clips, test, val)
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}, but it must be in (0, 1), for example 0.1")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}, but it must be a whole number in [0, 2^63)")
    is_test = torch.isin(clips.subjects, torch.tensor(list(test)))
    is_val = torch.isin(clips.subjects, torch.tensor(list(val), dtype=torch.int64))
    if not val:
        is_val = _drawn(clips.labels, ~is_test, val_fraction, seed)
    train = clips.at((~is_test & ~is_val).nonzero().flatten())
    _require_every_class(train)
    mean, deviation = _moments(train)
    return ClipSet(
        train=_normalised(train, mean, deviation),
        val=_normalised(clips.at(is_val.nonzero().flatten()), mean, deviation),
        test=_normalised(clips.at(is_test.nonzero().flatten()), mean, deviation),
        mean=mean,
        deviation=deviation,
    )


def _check_people(clips: Clips, test: Collection[int], val: Collection[int]) -> None:
    people = set(clips.subjects.tolist())
    for name, chosen in (("test", test), ("val", val)):
        absent = sorted(set(chosen) - people)
        if absent:
            raise InputError(f"{name} names subject {absent[0]}, but {clips.name} has the subjects {sorted(people)}")
    if not test:
        raise InputError(f"test is empty: name the people to test on, of the subjects {sorted(people)}")
    both = sorted(set(test) & set(val))
    if both:
        raise InputError(f"subject {both[0]} is in test and in val: take it out of one")
    if people <= {*test, *val}:
        raise InputError(f"test {sorted(test)} and val {sorted(val)} leave nobody to train on: leave subjects out")


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
            raise InputError(
                f"class {name!r} has no training clip: leave fewer people to test and val, or leave the class out"
            )


def _moments(train: Clips) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return mean and deviation per channel of each stream, over clips, time and places."""
    mean, deviation = {}, {}
    for name, values in train.streams.items():
        variance, mean[name] = torch.var_mean(values.transpose(0, 1).flatten(1), dim=1, correction=0)
        deviation[name] = variance.sqrt().clamp(min=1e-6)
    return mean, deviation


def _normalised(clips: Clips, mean: Mapping[str, Tensor], deviation: Mapping[str, Tensor]) -> Clips:
    streams = {}
    for name, values in clips.streams.items():
        shape = (-1, *(1 for _ in values.shape[2:]))
        streams[name] = (values - mean[name].view(shape)) / deviation[name].view(shape)
    return Clips(clips.name, streams, clips.labels, clips.subjects, clips.classes, clips.fingerprint)
