"""The page's figures, each with a caption that tells how to read it and a text for whoever cannot see it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from heedful.report import alternatives, figures
from heedful.report.evidence import Evidence, of_one_seed, pictures
from heedful.report.figures import Look
from heedful.report.labels import thing
from heedful.report.pictures import attention, spatial_masks
from heedful.report.results import Group, curves
from heedful.report.tables import Comparison
from heedful.report.weights import channel_histograms, channel_weights

MOST_VARIANTS_A_GRID = 7  # columns of maps that stay legible at the page's width
NUM_IMAGES = 6


@dataclass(frozen=True)
class Picture:
    """An image of the page: its data URI, what it shows in words, its width in pixels, and what stands above it."""

    source: str
    alternative: str
    width: int
    label: str = ""


@dataclass(frozen=True)
class Part:
    """A titled part of a section: a caption that tells how to read the pictures, and these, to unfold if `folded`."""

    title: str
    caption: str
    pictures: list[Picture]
    folded: bool = False


def charts(group: Group, comparisons: list[Comparison], look: Mapping[str, Look]) -> list[Part]:
    """Return the group's charts: every seed, and the training curves where there are any."""
    several = any(comparison.error and comparison.error.num_seeds > 1 for comparison in comparisons)
    caption = "Left: a dot per seed, the line its mean" + (
        ", the bar the 95 % interval of the mean." if several else "."
    )
    if any(comparison.expected for comparison in comparisons):
        caption += " An empty diamond is the paper's value."
    caption += f" Right: the difference to {group.rows[0].label}, seed by seed"
    caption += "; its mean and 95 % interval are pale where it does not count as a difference." if several else "."
    chart = as_svg(figures.seeds(group, comparisons, look), alternatives.of_seeds(comparisons))
    return [Part("Every seed", caption, [chart]), *_training(group, look)]


def evidence(group: Group, look: Mapping[str, Look]) -> list[Part]:
    """Return the group's pictures, where its runs kept any: Grad-CAM maps, channel weights, spatial masks."""
    found = pictures(group)
    if not found:
        return []
    classes = next(run.data.get("classes", []) for row in group.rows for run in row.runs)
    seed, shown = of_one_seed(found)
    with_images = {label: each for label, each in shown.items() if len(each.images)}
    return [
        *([_attention(seed, with_images, classes)] if with_images else []),
        *_channels(group, found, look),
        *_masks(seed, with_images, classes),
    ]


def _training(group: Group, look: Mapping[str, Look]) -> list[Part]:
    if not any(curves(run) for row in group.rows for run in row.runs):
        return []
    caption = "Lines are means over the finished seeds, bands reach from the lowest to the highest seed."
    chart = as_svg(figures.training_curves(group, look), alternatives.of_curves(group))
    return [Part("Training", caption, [chart])]


def _attention(seed: int, shown: dict[str, Evidence], classes: Sequence[str]) -> Part:
    layer = next(iter(shown.values())).layer
    caption = (
        f"Grad-CAM of the true class at {layer}, seed {seed}, on the same test images for every variant: bright is "
        "what speaks for the class. Below each map, the probability of the true class; wrong predictions are framed "
        "and named."
    )
    labels = list(shown)
    grids = [
        {label: shown[label] for label in labels[start : start + MOST_VARIANTS_A_GRID]}
        for start in range(0, len(labels), MOST_VARIANTS_A_GRID)
    ]
    return Part(
        "What the networks heed",
        caption,
        [
            _png(attention(grid, classes, NUM_IMAGES), alternatives.of_attention(grid, classes, NUM_IMAGES))
            for grid in grids
        ],
    )


def _channels(group: Group, found: Mapping[str, Mapping[int, Evidence]], look: Mapping[str, Look]) -> list[Part]:
    histograms = {label: channel_histograms(list(by_seed.values())) for label, by_seed in found.items()}
    histograms = {label: gates for label, gates in histograms.items() if gates}
    if not histograms:
        return []
    caption = (
        f"How the attention layers weigh channels on test {thing(group.rows[0].settings)}s, all finished seeds, early "
        "layers on top; the tick is the mean. Left is ignored, right is kept; hatched weights are out of the gate's "
        "reach. Each ridge is as high as its fullest bin."
    )
    variants = {row.label: row.variant for row in group.rows}
    chart = as_svg(channel_weights(histograms, variants, look), alternatives.of_weights(histograms))
    return [Part("What is ignored: channels", caption, [chart])]


def _masks(seed: int, shown: Mapping[str, Evidence], classes: Sequence[str]) -> list[Part]:
    caption = (
        f"Masks that the spatial gates applied, seed {seed}. Below each mask its range: a mask may be nearly flat, so "
        "compare the colour scales before the colours. Dark is ignored, bright is kept."
    )
    return [
        Part(
            f"What is ignored: places, {label}",
            caption,
            [_png(spatial_masks(each, classes), alternatives.of_masks(label, each))],
        )
        for label, each in shown.items()
        if each.spatial
    ]


def as_svg(figure: Figure, alternative: str) -> Picture:
    """Return a chart as an image of the page."""
    return _picture("svg+xml", figures.svg(figure), figure, alternative)


def _png(figure: Figure, alternative: str) -> Picture:
    return _picture("png", figures.png(figure), figure, alternative)


def _picture(kind: str, content: bytes, figure: Figure, alternative: str) -> Picture:
    # As an image, and not inline: the charts' identifiers cannot meet, and nothing in them can be a script.
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(source, alternative, round(100 * figure.get_figwidth()))
