"""What is ignored: how a network's attention layers weigh their channels, from the first layer to the last."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from heedful.report.evidence import Evidence
from heedful.report.figures import WIDTH, Look, shortened, style
from heedful.report.pictures import short_gate

PANELS_PER_LINE = 4
OVERLAP = 1.5  # a ridge's height, in distances between gates


def gate_range(variant: str) -> tuple[float, float] | None:
    """Return the weights that a variant's gates can reach, or None if it has several gates or the notation is another.

    The bounds are those of equations 1 to 5 of [L]: attend and ign3 (0, 1), ign1(α) (1 - α, 1), ign2 (σ(1), 1).
    """
    ranges = {_gate_range(part) for part in variant.split("+")}
    return ranges.pop() if len(ranges) == 1 else None


def channel_histograms(pictures: Sequence[Evidence]) -> dict[str, NDArray[np.int64]]:
    """Return the counts of channel weights in 100 bins of [0, 1] by gate, in depth order, summed over seeds.

    Args:
        pictures: of one variant, one per seed.
    """
    total: dict[str, NDArray[np.int64]] = {}
    for each in pictures:
        for gate, kind, counts in zip(each.gates, each.kinds, each.histograms, strict=True):
            if kind == "channel":
                total[gate] = total.get(gate, 0) + counts.astype(np.int64)
    return total


def channel_weights(
    histograms: Mapping[str, Mapping[str, NDArray[np.int64]]], variants: Mapping[str, str], look: Mapping[str, Look]
) -> Figure:
    """Draw the distribution of channel weights at every depth, one panel per variant, early layers on top.

    Hatched: weights that the gate cannot reach. The tick on each line is the mean.

    Args:
        histograms: by label, then gate, as `channel_histograms` returns them; at least one, none empty.
        variants: the notation, by label.
        look: of the labels.
    """
    num_lines = -(-len(histograms) // PANELS_PER_LINE)
    num_columns = -(-len(histograms) // num_lines)
    deepest = max(len(gates) for gates in histograms.values())
    height = 0.9 + max(1.2, min(0.34 * deepest, 6.0))
    with style():
        figure = Figure(figsize=(WIDTH * num_columns / PANELS_PER_LINE, 0.3 + height * num_lines))
        panels = list(figure.subplots(num_lines, num_columns, squeeze=False).flat)
        for axes, (label, gates) in zip(panels, histograms.items(), strict=False):
            _draw_ridges(axes, gates, look[label][0])
            _mark_unreachable(axes, gate_range(variants[label]))
            axes.set_title(shortened(label, 22))
        for axes in panels[len(histograms) :]:
            axes.set_axis_off()
        figure.supxlabel("weight of a channel", fontsize=10)
        return figure


def _gate_range(part: str) -> tuple[float, float] | None:
    _, _, gate = part.partition("-")
    if gate in ("", "attend", "ign3"):
        return 0.0, 1.0
    if gate == "ign2":
        return float(1 / (1 + np.exp(-1))), 1.0
    alpha = re.fullmatch(r"ign1\(([0-9.]+)\)", gate)
    return (1 - float(alpha[1]), 1.0) if alpha else None


def _draw_ridges(axes: Axes, gates: Mapping[str, NDArray[np.int64]], colour: str) -> None:
    centres = (np.arange(100) + 0.5) / 100
    for place, counts in enumerate(gates.values()):
        # Each ridge has its own height: how weights spread can then be seen where they crowd in one bin elsewhere.
        ridge = place - OVERLAP * counts / max(counts.max(), 1)
        pale = 0.45 * np.array(to_rgb(colour)) + 0.55
        axes.fill_between(centres, ridge, place, facecolor=pale, edgecolor="none", zorder=place + 2)
        axes.plot(centres, ridge, color=colour, linewidth=1, zorder=place + 2)
        axes.plot([0, 1], [place, place], color="#bbbbbb", linewidth=0.6, zorder=place + 2)
        if counts.sum():
            mean = float((centres * counts).sum() / counts.sum())
            axes.plot([mean, mean], [place - 0.16, place + 0.16], color="black", linewidth=2, zorder=len(gates) + 2)
    shown = range(0, len(gates), 1 + len(gates) // 14)
    names = [short_gate(name) for name in gates]
    axes.set_yticks(list(shown), [shortened(names[place], 16) for place in shown], fontsize=8)
    axes.set_ylim(len(gates) - 0.5, -OVERLAP - 0.2)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _mark_unreachable(axes: Axes, reachable: tuple[float, float] | None) -> None:
    if reachable and reachable[0] > 0:
        axes.axvspan(0, reachable[0], facecolor="#f2f2f2", edgecolor="#d0d0d0", hatch="////", linewidth=0, zorder=0)
