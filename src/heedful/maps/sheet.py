"""A sheet of pictures in rows and columns, with words below each."""

import warnings

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

WIDTH = 10.0  # inches, as all lengths here
LARGEST_SIDE = 1.7
GAP = 0.1
TEXT = 0.43  # below a picture: two lines
LINE = 0.16
FONT_SIZE = 9  # points
SMALLEST_SIDE = 128  # pixels; below, an image is enlarged by whole pixels, so that the map over it stays smooth
TRUE = "#0a6b3d"
SOFT = "#59636e"


def enlarged(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "large_height large_width 3"]:
    """Return a small image with each pixel repeated, until it has SMALLEST_SIDE pixels a side or more."""
    factor = -(-SMALLEST_SIDE // min(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


class Sheet:
    """Pictures in rows and columns with two lines below each, on one pair of axes in inches: many axes take long.

    Args:
        num_columns: of pictures; they share the width of a page.
        num_rows: likewise.
        aspect: height of a picture over its width.
    """

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
        """Put a picture into a place, with a name and a text below it; a frame marks the true class."""
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
            left, top, shortened(text, self.width), va="top", fontsize=FONT_SIZE, color=colour, parse_math=False
        )


def shortened(text: str, width: float) -> str:
    """Return the text, cut with an ellipsis until it is no wider than `width` inches."""
    most = 72 * width * 0.95  # points; on coarse screens a letter is a little wider than it should be
    text = text if len(text) <= 100 else text[:99] + "…"
    font = FontProperties(size=FONT_SIZE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        while len(text) > 1 and text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] > most:
            text = text[:-2].rstrip() + "…"
    return text
