"""The task `detection`: boxes around objects, and their classes."""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from heedful.data.box_batches import box_batches
from heedful.data.boxes import divide_boxes, read_boxes
from heedful.data.share import WHOLE, Share
from heedful.evaluate.detection import DetectionError, detection
from heedful.models.cards import DetectorCard
from heedful.models.detection import detector_of
from heedful.train.elsewhere import require_at_hand
from heedful.train.learner import Batch, Step
from heedful.train.settings import Settings
from heedful.train.task import Part

AUGMENT = ("flip",)
IMAGE_SIZE = 800
"""As in torchvision's own training of detectors: the shorter side, in pixels."""

_read = functools.lru_cache(maxsize=1)(read_boxes)


class Detection:
    """See `heedful.train.task.Task`."""

    def __init__(self, settings: Settings, seed: int, *, num_workers: int = 0) -> None:
        require_at_hand(settings.data)
        self.settings = settings
        self.num_workers = num_workers
        self.dataset = divide_boxes(
            _read(settings.data, skip_bad_images=settings.skip_bad_images),
            seed=seed,
            val_fraction=settings.val_fraction,
            limit=settings.limit,
            image_size=settings.image_size or IMAGE_SIZE,
        )

    @staticmethod
    def check_names(settings: Settings) -> None:
        """Raise an InputError unless model and variant are known and fit together, and images are large enough."""
        with torch.device("meta"):
            size = settings.image_size or IMAGE_SIZE
            detector_of(DetectorCard(settings.model, settings.variant, classes=("any",), image_size=size))

    @property
    def augment(self) -> tuple[str, ...]:
        """Names of the augmentations."""
        return AUGMENT if self.settings.augment is None else self.settings.augment

    @property
    def card(self) -> DetectorCard:
        """What is needed to rebuild the network."""
        settings = self.settings
        return DetectorCard(
            model=settings.model,
            variant=settings.variant,
            classes=self.dataset.classes,
            image_size=self.dataset.image_size,
            reduction=settings.reduction,
            convention=settings.convention,
            start="identity" if settings.pretrained else "paper",
            pretrained=settings.pretrained,
        )

    @property
    def described(self) -> dict[str, Any]:
        """What `result.json` says of the data."""
        dataset = self.dataset
        parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        return {
            "name": dataset.name,
            "classes": dataset.classes,
            "image_size": dataset.image_size,
            **{f"{part}_images": len(images) for part, images in parts.items()},
            **{f"{part}_boxes": sum(len(each.boxes) for each in images) for part, images in parts.items()},
            "skipped_images": dataset.skipped,
            "dropped_boxes": dataset.dropped,
            "fingerprint": dataset.fingerprint,
            "augmentation": self.augment,
        }

    def check(self) -> None:
        """Raise an InputError if images are too small for the network, or the augmentation is not for boxes."""
        self.check_names(self.settings)
        self.batches("train", torch.device("cpu"), seed=0)

    def new_model(self) -> nn.Module:
        """Return the network; with weights of ImageNet in its trunk where the settings say so."""
        return detector_of(self.card, download=self.settings.pretrained)

    def learner(self, model: nn.Module) -> "Detector":
        """Return what trains the network."""
        return Detector(model)

    def batches(
        self, part: Part, device: torch.device, *, seed: int | None = None, share: Share = WHOLE
    ) -> Iterable[Batch]:
        """Return the batches of a split; they are not moved."""
        return box_batches(
            getattr(self.dataset, part),
            self.settings.batch_size,
            image_size=self.dataset.image_size,
            augment=() if seed is None else self.augment,
            seed=seed,
            num_workers=self.num_workers,
            share=share,
        )

    def test(self, model: nn.Module, device: torch.device) -> dict[str, float | None]:
        """Return COCO's average precisions on the test images, and `error`, which is 100 less the first."""
        numbers = detection(model, self.batches("test", device), self.dataset.classes)
        return {"error": 100 - numbers["map"], **{name: numbers[name] for name in numbers if name != "classes"}}

    def evidence(self, model: nn.Module, device: torch.device) -> None:
        """Return nothing: what a detector finds is drawn by `heedful evaluate --on detection`."""


class Detector:
    """Learns to find objects; see `heedful.train.learner.Learner`.

    Args:
        model: one of torchvision's detectors, or one that is called as they are.
    """

    counter = DetectionError

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def train(self, batch: Batch, epoch: int) -> Step:
        """Return the sum of the losses of proposals and boxes; crowds are not learnt from."""
        images, targets = batch
        losses: dict[str, Tensor] = self._model(images, [_without_crowds(target) for target in targets])
        parts = {name: loss.detach() for name, loss in losses.items()}
        return Step(torch.stack(list(losses.values())).sum(), parts=parts)

    def validate(self, batch: Batch) -> Step:
        """Return the detections; torchvision's networks have no loss in evaluation mode."""
        images, _ = batch
        return Step(None, self._model(images))


def _without_crowds(target: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = ~target["crowd"]
    return {"boxes": target["boxes"][kept], "labels": target["labels"][kept]}
