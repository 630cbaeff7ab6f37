"""The task `classification`: images with one class each, or with several."""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heedful import data, models
from heedful.data.batches import Moved
from heedful.data.dataset import ImageArray, Split
from heedful.data.share import WHOLE, Share
from heedful.evaluate.classification import classification
from heedful.losses import ICASC, classification_loss
from heedful.models.cards import ModelCard
from heedful.train.errors import RankingError, TopOneError
from heedful.train.learner import Batch, Counter, Step
from heedful.train.objective import attention_losses, check_objective, parts
from heedful.train.pictured import pictured
from heedful.train.prepare import card, check_head, load_data, new_model
from heedful.train.settings import CLASSIFICATION, Settings
from heedful.train.task import Part
from heedful.train.ten_crops import TenCrops, crop_batches
from heedful.variant import parse


class Classification:
    """See `heedful.train.task.Task`."""

    def __init__(self, settings: Settings, seed: int, *, num_workers: int = 0) -> None:
        self.settings = settings
        self.dataset = load_data(settings, seed)
        self.num_workers = num_workers
        self._on_device = functools.cache(_on_device)

    @staticmethod
    def check_names(settings: Settings) -> None:
        """Raise an InputError unless model and variant are known and fit together."""
        models.check(settings.model, parse(settings.variant))

    @property
    def augment(self) -> tuple[str, ...]:
        """Names of the augmentations: those of the settings, or what suits the data."""
        return self.dataset.augmentation if self.settings.augment is None else self.settings.augment

    @property
    def card(self) -> ModelCard:
        """What is needed to rebuild the network and to prepare images for it."""
        return card(self.settings, self.dataset)

    @property
    def described(self) -> dict[str, Any]:
        """What `result.json` says of the data."""
        dataset = self.dataset
        return {
            "name": dataset.name,
            "classes": dataset.classes,
            "image_size": dataset.image_size,
            **{f"{part}_images": len(getattr(dataset, part)) for part in ("train", "val", "test")},
            "skipped_images": dataset.skipped,
            "ignored_files": dataset.ignored,
            "unlabelled_images": dataset.num_unlabelled,
            "fingerprint": dataset.fingerprint,
            "augmentation": self.augment,
        }

    def check(self) -> None:
        """Raise an InputError if the network cannot be trained for the objective on the images."""
        check_head(self.settings, self.dataset)
        if self.settings.objective != CLASSIFICATION:
            model = new_model(self.settings, self.dataset, pretrained=False)  # its layers do not depend on its weights
            check_objective(model, self.settings, self.dataset.image_size)

    def new_model(self) -> nn.Module:
        """Return the network; with weights of ImageNet where the settings say so."""
        return new_model(self.settings, self.dataset, pretrained=self.settings.pretrained)

    def learner(self, model: nn.Module) -> "Classifier":
        """Return what trains the network for the settings' objective."""
        size = self.dataset.image_size
        attention = attention_losses(model, self.settings, torch.zeros(1, 3, size, size))
        return Classifier(
            model, attention=attention, multi_label=self.dataset.multi_label, compiled=self.settings.compile
        )

    def batches(
        self, part: Part, device: torch.device, *, seed: int | None = None, share: Share = WHOLE
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the batches of a split; one in memory is moved to the device whole, once."""
        return data.batches(
            self._on_device(getattr(self.dataset, part), device),
            self.dataset,
            self.settings.batch_size,
            augment=() if seed is None else self.augment,
            seed=seed,
            num_workers=self.num_workers,
            share=share,
        )

    def test(self, model: nn.Module, device: torch.device) -> dict[str, float | None]:
        """Return errors and loss on the test images, or on ten crops of each."""
        if self.settings.test_crops == 1:
            return classification(model, Moved(self.batches("test", device), device))
        crops = crop_batches(self.dataset, self.settings.batch_size, num_workers=self.num_workers)
        return classification(TenCrops(model), Moved(crops, device))

    def evidence(self, model: nn.Module, device: torch.device) -> dict[str, NDArray[Any]]:
        """Return class maps and masks on a few test images, see `heedful.train.pictured`."""
        return pictured(model, Moved(self.batches("test", device), device), self.dataset)


def _on_device(split: Split, device: torch.device) -> Split:
    """Return a split in memory on the device; files stay as they are."""
    return split.to(device) if isinstance(split, ImageArray) else split


class Classifier:
    """Learns the classes of images; see `heedful.train.learner.Learner`.

    Args:
        model: from images to logits.
        attention: the losses on maps of this very model, or None where the classification loss is all.
        multi_label: whether labels are 0 and 1 for each class.
        compiled: whether to use torch.compile.
    """

    def __init__(
        self, model: nn.Module, *, attention: ICASC | None = None, multi_label: bool = False, compiled: bool = False
    ) -> None:
        # a function, not a module: the weights keep their names, and what comes after training runs the plain network
        self._logits = torch.compile(model.forward) if compiled else model.forward
        self._attention = attention
        self.counter: type[Counter] = RankingError if multi_label else TopOneError

    def train(self, batch: Batch, epoch: int) -> Step:
        """Return the loss of the batch; with the losses on attention maps where there are any."""
        images, labels = batch
        if self._attention is None:
            logits = self._logits(images)
            return Step(classification_loss(logits, labels), logits)
        self._attention.epoch = epoch
        losses = self._attention(images, labels)
        return Step(losses.total, losses.logits, parts(losses))

    def validate(self, batch: Batch) -> Step:
        """Return loss and logits."""
        images, labels = batch
        logits = self._logits(images).float()
        return Step(classification_loss(logits, labels), logits)
