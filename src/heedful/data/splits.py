"""Splits: a pool's images divided into train, val and test, class by class and seeded, or as the source gives them."""

import math

import torch
from jaxtyping import Int64
from torch import Tensor

from heedful.data.pool import PARTS, TEST, TRAIN, VAL
from heedful.errors import InputError

LEFT_OUT = -1


def divide(
    labels: Int64[Tensor, "count"],
    given: Int64[Tensor, "count"],
    classes: tuple[str, ...],
    *,
    seed: int,
    limit: float | int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> tuple[Int64[Tensor, "train"], Int64[Tensor, "val"], Int64[Tensor, "test"]]:
    """Return which images are for training, validation and test, each in ascending order.

    A split that is given is taken as it is; one that is not is drawn from the given training images, each class giving
    its share, at least one image.

    Args:
        labels: class numbers, from 0.
        given: TRAIN, VAL or TEST per image, as the source gives it.
        classes: class names, for the messages.
        seed: what is drawn depends on it alone.
        limit: use so many of the images outside a given test split (int) or that fraction of them (float); None: all.
        val_fraction: of the images outside a given test split, in (0, 1).
        test_fraction: of all images, in (0, 1); used if no test split is given.

    Raises:
        InputError: if a number is out of range, or a class would have no image in a split.
    """
    check_division(seed=seed, limit=limit, val_fraction=val_fraction, test_fraction=test_fraction)
    generator = torch.Generator().manual_seed(seed)
    part = given.clone()
    if limit is not None:
        part[_beyond_limit(labels, given, classes, limit, generator)] = LEFT_OUT
    fractions = {TEST: test_fraction, VAL: val_fraction}
    _draw(part, labels, classes, {key: f for key, f in fractions.items() if not (given == key).any()}, generator)
    _require_every_class(part, labels, classes)
    train, val, test = ((part == key).nonzero().flatten() for key in (TRAIN, VAL, TEST))
    return train, val, test


def check_division(*, seed: int, limit: float | int | None, val_fraction: float, test_fraction: float) -> None:
    """Raise an InputError if a number that decides the splits is out of range: before any image is read."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}, but it must be a whole number in [0, 2^63)")
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise InputError(f"{name} is {fraction}, but it must be in (0, 1), for example 0.1")
    if val_fraction + test_fraction >= 1:
        raise InputError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on: "
            "their sum must be below 1"
        )
    if limit is not None and not (0 < limit <= 1 if isinstance(limit, float) else limit >= 1):
        raise InputError(
            f"limit is {limit!r}, but it must be a number of images (1 or more) or a fraction in (0, 1], "
            "for example 5000 or 0.1"
        )


def _ranks(strata: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image's place, from 0, in a random order of its own stratum."""
    shuffled = torch.randperm(len(strata), generator=generator)
    order = shuffled[strata[shuffled].argsort(stable=True)]
    counts = strata.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order)) - starts[strata[order]]
    return ranks


def _beyond_limit(
    labels: Tensor, given: Tensor, classes: tuple[str, ...], limit: float | int, generator: torch.Generator
) -> Tensor:
    """Return the images outside a given test split that the limit leaves out."""
    limited = (given != TEST).nonzero().flatten()
    # A given validation split shrinks in step with the training images.
    strata = labels[limited] * 2 + given[limited]
    counts = strata.bincount()
    total = round(limit * len(limited)) if isinstance(limit, float) else min(limit, len(limited))
    quotas = _proportional(counts, total)
    emptied = ((counts > 0) & (quotas == 0)).nonzero().flatten().tolist()
    if emptied:
        name, count = classes[emptied[0] // 2], int(counts[emptied[0]])
        raise InputError(
            f"limit {limit} leaves {total} of {len(limited)} images and none of class {name!r}, which has {count}: "
            "raise the limit"
        )
    return limited[_ranks(strata, generator) >= quotas[strata]]


def _proportional(counts: Tensor, total: int) -> Tensor:
    """Return whole numbers in proportion to the counts that add up to the total (largest remainders)."""
    exact = counts.double() * (total / int(counts.sum()))
    quotas = exact.floor().long()
    missing = total - int(quotas.sum())
    quotas[(exact - quotas).argsort(descending=True, stable=True)[:missing]] += 1
    return quotas


def _draw(
    part: Tensor, labels: Tensor, classes: tuple[str, ...], fractions: dict[int, float], generator: torch.Generator
) -> None:
    """Mark in `part` the images drawn from TRAIN for the splits that are not given: a fraction of each class."""
    drawn = (part == TRAIN).nonzero().flatten()
    counts = labels[drawn].bincount(minlength=len(classes)).tolist()
    ranks = _ranks(labels[drawn], generator)
    start = torch.zeros(len(classes), dtype=torch.int64)
    for key, fraction in fractions.items():
        share = torch.tensor([max(1, math.floor(fraction * count + 0.5)) for count in counts])
        first = start[labels[drawn]]
        part[drawn[(ranks >= first) & (ranks < first + share[labels[drawn]])]] = key
        start += share
    for name, count, taken in zip(classes, counts, start.tolist(), strict=True):
        if count <= taken:
            needed = " and ".join(["train", *(PARTS[key] for key in sorted(fractions))])
            raise InputError(
                f"class {name!r} has too few images: {count} to be divided into {needed}, which need at least one "
                "each; add images, raise the limit if there is one, or leave the class out"
            )


def _require_every_class(part: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
    for key in (TRAIN, VAL, TEST):
        counts = labels[part == key].bincount(minlength=len(classes)).tolist()
        for name, count in zip(classes, counts, strict=True):
            if count == 0:
                raise InputError(
                    f"class {name!r} has 0 images in the {PARTS[key]} split, but each split needs at least one of "
                    "each class: add some, or leave the class out"
                )
