"""What every evaluation ends in: numbers for a file, a few of them for tables, curves and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Numbers = dict[str, Any]
"""Plain numbers, lists and dicts, as they go into a JSON file."""


@dataclass(frozen=True)
class Headline:
    """One number that tables show.

    Args:
        name: in words, such as `PGD-20 8/255 error`.
        value: finite.
        unit: `%`, or empty.
        better: `lower` or `higher`.
    """

    name: str
    value: float
    unit: str
    better: str


@dataclass(frozen=True)
class Curves:
    """Lines over a common axis.

    Args:
        title: of the figure.
        x_name: what the axis shows, with its unit.
        y_name: what the lines show, with its unit.
        x: where the lines were measured, rising.
        lines: name -> a value for each of `x`.
    """

    title: str
    x_name: str
    y_name: str
    x: tuple[float, ...]
    lines: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found of one run.

    Args:
        numbers: all of it; `data`, the name of the data, and `num_images` are always there.
        headlines: what a table shows, in order of weight.
        curves: what a figure shows.
        pictures: name without ending -> PNG.
    """

    numbers: Numbers
    headlines: tuple[Headline, ...]
    curves: tuple[Curves, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
