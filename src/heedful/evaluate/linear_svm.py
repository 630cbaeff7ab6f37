"""A linear support vector machine on features of a network, whose C is chosen on the training part alone."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from heedful.errors import InputError

GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
NUM_FOLDS = 5
MAX_ITERATIONS = 10_000

Rows = Float64[np.ndarray, "rows dimension"]
Labels = Int64[np.ndarray, "rows"]


@dataclass(frozen=True, eq=False)
class Machine:
    """A fitted machine.

    Args:
        pipeline: scikit-learn's, from features to class numbers.
        c: the C that was chosen; the smallest of those that do equally well.
        num_folds: of the cross-validation.
        converged: whether the last fit ended before `MAX_ITERATIONS`.
    """

    pipeline: Any
    c: float
    num_folds: int
    converged: bool

    def predicted(self, rows: Rows) -> Labels:
        """Return the class number of each row."""
        return self.pipeline.predict(rows)


def linear_svm(rows: Rows, labels: Labels, classes: Sequence[str], *, seed: int) -> Machine:
    """Fit one machine for each class against the rest, with scikit-learn's LinearSVC, on standardised features.

    Standardised rows are divided by their length: all networks' features then have the same scale, however many there
    are, and one grid of C fits all. C is that of the best accuracy in a stratified cross-validation, whose means and
    deviations are those of its own training folds.

    Args:
        rows: features to learn from.
        labels: class numbers, from 0.
        classes: names; each must have two rows.
        seed: decides the folds, of which there are 5, or as many as the smallest class has rows.

    Raises:
        InputError: if there are fewer than two classes, a class has fewer than two rows, or a feature is not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    num_folds = min(NUM_FOLDS, _least(labels, classes))
    if not np.isfinite(rows).all():
        raise InputError("the network's features are not all finite: its training has failed, so train it again")
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    search = GridSearchCV(_pipeline(seed), {"linearsvc__C": GRID}, scoring="accuracy", cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations says it as well
        search.fit(rows, labels)
    best = search.best_estimator_
    return Machine(best, search.best_params_["linearsvc__C"], num_folds, bool(best[-1].n_iter_ < MAX_ITERATIONS))


def _pipeline(seed: int) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler
    from sklearn.svm import LinearSVC

    machine = LinearSVC(dual="auto", max_iter=MAX_ITERATIONS, random_state=seed)
    return make_pipeline(StandardScaler(), Normalizer(), machine)


def _least(labels: Labels, classes: Sequence[str]) -> int:
    """Return how many rows the smallest class has."""
    if len(classes) < 2:
        raise InputError(f"the data have one class, {', '.join(classes)}, but an SVM tells two or more apart: add one")
    counts = np.bincount(labels, minlength=len(classes))
    least = int(counts.argmin())
    if counts[least] < 2:
        raise InputError(
            f"class {classes[least]!r} has {counts[least]} training images, but needs two for the cross-validation of "
            "C: add some, or leave the class out"
        )
    return int(counts[least])
