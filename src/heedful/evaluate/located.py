"""All numbers of `heedful.evaluate.localisation` over any number of images, gathered batch by batch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from heedful.evaluate.baselines import centre_gaussian
from heedful.evaluate.found import Numbers
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
from heedful.evaluate.object_data import Sample
from heedful.maps.processing import upsampled

TOLERANCES = (0, 15)
"""Of the pointing game, in pixels of the square that the network sees."""

SMALLEST_SIDE = 112
"""Of a square on which 15 pixels are counted: half of the usual 224. Of one of 32 they reach nearly everywhere."""

NO_OBJECTS = "the data have neither boxes.csv nor masks/"
NO_BOXES = "the data have masks, but no boxes"


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


class OnObjects:
    """The numbers of `Located` for maps and for the centre Gaussian, on the images of a sample that have an object."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.located: dict[str, Located] = defaultdict(Located)
        self.num_located = 0

    def add(
        self, places: slice, maps: Mapping[str, Float[Tensor, "images _ _"]], labels: Int64[Tensor, "images"]
    ) -> None:
        """Count the images at these places of the sample.

        Args:
            places: of the images.
            maps: name -> a map for each image, of any size and scale; in every batch the same names.
            labels: the true classes.
        """
        if self.sample.objects is None or self.sample.paths is None:
            return
        size = self.sample.image_size
        found = [self.sample.objects.find(path, size) for path in self.sample.paths[places]]
        kept = [number for number, (mask, _) in enumerate(found) if mask.any()]
        if not kept:
            return
        self.num_located += len(kept)
        masks, boxes = np.stack([found[number][0] for number in kept]), [found[number][1] for number in kept]
        large = {name: upsampled(each, (size, size)).cpu().numpy()[kept] for name, each in maps.items()}
        large["centre_gaussian"] = np.broadcast_to(centre_gaussian(size, size), masks.shape)
        for name, shown in large.items():
            self.located[name].add(shown, masks, boxes, labels.cpu().numpy()[kept])

    def numbers(self) -> Numbers:
        """Return `objects`, boxes or masks or None, `num_located`, `left_out`, and by name the numbers of the maps."""
        objects = self.sample.objects
        if objects is None or not self.num_located:
            why = NO_OBJECTS if objects is None else f"no image of {self.sample.name} is among the {objects.kind}"
            return {"objects": None, "num_located": 0, "left_out": {"localisation": why}}
        size = self.sample.image_size
        too_small = f"they are too large a part of the {size} px that the network sees"
        left_out = {f"pointing_{pixels}px": too_small for pixels in TOLERANCES if pixels not in tolerances(size)}
        if objects.masks is not None:
            left_out["max_box_acc"] = NO_BOXES
        return {
            "objects": objects.kind,
            "num_located": self.num_located,
            "boxes_without_area": objects.without_area,
            **{name: located.numbers() for name, located in self.located.items()},
            "left_out": left_out,
        }


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
