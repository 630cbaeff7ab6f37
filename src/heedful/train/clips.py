"""The task `clips`: one class for a clip, seen by one sensor or by several at once."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from heedful.data.batches import Moved
from heedful.data.clip_batches import check_augment, clip_batches
from heedful.data.clip_data import ClipData, ClipSplit, divide_clips, read_clips
from heedful.data.clips import Clips
from heedful.data.draws import limited, proportional, ranks
from heedful.data.share import WHOLE, Share
from heedful.errors import InputError
from heedful.evaluate.classification import classification
from heedful.evaluate.evidence import weights_of_gates
from heedful.models.build_streams import build_streams
from heedful.models.cards import ClipCard, StreamCard
from heedful.models.load_streams import load_streams
from heedful.models.named_streams import check_streams, streams_of
from heedful.models.saved import load, read_card
from heedful.surgery.gating import gates_of
from heedful.train.classify import Classifier
from heedful.train.elsewhere import require_at_hand
from heedful.train.learner import Batch
from heedful.train.settings import Settings
from heedful.train.task import Part
from heedful.variant import parse

REDUCTION = 4
"""Of MMTM; see `heedful.layers.mmtm`."""

AUGMENT = ("window",)
"""As the code of MMTM's authors: skeletons and videos are cut in time at random."""


class ClipClassification:
    """See `heedful.train.task.Task`."""

    def __init__(self, settings: Settings, seed: int, *, num_workers: int = 0) -> None:
        self.settings = settings
        self.data = load_data(settings, seed)
        self.num_workers = num_workers
        self._on_device = functools.cache(self._moved)

    def _moved(self, part: Part, device: torch.device) -> ClipSplit:
        split: ClipSplit = getattr(self.data, part)
        return split.to(device) if isinstance(split, Clips) else split

    @staticmethod
    def check_names(settings: Settings) -> None:
        """Raise an InputError unless model and variant are known and fit together."""
        check_streams(settings.model, parse(settings.variant))
        check_augment(settings.augment or (), streams_of(settings.model))

    @property
    def augment(self) -> tuple[str, ...]:
        """Names of the augmentations."""
        return AUGMENT if self.settings.augment is None else self.settings.augment

    @property
    def card(self) -> ClipCard:
        """What is needed to rebuild the network and to prepare clips for it."""
        data = self.data
        return ClipCard(
            model=self.settings.model,
            variant=self.settings.variant,
            classes=data.classes,
            streams={
                name: StreamCard(shape, data.mean[name], data.deviation[name]) for name, shape in data.shapes.items()
            },
            reduction=self._reduction,
            factor=self.settings.factor,
        )

    @property
    def _reduction(self) -> int:
        return REDUCTION if self.settings.reduction is None else self.settings.reduction

    @property
    def described(self) -> dict[str, Any]:
        """What `result.json` says of the data."""
        return {
            "name": self.data.name,
            "classes": self.data.classes,
            "shapes": dict(self.data.shapes),
            **{f"{part}_images": count for part, count in self.data.counts.items()},
            "fingerprint": self.data.fingerprint,
            "augmentation": self.augment,
        }

    def check(self) -> None:
        """Raise an InputError if the network cannot be built for these streams."""
        with torch.device("meta"):
            self._built(pretrained=False)

    def new_model(self) -> nn.Module:
        """Return the network; with weights of Kinetics-400 for video where the settings say so."""
        return self._built(pretrained=self.settings.pretrained)

    def _built(self, *, pretrained: bool) -> nn.Module:
        return build_streams(
            self.settings.model,
            self.settings.variant,
            num_classes=len(self.data.classes),
            shapes=self.data.shapes,
            reduction=self._reduction,
            factor=self.settings.factor,
            drop=self.settings.drop,
            pretrained=pretrained,
        )

    def start_from(self, model: nn.Module, runs: Sequence[Path]) -> None:
        """Give the streams the weights of runs of one stream each, as a recipe makes sure that they are.

        Raises:
            InputError: if weights do not fit.
        """
        load_streams(
            model, {stream: load(run).state_dict() for run in runs for stream in streams_of(read_card(run).model)}
        )

    def learner(self, model: nn.Module) -> Classifier:
        """Return what trains the network."""
        return Classifier(model)

    def batches(
        self, part: Part, device: torch.device, *, seed: int | None = None, share: Share = WHOLE
    ) -> Iterable[Batch]:
        """Return the batches of a split; one in memory is moved to the device whole, once."""
        return clip_batches(
            self._on_device(part, device),
            self.data,
            self.settings.batch_size,
            augment=() if seed is None else self.augment,
            seed=seed,
            num_workers=0 if isinstance(self.data.train, Clips) else self.num_workers,
            share=share,
        )

    def test(self, model: nn.Module, device: torch.device) -> dict[str, float | None]:
        """Return errors and loss on the test clips."""
        return classification(model, Moved(self.batches("test", device), device))

    def evidence(self, model: nn.Module, device: torch.device) -> dict[str, NDArray[Any]] | None:
        """Return the distribution of every gate's weights on the test clips; None for a network without gates."""
        return weights_of_gates(model, Moved(self.batches("test", device), device)) if gates_of(model) else None


def load_data(settings: Settings, seed: int) -> ClipData:
    """Return the clips of a run; runs that follow each other on the same clips read them once.

    Raises:
        InputError: if the data cannot be used, or the limit leaves a class without a clip to train on.
    """
    require_at_hand(settings.data)
    clips = _read(settings.data, tuple(streams_of(settings.model)))
    found = divide_clips(clips, seed=seed, split=settings.benchmark, val_fraction=settings.val_fraction)
    return found if settings.limit is None else dataclasses.replace(found, train=_limited(found, settings.limit, seed))


def _limited(data: ClipData, limit: float | int, seed: int) -> ClipSplit:
    """Return so many of the training clips, or that part of them, each class giving its share."""
    labels = data.train.labels
    counts = labels.bincount()
    total = limited(limit, len(labels))
    quotas = proportional(counts, total)
    emptied = ((counts > 0) & (quotas == 0)).nonzero().flatten().tolist()
    if emptied:
        name, count = data.classes[emptied[0]], int(counts[emptied[0]])
        raise InputError(
            f"limit {limit} leaves {total} of {len(labels)} training clips and none of class {name!r}, which has "
            f"{count}: raise the limit"
        )
    return data.train.at((ranks(labels, torch.Generator().manual_seed(seed)) < quotas[labels]).nonzero().flatten())


NUM_READ = 8
"""Sets of streams that are held: with every seed an experiment comes back to all those that it compares."""

_read = functools.lru_cache(maxsize=NUM_READ)(read_clips)
