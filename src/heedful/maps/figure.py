"""Figures of class maps: each image, then the maps of its classes laid over it, as in figures 2 and 10 of [W].

[W] is Wang et al., "Sharpen Focus: Learning with Attention Separability and Consistency", ICCV 2019.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from heedful.errors import InputError
from heedful.maps.attention import Explained
from heedful.maps.overlay import overlay
from heedful.maps.sheet import Sheet, enlarged


def figure(
    images: UInt8[np.ndarray, "batch height width 3"],
    explained: Explained,
    class_names: Sequence[str],
    *,
    labels: Sequence[int | None] | None = None,
    most: int = 5,
    multi_label: bool = False,
    masks: Sequence[Mapping[str, Float[np.ndarray, "_ _"]]] | None = None,
) -> Figure:
    """Draw each image in a row: the image, then its classes' maps over it, with name and probability of the class.

    Every layer has a row of its own. The true class is framed, if it is among those that are shown. Each map is divided
    by its own maximum: it shows where, not how much. The figure is not pyplot's: it needs no screen, nor closing.

    Args:
        images: the pixels that the network saw, 0 to 255.
        explained: maps, classes and scores of these images, of `heedful.maps.attention.explained`.
        class_names: in the order of the scores; a class beyond them is shown by its number.
        labels: the true class of each image, or None where it is not known.
        most: at most so many classes of each image, the first ones.
        multi_label: see `probabilities`.
        masks: for each image level -> weight of each place, of `heedful.PayAttention.masks`: a row more. Each is
            stretched from its least to its greatest weight, which stand below as multiples of average pooling's.

    Raises:
        InputError: if the numbers of images, maps, labels and masks differ, `most` is below 1, or a map is not finite.
    """
    labels = [None] * len(images) if labels is None else labels
    masks = [{}] * len(images) if masks is None else masks
    _check(len(images), explained, labels, masks, most)
    chosen, parts = explained.classes[:, :most].tolist(), probabilities(explained, multi_label=multi_label)
    num_columns = 1 + max(len(chosen[0]), *(len(of_image) for of_image in masks))
    num_rows = sum(len(explained.maps) + bool(of_image) for of_image in masks)
    sheet = Sheet(num_columns, num_rows, images.shape[1] / images.shape[2])
    rows = itertools.count()
    for n, pixels in enumerate(images):
        image, name = enlarged(pixels), _name(class_names, labels[n])
        for layer, maps in explained.maps.items():
            row = next(rows)
            sheet.show(row, 0, image, name, layer)
            for k, found in enumerate(maps[n, :most].detach().float().cpu().numpy()):
                text = percent(parts[n, k]) + ("" if (found > 0).any() else ", empty map")
                is_true = chosen[n][k] == labels[n]
                sheet.show(row, 1 + k, overlay(image, found), _name(class_names, chosen[n][k]), text, framed=is_true)
        if masks[n]:
            _show_masks(sheet, next(rows), image, name, masks[n])
    return sheet.figure


def _show_masks(
    sheet: Sheet, row: int, image: UInt8[np.ndarray, "height width 3"], name: str, masks: Mapping[str, np.ndarray]
) -> None:
    sheet.show(row, 0, image, name, "own attention")
    for column, (level, mask) in enumerate(masks.items(), start=1):
        low, high = mask.size * mask.min(), mask.size * mask.max()
        sheet.show(row, column, overlay(image, mask - mask.min()), level, f"{low:.2g} to {high:.2g}")


def probabilities(explained: Explained, *, multi_label: bool = False) -> Float[np.ndarray, "batch chosen"]:
    """Return the probability of each map's class, float64.

    Args:
        explained: maps, classes and scores.
        multi_label: whether an image can be of several classes: the sigmoid of each score, instead of their softmax.
    """
    scores, classes = explained.scores.detach().cpu().double(), explained.classes.cpu()
    return (scores.sigmoid() if multi_label else scores.softmax(1)).gather(1, classes).numpy()


def _check(
    num_images: int, explained: Explained, labels: Sequence[int | None], masks: Sequence[object], most: int
) -> None:
    if most < 1:
        raise InputError(f"figure: most is {most}, but it must be at least 1")
    for what, number in (("maps", len(explained.classes)), ("labels", len(labels)), ("masks", len(masks))):
        if number != num_images:
            raise InputError(f"figure: {num_images} images, but {what} of {number}: give one for each image")
    if not num_images:
        raise InputError("figure: there is no image")


def _name(class_names: Sequence[str], number: int | None) -> str:
    if number is None:
        return "image"
    return " ".join(class_names[number].split()) if 0 <= number < len(class_names) else str(number)


def percent(probability: float) -> str:
    """Return a probability in percent, with two digits or to a tenth."""
    return f"{100 * probability:.0f} %" if probability >= 0.095 else f"{100 * probability:.1f} %"
