"""Pictures in rows and columns, with a title per column and a text below each picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from heedful.report.figures import WIDTH, shortened

LARGEST_SIDE = 1.7  # inches, as all lengths here
GAP = 0.07
LINE = 0.19
TEXT = 0.30
SCALE = 0.45


class Grid:
    """A figure of pictures on one pair of axes, in inches: axes for each picture would take ten times as long.

    Args:
        titles: one per column.
        num_rows: of pictures.
        aspect: the pictures' height over their width.
        with_scales: leave room below for colour scales.
    """

    def __init__(self, titles: Sequence[str], num_rows: int, aspect: float, *, with_scales: bool = False):
        folded = [_folded(title) for title in titles]
        self.head = LINE * (1 + max(title.count("\n") for title in folded)) + 0.08
        self.side = min(WIDTH / len(titles), LARGEST_SIDE)
        self.width = self.side - GAP
        self.most_characters = int(self.width * 72 / 5)  # below a picture: a letter of 9 points is about 5 wide
        self.height = self.width * aspect
        self.bottom = self.head + num_rows * (self.height + TEXT)
        size = self.side * len(titles), self.bottom + SCALE * with_scales
        self.figure = Figure(figsize=size)
        self.figure.set_layout_engine("none")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))
        self.axes.set_axis_off()
        for column, title in enumerate(folded):
            self.axes.text((column + 0.5) * self.side, self.head - 0.06, title, ha="center", va="bottom")

    def show(self, row: int, column: int, picture: NDArray[np.uint8], text: str, frame: str | None = None) -> None:
        """Put a picture into its place and a text below it, both marked with the colour `frame` if it is given."""
        left = column * self.side + GAP / 2
        top = self.head + row * (self.height + TEXT)
        extent = (left, left + self.width, top + self.height, top)
        self.axes.imshow(picture, extent=extent, aspect="auto")
        place = (left + self.width / 2, top + self.height + 0.05)
        self.axes.text(*place, text, ha="center", va="top", fontsize=9, color=frame or "black")
        if frame:
            border = Rectangle((left, top), self.width, self.height, fill=False, edgecolor=frame, linewidth=2.5)
            self.axes.add_patch(border)

    def scale(self, column: int, colours: ScalarMappable) -> None:
        """Put a colour scale below a column; the grid must have been made `with_scales`."""
        width, height = self.figure.get_size_inches()
        left = column * self.side + GAP / 2 + 0.06 * self.width
        place = (left / width, (height - self.bottom - 0.14) / height, 0.88 * self.width / width, 0.1 / height)
        axes = self.figure.add_axes(place)
        self.figure.colorbar(colours, cax=axes, orientation="horizontal")
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(3))


def _folded(title: str) -> str:
    """Break a title at a "-" or "." or after 14 characters, so that neighbours do not run into each other."""
    if len(title) <= 14:
        return title
    cut = max(title[:14].rfind("-"), title[:14].rfind(".")) + 1 or 14
    return title[:cut] + "\n" + shortened(title[cut:], 14)
