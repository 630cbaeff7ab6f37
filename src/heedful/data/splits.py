"""Splits: a pool's images divided into train, val and test, class by class and seeded, or as the source gives them."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from heedful.data.draws import limited, proportional, ranks, share
from heedful.data.multi_label import divide_multi_label
from heedful.data.pool import LEFT_OUT, PARTS, TEST, TRAIN, VAL
from heedful.errors import InputError


@dataclass(frozen=True)
class Division:
    """How images are divided into splits; what a source gives itself is kept.

    Args:
        seed: what is drawn depends on it alone; at least 0.
        limit: use so many of the images outside a given test split (int) or that fraction of them (float); None: all.
        val_fraction: of the images outside a given test split, in (0, 1); of `train_per_class`, if that is given.
        test_fraction: of all images, in (0, 1); used if no test split is given.
        train_per_class: training images of each class, exactly; None: all that are left.
        test_per_class: test images of each class, if no test split is given. Beside `train_per_class`, a class with too
            few images for both gives what is left, at least one: Caltech-256 has classes of 80 images, and Wang et
            al. (2019), table 5, train on 60 and test on 25. None: `test_fraction`.

    Raises:
        InputError: if a number is out of range, or two contradict each other.
    """

    seed: int
    limit: float | int | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    train_per_class: int | None = None
    test_per_class: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}, but it must be a whole number in [0, 2^63)")
        for name, fraction in (("val_fraction", self.val_fraction), ("test_fraction", self.test_fraction)):
            if not 0 < fraction < 1:
                raise InputError(f"{name} is {fraction}, but it must be in (0, 1), for example 0.1")
        if self.val_fraction + self.test_fraction >= 1:
            raise InputError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave nothing to train on: "
                "their sum must be below 1"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        limit = self.limit
        if limit is not None and not (0 < limit <= 1 if isinstance(limit, float) else limit >= 1):
            raise InputError(
                f"limit is {limit!r}, but it must be a number of images (1 or more) or a fraction in (0, 1], "
                "for example 5000 or 0.1"
            )
        for name, number in (("train_per_class", self.train_per_class), ("test_per_class", self.test_per_class)):
            if number is not None and number < 1:
                raise InputError(f"{name} is {number}, but it must be at least 1, for example 30")
        if limit is not None and self.train_per_class is not None:
            raise InputError(
                f"limit {limit} and train_per_class {self.train_per_class} both say how many images to use: give one"
            )

    @property
    def is_per_class(self) -> bool:
        """Whether a number of images of each class is asked for."""
        return self.train_per_class is not None or self.test_per_class is not None


def divide(
    labels: Int64[Tensor, "count"] | Int64[Tensor, "count classes"],
    given: Int64[Tensor, "count"],
    classes: tuple[str, ...],
    division: Division,
) -> tuple[Int64[Tensor, "train"], Int64[Tensor, "val"], Int64[Tensor, "test"]]:
    """Return which images are for training, validation and test, each in ascending order.

    A split that is given is taken as it is; one that is not is drawn from the given training images, each class giving
    its share, at least one image. Images with several labels are drawn without regard to classes, see
    `divide_multi_label`.

    Args:
        labels: class numbers, from 0, or 0 and 1 per class.
        given: TRAIN, VAL or TEST per image, as the source gives it.
        classes: class names, for the messages.
        division: what to draw.

    Raises:
        InputError: if a class would have no image in a split, or too few for what is asked.
    """
    _check_per_class(division, given, multi_label=labels.ndim == 2)
    generator = torch.Generator().manual_seed(division.seed)
    fractions = {TEST: division.test_fraction, VAL: division.val_fraction}
    fractions = {key: fraction for key, fraction in fractions.items() if not (given == key).any()}
    if labels.ndim == 2:
        part = divide_multi_label(labels, given, classes, fractions, limit=division.limit, generator=generator)
    else:
        part = given.clone()
        if division.limit is not None:
            part[_beyond_limit(labels, given, classes, division.limit, generator)] = LEFT_OUT
        _draw(part, labels, classes, fractions, division, generator)
        _require_every_class(part, labels, classes)
    train, val, test = ((part == key).nonzero().flatten() for key in (TRAIN, VAL, TEST))
    return train, val, test


def _check_per_class(division: Division, given: Tensor, *, multi_label: bool) -> None:
    if division.is_per_class and multi_label:
        raise InputError(
            "train_per_class and test_per_class count the images of one class, but these images have several labels: "
            "use limit and test_fraction"
        )
    if division.test_per_class is not None and (given == TEST).any():
        raise InputError(
            f"test_per_class is {division.test_per_class}, but the data come with a test split, which is kept: "
            "leave it out"
        )


def _beyond_limit(
    labels: Tensor, given: Tensor, classes: tuple[str, ...], limit: float | int, generator: torch.Generator
) -> Tensor:
    """Return the images outside a given test split that the limit leaves out."""
    chosen = (given != TEST).nonzero().flatten()
    # A given validation split shrinks in step with the training images.
    strata = labels[chosen] * 2 + given[chosen]
    counts = strata.bincount()
    total = limited(limit, len(chosen))
    quotas = proportional(counts, total)
    emptied = ((counts > 0) & (quotas == 0)).nonzero().flatten().tolist()
    if emptied:
        name, count = classes[emptied[0] // 2], int(counts[emptied[0]])
        raise InputError(
            f"limit {limit} leaves {total} of {len(chosen)} images and none of class {name!r}, which has {count}: "
            "raise the limit"
        )
    return chosen[ranks(strata, generator) >= quotas[strata]]


def _draw(
    part: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    fractions: dict[int, float],
    division: Division,
    generator: torch.Generator,
) -> None:
    """Mark in `part` the images drawn from TRAIN for the splits that are not given, each class's share of its own."""
    drawn = (part == TRAIN).nonzero().flatten()
    numbers = labels[drawn]
    counts = numbers.bincount(minlength=len(classes)).tolist()
    places = ranks(numbers, generator)
    shares = [_shares(count, fractions, division) for count in counts]
    start = torch.zeros(len(classes), dtype=torch.int64)
    for key in shares[0]:
        stop = start + torch.tensor([needed[key] for needed in shares])
        part[drawn[(places >= start[numbers]) & (places < stop[numbers])]] = key
        start = stop
    if division.train_per_class is not None:
        part[drawn[places >= start[numbers]]] = LEFT_OUT
    for name, count, needed in zip(classes, counts, shares, strict=True):
        if count < sum(needed.values()):
            raise _too_few(name, count, needed, division)


def _shares(count: int, fractions: dict[int, float], division: Division) -> dict[int, int]:
    """Return how many of a class's images are drawn for each split that is not given: test first, train last.

    Without a number of its own, training takes what is left, and needs one.
    """
    num_train = division.train_per_class or 1
    num_val = share(fractions[VAL], division.train_per_class or count) if VAL in fractions else 0
    num_test = division.test_per_class or share(division.test_fraction, count)
    if division.train_per_class is not None:
        num_test = max(1, min(num_test, count - num_train - num_val))
    shares = {TEST: num_test, VAL: num_val}
    return {key: shares[key] for key in fractions} | {TRAIN: num_train}


def _too_few(name: str, count: int, needed: dict[int, int], division: Division) -> InputError:
    parts = sorted(needed)
    if division.is_per_class:
        asked = ", ".join(f"{needed[key]} for {PARTS[key]}" for key in parts)
        return InputError(
            f"class {name!r} has too few images: {count}, but {asked} are asked for; lower train_per_class or "
            "test_per_class, or leave the class out"
        )
    return InputError(
        f"class {name!r} has too few images: {count} to be divided into {' and '.join(PARTS[key] for key in parts)}, "
        "which need at least one each; add images, raise the limit if there is one, or leave the class out"
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
