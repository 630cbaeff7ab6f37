"""Figures of class maps: each image, then the maps of its classes laid over it, as in figures 2 and 10 of [W].

[W] is Wang et al., "Sharpen Focus: Learning with Attention Separability and Consistency", ICCV 2019.
"""

import itertools
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from heedful.errors import InputError
from heedful.maps.attention import Explained
from heedful.maps.overlay import overlay

WIDTH = 10.0  # inches, as all lengths here
LARGEST_SIDE = 1.7
GAP = 0.1
TEXT = 0.43  # below a picture: two lines
LINE = 0.16
FONT_SIZE = 9  # points
SMALLEST_SIDE = 128  # pixels; below, an image is enlarged by whole pixels, so that the map over it stays smooth
TRUE = "#0a6b3d"
SOFT = "#59636e"


def figure(
    images: UInt8[np.ndarray, "batch height width 3"],
    explained: Explained,
    class_names: Sequence[str],
    *,
    labels: Sequence[int | None] | None = None,
    most: int = 5,
    multi_label: bool = False,
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

    Raises:
        InputError: if the numbers of images, maps and labels differ, `most` is below 1, or a map is not finite.
    """
    labels = [None] * len(images) if labels is None else labels
    _check(len(images), explained, labels, most)
    chosen, parts = explained.classes[:, :most].tolist(), probabilities(explained, multi_label=multi_label)
    sheet = _Sheet(1 + len(chosen[0]), len(images) * len(explained.maps), images.shape[1] / images.shape[2])
    rows = itertools.product(range(len(images)), explained.maps.items())
    for row, (n, (layer, maps)) in enumerate(rows):
        image = _enlarged(images[n])
        sheet.show(row, 0, image, _name(class_names, labels[n]), layer)
        for k, found in enumerate(maps[n, :most].detach().float().cpu().numpy()):
            text = percent(parts[n, k]) + ("" if (found > 0).any() else ", empty map")
            name, is_true = _name(class_names, chosen[n][k]), chosen[n][k] == labels[n]
            sheet.show(row, 1 + k, overlay(image, found), name, text, framed=is_true)
    return sheet.figure


def probabilities(explained: Explained, *, multi_label: bool = False) -> Float[np.ndarray, "batch chosen"]:
    """Return the probability of each map's class, float64.

    Args:
        explained: maps, classes and scores.
        multi_label: whether an image can be of several classes: the sigmoid of each score, instead of their softmax.
    """
    scores, classes = explained.scores.detach().cpu().double(), explained.classes.cpu()
    return (scores.sigmoid() if multi_label else scores.softmax(1)).gather(1, classes).numpy()


def _check(num_images: int, explained: Explained, labels: Sequence[int | None], most: int) -> None:
    if most < 1:
        raise InputError(f"figure: most is {most}, but it must be at least 1")
    for what, number in (("maps", len(explained.classes)), ("labels", len(labels))):
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


def _enlarged(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "large_height large_width 3"]:
    factor = -(-SMALLEST_SIDE // min(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


class _Sheet:
    """Pictures in rows and columns with two lines below each, on one pair of axes in inches: many axes take long."""

    def __init__(self, num_columns: int, num_rows: int, aspect: float):
        self.side = min((WIDTH - GAP) / num_columns, LARGEST_SIDE)
        self.width = self.side - GAP
        self.height = self.width * aspect
        size = GAP + num_columns * self.side, GAP + num_rows * (self.height + TEXT)
        self.figure = Figure(figsize=size, facecolor="white")
        self.figure.set_layout_engine("none")
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))
        self.axes.set_axis_off()

    def show(
        self, row: int, column: int, picture: UInt8[np.ndarray, "height width 3"], name: str, text: str, *,
        framed: bool = False,
    ) -> None:  # fmt: skip
        left = GAP + column * self.side
        top = GAP + row * (self.height + TEXT)
        self.axes.imshow(picture, extent=(left, left + self.width, top + self.height, top), aspect="auto")
        self._write(left, top + self.height + 0.06, ("✓ " if framed else "") + name, TRUE if framed else "black")
        self._write(left, top + self.height + 0.06 + LINE, text, SOFT)
        if framed:
            border = Rectangle((left, top), self.width, self.height, fill=False, edgecolor=TRUE, linewidth=3)
            self.axes.add_patch(border)

    def _write(self, left: float, top: float, text: str, colour: str) -> None:
        # Class names may hold dollar signs, hence no formulas.
        self.axes.text(
            left, top, _shortened(text, self.width), va="top", fontsize=FONT_SIZE, color=colour, parse_math=False
        )


def _shortened(text: str, width: float) -> str:
    """Return the text, cut with an ellipsis until it is no wider than `width` inches."""
    most = 72 * width * 0.95  # points; on coarse screens a letter is a little wider than it should be
    text = text if len(text) <= 100 else text[:99] + "…"
    font = FontProperties(size=FONT_SIZE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        while len(text) > 1 and text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] > most:
            text = text[:-2].rstrip() + "…"
    return text
