"""Parts of the page about evaluations: their curves, a panel for each line, and their pictures, variant by variant."""

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from heedful.report.figures import WIDTH, Look, legend_columns, style
from heedful.report.found import Curves, Evaluated, Evaluation, Question, evaluated
from heedful.report.numbers import listed
from heedful.report.parts import Part, Picture, as_svg
from heedful.report.results import Group

MOST_PANELS_A_ROW = 3
PIXELS = 1.5  # of a picture, for one of the page


def evaluations(group: Group, look: Mapping[str, Look]) -> list[Part]:
    """Return the curves and pictures of a group's evaluations, where its runs have any."""
    everything = evaluated(group)
    return [
        part
        for question in everything.questions
        for part in (*_curves(question, everything, look), *_pictures(question, everything))
    ]


def lines(found: Mapping[str, Sequence[Curves]], look: Mapping[str, Look]) -> Figure:
    """Draw curves, a panel for each of their lines: the mean of the seeds, and a band from the lowest to the highest.

    Args:
        found: label -> the curves of its seeds, all with the same title and axis; at least one.
        look: of the labels.
    """
    first = next(iter(found.values()))[0]
    names = list(dict.fromkeys(name for seeds in found.values() for curves in seeds for name in curves.lines))
    num_columns = min(len(names), MOST_PANELS_A_ROW)
    num_rows = math.ceil(len(names) / num_columns)
    with style():
        figure = Figure(figsize=(WIDTH, 0.8 + 2.9 * num_rows))
        panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
        for axes, name in zip(panels.flat, names, strict=False):
            for label, seeds in found.items():
                _draw(axes, [c for c in seeds if name in c.lines and c.x == first.x], name, label, look[label])
            axes.set(title=name, xlabel=first.x_name)
            axes.grid()
        for axes in panels.flat[len(names) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel(first.y_name)
        handles, labels = _legend(panels.flat)
        figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels))
        return figure


def described(found: Mapping[str, Sequence[Curves]]) -> str:
    """Say in words what `lines` draws: where each line ends."""
    first = next(iter(found.values()))[0]
    ends = []
    for name in first.lines:
        means = [
            f"{label} {np.mean([curves.lines[name][-1] for curves in seeds if name in curves.lines]):.2f}"
            for label, seeds in found.items()
            if any(name in curves.lines for curves in seeds)
        ]
        ends.append(f"{name}: {listed(means)}")
    return f"{first.title}: {first.y_name} by {first.x_name}. At {first.x[-1]:g}, mean of the seeds: {'; '.join(ends)}."


def _draw(axes: Axes, seeds: Sequence[Curves], name: str, label: str, look: Look) -> None:
    if not seeds:
        return
    colour, dash, marker = look
    values, x = np.array([curves.lines[name] for curves in seeds]), seeds[0].x
    axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, values.mean(0), color=colour, linestyle=dash, marker=marker, markersize=4, linewidth=1.6, label=label)


def _legend(panels: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """Return the handles and labels of all panels, each variant once."""
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    return list(entries.values()), list(entries)


def _curves(question: Question, everything: Evaluated, look: Mapping[str, Look]) -> list[Part]:
    found = everything.of(question)
    titles = dict.fromkeys(c.title for seeds in found.values() for each in seeds.values() for c in each.curves)
    parts = []
    for title in titles:
        of_title = {label: [c for e in seeds.values() for c in e.curves if c.title == title]
                    for label, seeds in found.items()}  # fmt: skip
        drawn = {label: curves for label, curves in of_title.items() if curves}
        caption = "Lines are means over the finished seeds, bands reach from the lowest to the highest seed."
        parts.append(
            Part(f"{title}: {everything.title(question)}", caption, [as_svg(lines(drawn, look), described(drawn))])
        )
    return parts


def _pictures(question: Question, everything: Evaluated) -> list[Part]:
    found = everything.of(question)
    names = dict.fromkeys(name for seeds in found.values() for each in seeds.values() for name in each.pictures)
    parts = []
    for name in names:
        seed, shown = _of_one_seed(name, found)
        pictures = [_png(path, label, f"{name} of {label}, seed {seed}: {everything.title(question)}.")
                    for label, path in shown.items()]  # fmt: skip
        title = everything.title(question) + ("" if name == question.protocol else f": {name}")
        parts.append(Part(title[0].upper() + title[1:], f"Seed {seed}, variant by variant.", pictures, folded=True))
    return parts


def _of_one_seed(name: str, found: Mapping[str, Mapping[int, Evaluation]]) -> tuple[int, dict[str, Path]]:
    """Return the first seed of which most variants have this picture, and their files."""
    seeds = sorted({seed for by_seed in found.values() for seed in by_seed})
    of_seeds = {
        seed: {label: by_seed[seed].pictures[name] for label, by_seed in found.items()
               if seed in by_seed and name in by_seed[seed].pictures}
        for seed in seeds
    }  # fmt: skip
    best = max(seeds, key=lambda seed: len(of_seeds[seed]))
    return best, of_seeds[best]


def _png(path: Path, label: str, alternative: str) -> Picture:
    content = path.read_bytes()
    (width,) = struct.unpack(">I", content[16:20])
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Picture(source, alternative, min(round(width / PIXELS), round(100 * WIDTH)), label)
