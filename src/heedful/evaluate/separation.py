"""Whether a network keeps the true class apart from the one that it confuses it with: the KS chart, the maps' overlap.

[W] is Wang et al., "Sharpen Focus: Learning with Attention Separability and Consistency", ICCV 2019. The most confusing
class is the most probable of those that are not the true one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heedful.errors import InputError
from heedful.maps.classes import chosen, top
from heedful.maps.processing import normalised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Probabilities = Float[np.ndarray, "_"]


@dataclass(frozen=True, eq=False)
class Separation:
    """The KS chart: figure 9 of [W].

    Args:
        statistic: the greatest distance between the two curves, in [0, 1].
        location: the probability at which they are so far apart; of several the lowest.
        true_is_higher: whether there the true class is the one with the higher probabilities. Where it is not, as in a
            network that is mostly wrong, a great statistic is no merit.
        probabilities: ascending; where the curves are given.
        true: for each, the part of the images whose true class has at most that probability.
        confusing: likewise, of the most confusing class.
    """

    statistic: float
    location: float
    true_is_higher: bool
    probabilities: Float[np.ndarray, "points"]
    true: Float[np.ndarray, "points"]
    confusing: Float[np.ndarray, "points"]


def true_and_confusing(
    probabilities: Float[Tensor, "images classes"], labels: Int64[Tensor, "images"]
) -> Float[Tensor, "2 images"]:
    """Return the probabilities of the true and of the most confusing class of each image.

    Args:
        probabilities: of all classes.
        labels: the true classes.

    Raises:
        InputError: if a label is out of range.
    """
    confusing = chosen(top(1, but=labels), probabilities)[:, 0]
    return torch.stack([probabilities.gather(1, classes[:, None])[:, 0] for classes in (labels, confusing)])


def separation(true: Probabilities, confusing: Probabilities, *, num_points: int | None = None) -> Separation:
    """Return the Kolmogorov-Smirnov statistic of two sets of probabilities, its location, and the curves.

    The statistic measures how far confidence in the true class lies above that in the most confusing one. It says
    nothing of maps, and its location is near 0.5 for any good network, since one class alone can exceed that.

    Args:
        true: probability of the true class of each image, in [0, 1].
        confusing: that of the most confusing class.
        num_points: at how many probabilities, evenly from 0 to 1, the curves are given; None: wherever one rises.

    Raises:
        InputError: if there is no image, or a probability is outside [0, 1].
    """
    both = np.concatenate([true, confusing])
    if not len(true) or not ((both >= 0) & (both <= 1)).all():
        raise InputError(f"{len(true)} and {len(confusing)} probabilities: give one or more of each, all in [0, 1]")
    values = np.unique(both)
    distances = _at_most(confusing, values) - _at_most(true, values)
    furthest = np.abs(distances).argmax()
    at = values if num_points is None else np.linspace(0, 1, num_points)
    return Separation(
        statistic=float(abs(distances[furthest])),
        location=float(values[furthest]),
        true_is_higher=bool(distances[furthest] > 0),
        probabilities=at.astype(np.float64),
        true=_at_most(true, at),
        confusing=_at_most(confusing, at),
    )


def ks_chart(separations: Mapping[str, Separation]) -> "Figure":
    """Draw the KS chart of each network, side by side, as figure 9 of [W].

    Args:
        separations: title -> what `separation` returned; one or more.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(separations), 3.2), layout="constrained")
    for axes, (title, found) in zip(
        figure.subplots(1, len(separations), squeeze=False)[0], separations.items(), strict=True
    ):
        axes.step(found.probabilities, 100 * found.confusing, where="post", label="most confusing class")
        axes.step(found.probabilities, 100 * found.true, where="post", label="true class")
        axes.axvline(found.location, color="0.5", linestyle=":")
        axes.set(xlabel="probability", ylabel="images with at most that, %", xlim=(0, 1), ylim=(0, 100))
        axes.set_title(f"{title}\nKS {found.statistic:.2f} at {found.location:.2f}", fontsize="medium")
        axes.legend(fontsize="small", loc="best")
    return figure


def overlap(
    target_maps: Float[Tensor, "images h w"], confusing_maps: Float[Tensor, "images h w"]
) -> Float[Tensor, "images"]:
    """Return how much the maps of the true and of the most confusing class overlap: [W], equation 3, without the mask.

    `2 Σ min(A_T, A_C) / Σ (A_T + A_C)`, each map divided by its maximum first: 1 for maps of the same form. An image of
    which a map is 0 everywhere has no overlap to speak of, and is NaN.

    Args:
        target_maps: A_T, at least 0.
        confusing_maps: A_C.
    """
    target, confusing = normalised(target_maps), normalised(confusing_maps)
    shared = 2 * torch.minimum(target, confusing).sum((1, 2)) / (target + confusing).sum((1, 2))
    return torch.where((target.amax((1, 2)) > 0) & (confusing.amax((1, 2)) > 0), shared, torch.nan)


def _at_most(values: Probabilities, at: np.ndarray) -> Float[np.ndarray, "points"]:
    return np.searchsorted(np.sort(values), at, side="right") / len(values)
