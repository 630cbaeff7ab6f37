"""All numbers of `heedful.evaluate.localisation` over any number of images, gathered batch by batch."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from heedful.evaluate.localisation import (
    DELTAS,
    NUM_BINS,
    average_precision,
    best_overlaps,
    energy_inside,
    jaccard_at_otsu,
    max_box_accuracy,
    pixel_counts,
    pointing_hits,
)

TOLERANCES = (0, 15)
"""Of the pointing game, in pixels of the square that the network sees."""

SMALLEST_SIDE = 112
"""Of a square on which 15 pixels are counted: half of the usual 224. Of one of 32 they reach nearly everywhere."""


class Located:
    """What the maps of a set of images say about where its objects are."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, NUM_BINS + 1), dtype=np.int64)
        self.columns: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(
        self,
        maps: Float[np.ndarray, "images height width"],
        masks: Bool[np.ndarray, "images height width"],
        boxes: Sequence[Int[np.ndarray, "_ 4"]],
        labels: Int64[np.ndarray, "images"],
    ) -> None:
        """Count a batch.

        Args:
            maps: of the true class, at the size of the images, of any scale.
            masks: where the object is; each image has one.
            boxes: of each image's objects, or nothing where masks were given.
            labels: the true classes.
        """
        scores = stretched(maps)
        counts = pixel_counts(scores, masks)
        self.counts += counts.sum(0)
        columns = {
            "pxap_per_image": average_precision(counts),
            **{f"pointing_{pixels}px": pointing_hits(scores, masks, pixels) for pixels in tolerances(maps.shape[1])},
            "energy": energy_inside(maps.clip(min=0), masks),
            "jaccard": jaccard_at_otsu(scores, masks),
            "labels": labels,
        }
        if all(len(each) for each in boxes):
            columns["overlaps"] = np.array([best_overlaps(*pair) for pair in zip(scores, boxes, strict=True)])
        for name, values in columns.items():
            self.columns[name].append(values)

    def numbers(self) -> dict[str, float]:
        """Return every number, in [0, 1]: `pxap` of all pixels together, and its mean over images, `pxap_per_image`.

        The pointing game is a mean over classes, energy and Jaccard are means over images, `max_box_acc` over the
        deltas, of which each has its own (`max_box_acc_50` for 0.5); these are missing where masks were given, and
        `pointing_15px` on squares below SMALLEST_SIDE.
        """
        columns = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        labels, best = columns.pop("labels"), columns.pop("overlaps", None)
        found = {"pxap": float(average_precision(self.counts))}
        for name, values in columns.items():
            found[name] = _mean_over_classes(values, labels) if name.startswith("pointing") else float(values.mean())
        if best is not None:
            accuracies = max_box_accuracy(best)
            found["max_box_acc"] = float(accuracies.mean())
            each = zip(DELTAS, accuracies.tolist(), strict=True)
            found |= {f"max_box_acc_{round(100 * delta)}": accuracy for delta, accuracy in each}
        return found


def tolerances(side: int) -> tuple[int, ...]:
    """Return those of TOLERANCES that are counted on a square of that side."""
    return TOLERANCES if side >= SMALLEST_SIDE else TOLERANCES[:1]


def stretched(maps: Float[np.ndarray, "images height width"]) -> Float[np.ndarray, "images height width"]:
    """Return each map stretched from its minimum to its maximum, 0 to 1; one that is the same everywhere becomes 0."""
    lowest, highest = (bound((1, 2), keepdims=True) for bound in (maps.min, maps.max))
    extent = highest - lowest
    # Rounding may bring the highest just above 1.
    return ((maps - lowest) / np.where(extent > 0, extent, 1)).clip(0, 1)


def _mean_over_classes(values: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([values[labels == label].mean() for label in np.unique(labels)]))
