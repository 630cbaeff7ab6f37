"""What a detector sees in images, drawn: boxes in their classes' colours, and the masks that its FPN lays over them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, withStroke
from torch import Tensor, nn

from heedful.maps.overlay import overlay
from heedful.maps.processing import upsampled
from heedful.maps.sheet import FONT_SIZE, GAP, LINE, SOFT, TEXT, WIDTH, enlarged, shortened
from heedful.surgery.masks import record
from heedful.surgery.stages import SMALLEST_SIDE
from heedful.temporary import evaluation_mode

COLOURS = ("#ffd21f", "#33e6ff", "#ff6bd6", "#8cff5a", "#ff9d3d", "#9db8ff", "#ff6b61", "#ffffff")
"""Of classes, in turn: bright, since a dark rim stands around each line, so that it shows on dark and light pixels."""

RIM = "#101418"
MOST_NAMED = 12
"""Boxes of a picture whose tags have words; tags of more would hide what they are about."""

MASKS_A_ROW = 4
"""An FPN has four levels, or fewer."""

FPN = "backbone.fpn."
"""Where the gates are whose masks are shown."""

CONVOLUTIONS = {"inner": "lateral", "layer": "output"}
"""Of an FPN, in torchvision's words and in those of Lin et al., "Feature pyramid networks", CVPR 2017."""

LEGEND = 0.32  # inches, as all lengths here
TAG = 0.03  # from a box's corner to what stands in it
LONGEST_TAG = 0.8

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes in an image.

    Args:
        corners: left, top, right, bottom in pixels of the image.
        labels: class numbers from 0.
        scores: in [0, 1]; None: of true boxes, which have none.
    """

    corners: Float[np.ndarray, "count 4"]
    labels: Int[np.ndarray, "count"]
    scores: Float[np.ndarray, "count"] | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """What a detector sees in an image: boxes, and gate in its FPN -> weight of each pixel of the image."""

    boxes: Boxes
    masks: dict[str, Float[np.ndarray, "_ _"]]


def seen(model: nn.Module, image: Float32[Tensor, "3 _ _"], *, least_score: float) -> Seen:
    """Return what a detector sees in an image, in evaluation mode.

    Gates that weigh channels alone, as that of SE, or a convolution's weights, as that of AW, have no mask of pixels.
    Where each channel has a mask of its own, it is the mean.

    Args:
        model: a detector of `heedful.models.detection`.
        image: in [0, 1], on any device, of the size to which the detector scales it; see `scaled_size`.
        least_score: of the boxes that are kept, in [0, 1].
    """
    detector: Any = model
    alone = [image.to(next(model.parameters()).device)]
    with evaluation_mode(model), torch.inference_mode(), record(model) as kept:
        (found,) = model(alone)
        padded, _ = detector.transform(alone)
    masks = {name.removeprefix(FPN): kept[name] for name in kept.names() if name.startswith(FPN)}
    with_places = {site: m for site, m in masks.items() if m.ndim == 4 and min(m.shape[2:]) >= SMALLEST_SIDE}
    return Seen(_sure(found, least_score), {site: _over(m, padded) for site, m in with_places.items()})


def _over(mask: Float32[Tensor, "1 _ _ _"], padded: Any) -> Float32[np.ndarray, "_ _"]:
    """Return a mask over the pixels of the image, which the detector padded below and on the right."""
    ((height, width),) = padded.image_sizes
    return upsampled(mask.mean(1), tuple(padded.tensors.shape[2:]))[0, :height, :width].numpy()


def _sure(prediction: Mapping[str, Tensor], least_score: float) -> Boxes:
    kept = prediction["scores"] >= least_score
    boxes, labels, scores = (prediction[name][kept].cpu().numpy() for name in ("boxes", "labels", "scores"))
    return Boxes(boxes, labels - 1, scores)


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a figure: pixels, boxes on them, and two lines of words below."""

    picture: Picture
    name: str
    text: str
    boxes: Boxes | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """Pictures of one image side by side, each as wide as if there were `num_columns` of them."""

    panels: Sequence[Panel]
    num_columns: int

    @property
    def side(self) -> float:
        """Width of a picture and the gap beside it."""
        return (WIDTH - GAP) / self.num_columns

    @property
    def height(self) -> float:
        """Of the pictures, without the words."""
        height, width = self.panels[0].picture.shape[:2]
        return (self.side - GAP) * height / width


def to_pixels(image: Float32[Tensor, "3 height width"]) -> Picture:
    """Return an image in [0, 1] as pixels."""
    return (255 * image).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def detections(picture: Picture, boxes: Boxes, least_score: float) -> Panel:
    """Return a picture of what was found."""
    return Panel(picture, f"found: {len(boxes.labels)}", f"of score {least_score:g} or more", boxes)


def mask_rows(picture: Picture, masks: Mapping[str, np.ndarray]) -> list[Row]:
    """Return a row of the lateral masks of one image and one of the others, each stretched from least to greatest.

    Args:
        picture: 0 to 255.
        masks: gate -> weights, over the whole picture.
    """
    image = enlarged(picture)
    rows = []
    for _, sites in groupby(masks, lambda site: site.partition(".")[0]):
        panels = [_weighed(image, site, masks[site]) for site in sites]
        rows += [Row(panels[n : n + MASKS_A_ROW], MASKS_A_ROW) for n in range(0, len(panels), MASKS_A_ROW)]
    return rows


def _weighed(image: Picture, site: str, mask: np.ndarray) -> Panel:
    return Panel(overlay(image, mask - mask.min()), _in_words(site), f"{mask.min():.2g} to {mask.max():.2g}")


def _in_words(site: str) -> str:
    """Return "lateral 2 spatial" for inner_blocks.2.0.before.spatial; level 0 is the finest."""
    match = re.fullmatch(r"(inner|layer)_blocks\.(\d+)\.(?:.*\.)?(\w+)", site)
    return site if match is None else f"{CONVOLUTIONS[match[1]]} {match[2]} {match[3]}"


def drawn(rows: Sequence[Row], classes: Sequence[str]) -> Figure:
    """Draw rows of pictures below each other, with a legend of the classes that occur.

    A box's tag has its class and score; the score alone, in percent, where a picture has more boxes than MOST_NAMED,
    unless there are more classes than COLOURS, which then stand for several each and have no legend.

    Args:
        rows: at least one.
        classes: names of the labels.
    """
    boxes = [panel.boxes for row in rows for panel in row.panels if panel.boxes is not None]
    shown = sorted({label for each in boxes for label in each.labels.tolist()})
    tags = Tags(classes, max([len(each.labels) for each in boxes], default=0) <= MOST_NAMED, len(shown) > len(COLOURS))
    top = GAP + (LEGEND if shown and not tags.must_name else 0)
    height = top + sum(row.height + TEXT for row in rows)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    figure.set_layout_engine("none")
    axes: Axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    _legend(axes, [] if tags.must_name else shown, classes)
    for row in rows:
        for column, panel in enumerate(row.panels):
            _place(axes, panel, GAP + column * row.side, top, row, tags)
        top += row.height + TEXT
    return figure


@dataclass(frozen=True)
class Tags:
    """What stands in the boxes of a figure: of few boxes all, of many the score, and the class where colours repeat."""

    classes: Sequence[str]
    few: bool
    must_name: bool

    @property
    def size(self) -> float:
        """In points."""
        return 7 if self.few else 6

    def of(self, boxes: Boxes) -> list[str]:
        """Return the words of each box."""
        names = [self.classes[label] if self.few or self.must_name else "" for label in boxes.labels.tolist()]
        if boxes.scores is None:
            return names
        scores = [f"{score:.2f}" if self.few else f"{100 * score:.0f}" for score in boxes.scores.tolist()]
        return [f"{name} {score}".strip() for name, score in zip(names, scores, strict=True)]


def _legend(axes: Axes, shown: Sequence[int], classes: Sequence[str]) -> None:
    """Name the colours along the top."""
    width = (WIDTH - GAP) / max(len(shown), 4)
    for place, label in enumerate(shown):
        left = GAP + place * width
        box = Rectangle((left, GAP), LINE, LINE, facecolor=_colour(label), edgecolor=RIM, linewidth=1)
        axes.add_patch(box)
        axes.text(left + LINE + 0.06, GAP + LINE / 2, shortened(classes[label], width - LINE - 0.1), va="center",
                  fontsize=FONT_SIZE, parse_math=False)  # fmt: skip


def _place(axes: Axes, panel: Panel, left: float, top: float, row: Row, tags: Tags) -> None:
    width, height = row.side - GAP, row.height
    axes.imshow(panel.picture, extent=(left, left + width, top + height, top), aspect="auto")
    for line, (text, colour) in enumerate(((panel.name, "black"), (panel.text, SOFT))):
        axes.text(left, top + height + 0.06 + line * LINE, shortened(text, width), va="top", fontsize=FONT_SIZE,
                  color=colour, parse_math=False)  # fmt: skip
    if panel.boxes is not None:
        scale = width / panel.picture.shape[1]
        places = panel.boxes.corners * scale + np.array([left, top, left, top])
        for label, tag, place in zip(panel.boxes.labels.tolist(), tags.of(panel.boxes), places.tolist(), strict=True):
            _draw(axes, place, tag, _colour(label), tags.size, left + width)


def _draw(axes: Axes, place: Sequence[float], tag: str, colour: str, size: float, edge: float) -> None:
    """Draw a box, its tag in the upper corner on the left, or on the right where the picture soon ends."""
    left, top, right, bottom = place
    rim = [withStroke(linewidth=2.2, foreground=RIM), Normal()]
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, path_effects=rim))
    at_edge = edge - left < LONGEST_TAG
    if tag:
        axes.text(right - TAG if at_edge else left + TAG, top + TAG, tag, va="top", ha="right" if at_edge else "left",
                  fontsize=size, color=colour, parse_math=False,
                  bbox={"facecolor": RIM, "alpha": 0.7, "pad": 0.8, "linewidth": 0})  # fmt: skip


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]
