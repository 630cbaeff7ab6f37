"""Charts of a group: every seed with its mean and interval, and training curves; and the style all figures share."""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from heedful.report.results import CURVES, Group, Row, curves
from heedful.report.tables import Comparison
from heedful.statistics import SIGNIFICANCE

# Okabe and Ito's colours, told apart in every kind of colour vision; grey for the first variant, yellow left out (too
# faint on white). Beyond eight variants they come round again with another dash and marker.
COLOURS = ("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
WIDTH = 10.0  # inches, for a page of 1100 pixels
# For class names beyond Latin, Greek and Cyrillic, where the machine has one of them.
OTHER_SCRIPTS = ("Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS", "Hiragino Sans", "Microsoft YaHei")

Look = tuple[str, str, str]
"""Colour, dash and marker of a variant."""


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Return each variant's colour, dash and marker, the same in all figures of a report."""
    names = list(dict.fromkeys(labels))
    return {
        name: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % 4], MARKERS[i // len(COLOURS) % 4])
        for i, name in enumerate(names)
    }


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Set the figures' fonts and lines for what is made or saved inside, and matplotlib's settings back afterwards."""
    fonts = ["DejaVu Sans", *(font for font in OTHER_SCRIPTS if font in get_font_names())]
    settings: dict[Any, Any] = {
        "font.family": fonts,
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "axes.titlelocation": "left",
        "axes.grid": False,
        "grid.color": "#e4e4e4",
        "axes.axisbelow": True,
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
        "text.parse_math": False,  # class names may hold dollar signs
        "svg.fonttype": "path",
        "svg.hashsalt": "heedful",
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A glyph that no font of this machine has is drawn as a box; the page's text has the name in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def svg(figure: Figure) -> bytes:
    """Return a chart as SVG, the same bytes for the same chart."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def png(figure: Figure, dots_per_inch: int = 130) -> bytes:
    """Return a picture as PNG."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


def seeds(group: Group, comparisons: Sequence[Comparison], look: Mapping[str, Look]) -> Figure:
    """Draw every seed's error with mean and 95 % interval, and beside it the paired differences to the first variant.

    Args:
        group: its rows are drawn from top to bottom.
        comparisons: of the same rows.
        look: of the rows' labels.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 1.1 + 0.46 * len(group.rows)))
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for place, (row, comparison) in enumerate(zip(group.rows, comparisons, strict=True)):
            _draw_errors(left, place, row, comparison, look[row.label])
            _draw_difference(right, place, row, group.rows[0], comparison, look[row.label])
        right.axvline(0, color="#888888", linewidth=1, zorder=0)
        _limit(left, [run.metrics.test_error for row in group.rows for run in row.runs])
        _limit(right, [0.0, *(d for row in group.rows[1:] for d in _differences(row, group.rows[0]))])
        left.set_yticks(range(len(group.rows)), [_folded(row.label) for row in group.rows])
        left.set_ylim(len(group.rows) - 0.5, -0.5)
        left.set_title(f"{group.error_name.replace('error', 'test error')}, %")
        right.set_title(f"difference to {shortened(group.rows[0].label, 24)}, points")
        for axes in (left, right):
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        return figure


def training_curves(group: Group, look: Mapping[str, Look]) -> Figure:
    """Draw loss and error per epoch, on the training and on the validation images: mean of the seeds, band min to max.

    Detectors have no training error and no validation loss: what nobody has gets no panel.

    Args:
        group: rows without a finished run are left out.
        look: of the rows' labels.
    """
    found = {row.label: [curves(run) for run in row.runs] for row in group.rows}
    names = [name for name in CURVES if any(name in each for runs in found.values() for each in runs)]
    error = group.error_name.removeprefix("top-1 ")
    shape = (2, 2) if len(names) == len(CURVES) else (1, len(names))
    with style():
        figure = Figure(figsize=(WIDTH, 3.3 * shape[0]))
        panels = figure.subplots(*shape, sharex=True, sharey="row" if shape == (2, 2) else "none", squeeze=False)
        by_name = dict(zip(names, panels.T.flat, strict=True))
        for name, axes in by_name.items():
            for row in group.rows:
                lines = [each.get(name, np.empty(0)) for each in found[row.label]]
                _draw_curve(axes, lines, row.label, look[row.label])
            split, kind = name.split("_")
            what = f"{error}, %" if kind == "error" else kind
            axes.set_title(f"{'training' if split == 'train' else 'validation'} {what}")
            axes.grid()
        for kind, scale in (("loss", "log"), ("error", "symlog")):
            _spread([axes for name, axes in by_name.items() if name.endswith(kind)], scale)
        for axes in panels[-1]:
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels))
        return figure


def shortened(text: str, most: int) -> str:
    """Return the text, cut to `most` characters with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _draw_errors(axes: Axes, place: int, row: Row, comparison: Comparison, look: Look) -> None:
    colour, _, marker = look
    errors = [run.metrics.test_error for run in row.runs]
    if comparison.error is None:
        axes.text(0.5, place, "no finished run", transform=axes.get_yaxis_transform(), ha="center", va="center")
        return
    summary = comparison.error
    if not math.isnan(summary.low):
        axes.plot(
            [summary.low, summary.high], [place, place], color=colour, alpha=0.35, linewidth=7, solid_capstyle="butt"
        )
    axes.plot([summary.mean] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    axes.plot(errors, [place] * len(errors), marker, color=colour, markeredgecolor="white", markersize=7)
    if comparison.expected:
        axes.plot(comparison.expected.mean, place, "D", color="none", markeredgecolor="black", markersize=7)


def _draw_difference(axes: Axes, place: int, row: Row, reference: Row, comparison: Comparison, look: Look) -> None:
    colour, _, marker = look
    pair = comparison.paired
    if pair is None:
        return
    strength = 1.0 if comparison.holm_p < SIGNIFICANCE else 0.45
    if not math.isnan(pair.low):
        axes.plot([pair.low, pair.high], [place, place], color=colour, alpha=strength, linewidth=2)
    differences = _differences(row, reference)
    axes.plot(differences, [place] * len(differences), marker, color=colour, alpha=0.3, markersize=5, markeredgewidth=0)
    axes.plot(pair.difference, place, marker, color=colour, markersize=8, markeredgecolor="white")


def _differences(row: Row, reference: Row) -> list[float]:
    theirs = {run.seed: run.metrics.test_error for run in reference.runs}
    return [run.metrics.test_error - theirs[run.seed] for run in row.runs if run.seed in theirs]


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """Keep intervals of two or three seeds, many times wider than the seeds' spread, from squeezing the dots."""
    if not values:
        return
    span = max(max(values) - min(values), 0.2)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, min(values) - 1.5 * span), min(high, max(values) + 1.5 * span))


def _draw_curve(axes: Axes, lines: list[NDArray[np.float64]], label: str, look: Look) -> None:
    colour, dash, _ = look
    num_epochs = min((len(line) for line in lines), default=0)
    if not num_epochs:
        return
    stacked = np.stack([line[:num_epochs] for line in lines])
    epochs = np.arange(1, num_epochs + 1)
    axes.fill_between(epochs, stacked.min(0), stacked.max(0), color=colour, alpha=0.15, linewidth=0)
    marker = "o" if num_epochs < 4 else ""
    axes.plot(epochs, stacked.mean(0), color=colour, linestyle=dash, marker=marker, linewidth=1.6, label=_folded(label))


def _spread(panels: Sequence[Axes], scale: str) -> None:
    """Use a logarithmic scale where the end of training would lie flat on the axis; an error may be 0, hence symlog."""
    low, high = min(axes.dataLim.y0 for axes in panels), max(axes.dataLim.y1 for axes in panels)
    if not (math.isfinite(low) and math.isfinite(high)) or high < 10 * low or (low <= 0 and scale == "log"):
        return
    ticks = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
    for axes in panels:
        axes.set_yscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
        axes.yaxis.set_major_locator(FixedLocator([0, *(t for t in ticks if t >= 0.5)] if scale == "symlog" else ticks))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low / 1.15, high * 1.15)


def legend_columns(labels: Sequence[str]) -> int:
    """Return how many of these labels stand beside each other in a legend of the page's width."""
    return max(1, min(len(labels), int(110 / (8 + max(len(line) for label in labels for line in label.split("\n"))))))


def _folded(label: str) -> str:
    """Break a long name into at most two lines, and shorten what is longer still."""
    if len(label) <= 24:
        return label
    return label[:24] + "\n" + shortened(label[24:], 24)
