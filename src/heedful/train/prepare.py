"""What a run of classification needs: the images, divided by its seed, and the network, not yet trained."""

import functools
from typing import Literal

from torch import nn

from heedful import data
from heedful.errors import InputError
from heedful.models import build, image_size_of
from heedful.models.cards import ModelCard
from heedful.train.elsewhere import require_at_hand
from heedful.train.settings import Settings
from heedful.train.ten_crops import check_crops
from heedful.variant import parse


def check_head(settings: Settings, dataset: data.DataSet) -> None:
    """Raise an InputError if the variant's head averages probabilities of one class where images have several."""
    pay = parse(settings.variant).pay
    if dataset.multi_label and pay is not None and pay.head == "indep":
        raise InputError(
            f"variant {settings.variant}: its head averages the probabilities of one class an image, but here an image "
            "may have several classes: leave -indep out"
        )


def load_data(settings: Settings, seed: int) -> data.DataSet:
    """Return the data set of a run; runs that follow each other on the same images read them once.

    Raises:
        InputError: if the data cannot be used.
    """
    require_at_hand(settings.data)
    size = settings.image_size or (image_size_of(settings.model) if data.folder_of(settings.data) else None)
    dataset = data.divided(
        _read(settings.data, size, skip_bad_images=settings.skip_bad_images),
        seed=seed,
        limit=settings.limit,
        val_fraction=settings.val_fraction,
        train_per_class=settings.train_per_class,
        test_per_class=settings.test_per_class,
    )
    if settings.test_crops > 1:
        check_crops(dataset)
    _require_labels(dataset)
    return dataset


_read = functools.lru_cache(maxsize=1)(data.read)


def _require_labels(dataset: data.DataSet) -> None:
    """Raise an InputError if no image of a split shows any class: there would be no precision to choose or test by."""
    for part, split in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        if dataset.multi_label and not split.labels.any():
            raise InputError(
                f"none of the {len(split)} {part} images shows any class: give more images, or another seed"
            )


def new_model(settings: Settings, dataset: data.DataSet, *, pretrained: bool) -> nn.Module:
    """Return the network of a run; with the settings' weights of ImageNet where `pretrained` says so."""
    return build(
        settings.model,
        settings.variant,
        num_classes=len(dataset.classes),
        pretrained=pretrained,
        reduction=settings.reduction,
        convention=settings.convention,
        start=_start(settings),
    )


def card(settings: Settings, dataset: data.DataSet) -> ModelCard:
    """Return what is needed to rebuild the network of a run and to prepare images for it."""
    return ModelCard(
        model=settings.model,
        variant=settings.variant,
        reduction=settings.reduction,
        classes=dataset.classes,
        image_size=dataset.image_size,
        mean=dataset.mean,
        deviation=dataset.deviation,
        convention=settings.convention,
        start=_start(settings),
        multi_label=dataset.multi_label,
    )


def _start(settings: Settings) -> Literal["identity", "paper"]:
    return "identity" if settings.pretrained else "paper"
