"""How well maps find the object, one function a metric; nothing here knows networks.

Of N images of H × W pixels: scores are maps of the true class, enlarged to the image and stretched to [0, 1] from their
own minimum to their own maximum; masks are true on the object, with boxes on all of them; boxes are (left, top, right,
bottom) in pixels, both corners belonging to the box.

[C] is Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from heedful.errors import InputError

Scores = Float[np.ndarray, "images height width"]
Masks = Bool[np.ndarray, "masks rows columns"]
Boxes = Int[np.ndarray, "boxes 4"]

NUM_BINS = 1000
DELTAS = (0.3, 0.5, 0.7)
THRESHOLDS = np.linspace(0, 1, 101)
"""τ of MaxBoxAccV2: steps of 0.01, as in the code of [C]."""


def pixel_counts(scores: Scores, masks: Masks, num_bins: int = NUM_BINS) -> Int[np.ndarray, "images 2 bins"]:
    """Return how many pixels of the object (first) and beside it have a score from k / num_bins to below the next.

    k is 0 to num_bins, the last for scores of 1. Counts of several batches add up, which is what makes PxAP of any
    number of images possible.

    Raises:
        InputError: if a score is outside [0, 1], or the shapes differ.
    """
    _check(scores, masks)
    # Not floor(score × num_bins), whose rounding puts some scores below a threshold that they reach.
    bins = np.searchsorted(np.arange(num_bins + 1) / num_bins, scores, side="right") - 1
    rows = 2 * np.arange(len(scores))[:, None, None] + ~masks
    counts = np.bincount((rows * (num_bins + 1) + bins).ravel(), minlength=2 * len(scores) * (num_bins + 1))
    return counts.reshape(len(scores), 2, num_bins + 1)


def average_precision(counts: Int[np.ndarray, "*images 2 bins"]) -> Float[np.ndarray, "*images"]:
    """Return Σ_n P_n (R_n − R_{n−1}) over the thresholds of `pixel_counts`, the highest first.

    P and R are precision and recall of the pixels that reach the threshold. PxAP of [C] is this of the sum of the
    counts of all images, so that large objects weigh more; the mean over images weighs all alike. Scores that are the
    same everywhere give the part of the pixels that is object.

    Raises:
        InputError: if there is no pixel of the object.
    """
    hits, others = np.moveaxis(counts[..., ::-1].cumsum(-1), -2, 0)
    if not hits[..., -1].all():
        raise InputError("masks: an image has no pixel of an object, so there is no recall; leave it out")
    recall = hits / hits[..., -1:]
    precision = hits / np.maximum(hits + others, 1)
    return np.asarray((precision * np.diff(recall, prepend=0)).sum(-1))


def best_overlaps(
    scores: Float[np.ndarray, "height width"],
    boxes: Boxes,
    thresholds: Float[np.ndarray, "thresholds"] = THRESHOLDS,
) -> Float[np.ndarray, "thresholds"]:
    """Return for each threshold the best overlap (intersection over union) of a box around the map with an object's.

    There is a box around every connected region (corners count as connected) of scores above τ times the highest; the
    best of all pairs counts. [C] finds regions with OpenCV, which also boxes the holes in them, and extends boxes by a
    pixel. It enlarges maps to the network's square by cubic interpolation and rounds them to 8 bits; here scores were
    enlarged bilinearly, and are not rounded.

    Args:
        scores: of one image.
        boxes: of its objects, one or more.
        thresholds: τ, in [0, 1].
    """
    above = [scores > threshold * scores.max() for threshold in thresholds]
    return np.array([overlaps(boxes_around(binary), boxes).max(initial=0.0) for binary in above])


def max_box_accuracy(
    best: Float[np.ndarray, "images thresholds"], deltas: Sequence[float] = DELTAS
) -> Float[np.ndarray, "deltas"]:
    """Return for each δ the part of the images with an overlap of at least δ, at the threshold that is best for it.

    Their mean is MaxBoxAccV2 of [C], section 3. The threshold is chosen on the very images that are reported, as there:
    these are numbers for comparing maps, not what a user reaches with a threshold of their own.

    Args:
        best: of all images, from `best_overlaps`.
        deltas: δ, in (0, 1].
    """
    return np.array([(best >= delta).mean(0).max() for delta in deltas])


def pointing_hits(scores: Scores, masks: Masks, tolerance: float) -> Bool[np.ndarray, "images"]:
    """Return whether the highest score is on the object, or at most so far from it.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, with 15 pixels; the accuracy is there
    the mean over classes. Of equal scores the first counts, row by row; a map that is 0 everywhere points at nothing.

    Args:
        scores: of each image.
        masks: likewise.
        tolerance: in pixels between centres, at least 0.

    Raises:
        InputError: if a score is outside [0, 1], or the shapes differ.
    """
    _check(scores, masks)
    return np.array([_points(score, mask, tolerance) for score, mask in zip(scores, masks, strict=True)], dtype=bool)


def energy_inside(maps: Scores, masks: Masks) -> Float[np.ndarray, "images"]:
    """Return the part of each map's sum that lies on the object; 0 if it is 0 everywhere.

    Wang et al., "Score-CAM", CVPR workshops 2020, the energy-based pointing game.

    Args:
        maps: at least 0 and, unlike scores, not stretched: where the least is not 0 that would change the sums.
        masks: of each image.

    Raises:
        InputError: if a value is negative, or the shapes differ.
    """
    _check_shapes(maps, masks)
    if maps.size and maps.min() < 0:
        raise InputError(f"maps go down to {maps.min():.3g}, but energy is of values of at least 0: rectify them")
    total = maps.sum((1, 2))
    return (maps * masks).sum((1, 2)) / np.where(total > 0, total, 1)


def otsu(scores: Float[np.ndarray, "*shape"]) -> float:
    """Return the threshold t for which scores of at most t and those above it differ most: Otsu, 1979.

    scikit-image's, of a histogram in which every score that occurs has a bin of its own: in its default of 256 bins,
    scores of one bin may fall on both sides of the threshold. If all are equal, t is that score, and none is above.
    """
    from skimage.filters import threshold_otsu

    values, counts = np.unique(scores.astype(np.float64), return_counts=True)
    if len(values) == 1:
        return float(values[0])
    return float(threshold_otsu(hist=(counts, values)))  # type: ignore[no-untyped-call]


def above_otsu(scores: Scores) -> Masks:
    """Return the pixels of each image whose scores are above its own threshold `otsu`."""
    return np.array([score > otsu(score) for score in scores], dtype=bool).reshape(scores.shape)


def jaccard(found: Bool[np.ndarray, "images height width"], masks: Masks) -> Float[np.ndarray, "images"]:
    """Return intersection over union of what was found and the object, image by image; 0 where both are empty.

    Raises:
        InputError: if the shapes differ.
    """
    _check_shapes(found, masks)
    return (found & masks).sum((1, 2)) / np.maximum((found | masks).sum((1, 2)), 1)


def jaccard_at_otsu(scores: Scores, masks: Masks) -> Float[np.ndarray, "images"]:
    """Return intersection over union of the object and the scores above `otsu`, image by image.

    Raises:
        InputError: if a score is outside [0, 1], or the shapes differ.
    """
    _check(scores, masks)
    return jaccard(above_otsu(scores), masks)


def boxes_around(binary: Bool[np.ndarray, "height width"]) -> Boxes:
    """Return a box around every connected region; corners count as connected."""
    from scipy import ndimage

    labelled, _ = ndimage.label(binary, structure=np.ones((3, 3)))
    found = ndimage.find_objects(labelled)
    boxes = [(columns.start, rows.start, columns.stop - 1, rows.stop - 1) for rows, columns in found]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def overlaps(first: Boxes, second: Int[np.ndarray, "others 4"]) -> Float[np.ndarray, "boxes others"]:
    """Return intersection over union of each box of the first with each of the second."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    shared = (high - low + 1).clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(-1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def _points(score: np.ndarray, mask: np.ndarray, tolerance: float) -> bool:
    highest = np.array(np.unravel_index(score.argmax(), score.shape))
    squared = ((np.argwhere(mask) - highest) ** 2).sum(1)
    return bool(score.max() > 0 and (squared <= tolerance**2).any())


def _check(scores: np.ndarray, masks: np.ndarray) -> None:
    _check_shapes(scores, masks)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(
            f"scores lie from {scores.min():.3g} to {scores.max():.3g}, but must be in [0, 1]: stretch each map from "
            "its minimum to its maximum"
        )


def _check_shapes(maps: np.ndarray, masks: np.ndarray) -> None:
    if maps.shape != masks.shape:
        raise InputError(f"maps are {maps.shape} and masks {masks.shape}: bring both to the size of the images")
