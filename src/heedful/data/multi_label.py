"""Splits of images with several labels: drawn at random, with an image of every class to train on."""

import torch
from jaxtyping import Int64
from torch import Tensor

from heedful.data.draws import limited, proportional, share
from heedful.data.pool import LEFT_OUT, TRAIN, VAL
from heedful.errors import InputError


def divide_multi_label(
    labels: Int64[Tensor, "count classes"],
    given: Int64[Tensor, "count"],
    classes: tuple[str, ...],
    fractions: dict[int, float],
    *,
    limit: float | int | None,
    generator: torch.Generator,
) -> Int64[Tensor, "count"]:
    """Return TRAIN, VAL, TEST or LEFT_OUT for each image.

    Images are drawn without regard to their labels, save that one image of each class, itself drawn, is kept for
    training: a class may be missing from a drawn validation or test split, and metrics then leave it out. Images
    without any label are images like others.

    Args:
        labels: 1 where the class is in the image, else 0.
        given: TRAIN, VAL or TEST per image, as the source gives it.
        classes: class names, for the messages.
        fractions: of the images outside a given test split, for VAL and TEST where they are to be drawn.
        limit: use so many of the images outside a given test split (int) or that fraction of them (float); None: all.
        generator: what is drawn depends on it alone.

    Raises:
        InputError: if a class has no image to train on, or there are too few images.
    """
    part = given.clone()
    order, num_kept = _kept_first(labels, given, classes, generator)
    if limit is not None:
        order = _within_limit(part, order, num_kept, limit, generator)
    end = len(order)
    for key, fraction in fractions.items():
        start = end - share(fraction, len(order))
        if start < num_kept:
            raise InputError(
                f"{len(order)} images are too few to divide: {num_kept} of them are kept so that each class has one "
                "to train on; add images, or raise the limit if there is one"
            )
        part[order[start:end]] = key
        end = start
    return part


def _kept_first(
    labels: Tensor, given: Tensor, classes: tuple[str, ...], generator: torch.Generator
) -> tuple[Tensor, int]:
    """Return the images given for training in random order, with one of each class first, and the number of those."""
    training = (given == TRAIN).nonzero().flatten()
    shuffled = training[torch.randperm(len(training), generator=generator)]
    for name, count in zip(classes, labels[training].sum(0).tolist(), strict=True):
        if count == 0:
            raise InputError(
                f"class {name!r} has 0 images in the train split, but there must be one to learn from: add some, or "
                "leave the class out"
            )
    # The first image of each class: argmax takes the first of equals.
    kept = torch.zeros(len(training), dtype=torch.bool)
    kept[labels[shuffled].argmax(dim=0)] = True
    return torch.cat([shuffled[kept], shuffled[~kept]]), int(kept.sum())


def _within_limit(part: Tensor, order: Tensor, num_kept: int, limit: float | int, generator: torch.Generator) -> Tensor:
    """Return the images for training that a limit leaves; mark in `part` the others, and its share of validation."""
    validation = (part == VAL).nonzero().flatten()
    total = limited(limit, len(order) + len(validation))
    num_train, num_val = proportional(torch.tensor([len(order), len(validation)]), total).tolist()
    if num_train < num_kept or num_val < min(1, len(validation)):
        raise InputError(
            f"limit {limit} leaves {num_train} training and {num_val} validation images, but {num_kept} are needed for "
            "each class to have one to train on: raise the limit"
        )
    part[order[num_train:]] = LEFT_OUT
    shuffled = validation[torch.randperm(len(validation), generator=generator)]
    part[shuffled[num_val:]] = LEFT_OUT
    return order[:num_train]
