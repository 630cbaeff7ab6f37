"""How well a linear machine tells the classes of one data set apart by a network's features, over several draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from heedful.data.draws import ranks
from heedful.data.pool import TEST
from heedful.errors import InputError
from heedful.evaluate.found import Numbers
from heedful.evaluate.linear_svm import Labels, Rows, linear_svm

NUM_TRAIN = 30
"""Training images of each class that are drawn if nothing is said: the custom for Caltech-101."""


@dataclass(frozen=True, eq=False)
class Featured:
    """A data set as a network sees it.

    Args:
        name: of the data.
        classes: names; a label is a place in this tuple.
        features: a row for each image.
        labels: class numbers.
        given: as of a `heedful.data.Pool`.
    """

    name: str
    classes: tuple[str, ...]
    features: Float32[Tensor, "images dimension"]
    labels: Int64[Tensor, "images"]
    given: Int64[Tensor, "images"]

    @property
    def has_test(self) -> bool:
        """Whether a test split is given."""
        return bool((self.given == TEST).any())

    def rows(self, chosen: Bool[Tensor, "images"]) -> tuple[Rows, Labels]:
        """Return features and labels of the chosen images, as scikit-learn takes them."""
        return self.features[chosen].double().numpy(), self.labels[chosen].numpy()


def probe(data: Featured, *, train_per_class: int | None = None, num_seeds: int = 5) -> Numbers:
    """Return how often a linear SVM is right on test images of the data, over draws of the training images.

    A test split that is given is kept; all other images, those for validation too, are for training. Where there is
    none, `train_per_class` images of each class are drawn for training, and the others are for testing.

    Args:
        data: features and labels.
        train_per_class: at least 2; None: all images outside a given test split; or 30, or half of the smallest class.
        num_seeds: number of draws, at least 1; where nothing is drawn, there is one fit.

    Returns:
        `accuracy`, in percent of the test images, the mean over seeds; `accuracies`, and their `deviation`, None for a
        single one; `accuracy_per_class_mean`, the mean over classes, and `class_accuracies`, without classes that have
        no test image; `most_common_class`, the accuracy of always naming the test images' commonest class; `split`,
        "given" or "drawn"; `train_per_class`, None if nothing is drawn; `classes`, `num_classes`, `num_train`,
        `num_test`, `dimension`; of each seed `c` and `converged`; and `num_folds`.

    Raises:
        InputError: if a number is out of range, or a class has too few images.
    """
    check_draws(train_per_class, num_seeds)
    number = _number_drawn(data, train_per_class)
    machines, right = [], []
    for seed in range(1 if number is None else num_seeds):
        train = training_images(data, number, seed)
        features, labels = data.rows(data.given == TEST if data.has_test else ~train)
        machines.append(linear_svm(*data.rows(train), data.classes, seed=seed))
        right.append(Right(machines[-1].predicted(features) == labels, labels))
    return {
        **accuracies(right, data.classes),
        "split": "given" if data.has_test else "drawn",
        "train_per_class": number,
        "classes": list(data.classes),
        "num_classes": len(data.classes),
        "num_train": int(train.sum()),
        "num_test": len(labels),
        "dimension": data.features.shape[1],
        "c": [machine.c for machine in machines],
        "converged": [machine.converged for machine in machines],
        "num_folds": machines[0].num_folds,
    }


def check_draws(train_per_class: int | None, num_seeds: int) -> None:
    """Raise an InputError if training images could not be drawn so."""
    if num_seeds < 1:
        raise InputError(f"num_seeds is {num_seeds}, but it must be at least 1, for example 5")
    if train_per_class is not None and train_per_class < 2:
        raise InputError(f"train_per_class is {train_per_class}, but the choice of C needs 2 at least, for example 30")


def training_images(data: Featured, number: int | None, seed: int) -> Bool[Tensor, "images"]:
    """Return which images are for training: of those outside a given test split so many of each class, or all."""
    train = data.given != TEST
    if number is None:
        return train
    index = train.nonzero().flatten()
    places = ranks(data.labels[index], torch.Generator().manual_seed(seed))
    train[index[places >= number]] = False
    return train


@dataclass(frozen=True, eq=False)
class Right:
    """Whether each test image was classified rightly, and its label."""

    right: np.ndarray
    labels: Labels


def accuracies(found: Sequence[Right], classes: Sequence[str]) -> Numbers:
    """Return accuracies over images and over classes, in percent, of one or more draws; see `probe`."""
    over_images = [100 * float(each.right.mean()) for each in found]
    by_class = [_by_class(each, classes) for each in found]
    names = [name for name in classes if name in by_class[0]]
    common = max(np.bincount(found[0].labels)) / len(found[0].labels)
    return {
        "accuracy": fmean(over_images),
        "deviation": stdev(over_images) if len(found) > 1 else None,
        "accuracies": over_images,
        "accuracy_per_class_mean": fmean(fmean(each.values()) for each in by_class),
        "class_accuracies": {name: fmean(each[name] for each in by_class) for name in names},
        "most_common_class": 100 * float(common),
    }


def _by_class(found: Right, classes: Sequence[str]) -> dict[str, float]:
    shown = [number for number in range(len(classes)) if (found.labels == number).any()]
    return {classes[number]: 100 * float(found.right[found.labels == number].mean()) for number in shown}


def _number_drawn(data: Featured, train_per_class: int | None) -> int | None:
    """Return how many training images of each class are drawn; None if nothing is."""
    if train_per_class is None and data.has_test:
        return None
    counts = data.labels[data.given != TEST].bincount(minlength=len(data.classes))
    least = int(counts.argmin())
    number = train_per_class or max(2, min(NUM_TRAIN, int(counts[least]) // 2))
    needed = number if data.has_test else number + 1
    if counts[least] < needed:
        raise InputError(
            f"class {data.classes[least]!r} of {data.name} has {int(counts[least])} images outside a given test split, "
            f"but {number} are to be drawn for training{'' if data.has_test else ' and one or more are for testing'}: "
            "lower train_per_class, add images, or leave the class out"
        )
    return number
