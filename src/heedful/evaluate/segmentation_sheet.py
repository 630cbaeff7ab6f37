"""A contact sheet of segmented images: the figure, what the network heeds, and what Otsu's threshold makes of it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from heedful.evaluate.figure_scores import CLASS_MAP, FUSED
from heedful.evaluate.localisation import above_otsu, jaccard
from heedful.maps.overlay import overlay, upsample

MOST_LEVELS = 3
OUTLINE = (0.2, 1.0, 0.4)
GREY, GREYED = 150.0, 0.85
"""What is taken for background is drawn towards this grey, by this much: neither dark nor white, as figures are."""

Map = Float[np.ndarray, "size size"]
Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class Row:
    """An image with its scores.

    Args:
        name: of its class folder.
        image: the pixels that the network saw.
        mask: the figure.
        levels: level -> scores of its mask.
        scores: the other scores, of which CLASS_MAP must be one.
    """

    name: str
    image: UInt8[np.ndarray, "size size 3"]
    mask: Bool[np.ndarray, "size size"]
    levels: Mapping[str, Map]
    scores: Mapping[str, Map]


def sheet(rows: Sequence[Row]) -> bytes:
    """Draw each image in a row, as PNG: the figure's outline, each level, what is binarised, the binary, and Grad-CAM.

    Of many levels the deepest are shown. Below each map stands its Jaccard index at Otsu's threshold.

    Args:
        rows: one or more, with the same scores.
    """
    from heedful.maps.sheet import Sheet

    pictures = [_pictures(row) for row in rows]
    drawn = Sheet(len(pictures[0]), len(rows), 1.0)
    for number, of_row in enumerate(pictures):
        for column, (name, text, picture) in enumerate(of_row):
            drawn.show(number, column, picture, name, text)
    content = io.BytesIO()
    drawn.figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    return content.getvalue()


def _pictures(row: Row) -> list[tuple[str, str, Picture]]:
    """Return name, text and picture of each column."""
    from heedful.maps.sheet import enlarged

    image = enlarged(row.image)
    main = FUSED if FUSED in row.scores else CLASS_MAP
    shown = dict(list(row.levels.items())[-MOST_LEVELS:]) | {main: row.scores[main]}
    maps = [(name, _agreement(scores, row.mask), overlay(image, scores)) for name, scores in shown.items()]
    binary = above_otsu(row.scores[main][None])[0]
    found = ("found", f"{100 * binary.mean():.0f} % of pixels", _outlined(_cut(image, binary), row.mask))
    rest = {} if main == CLASS_MAP else {CLASS_MAP: row.scores[CLASS_MAP]}
    others = [(name, _agreement(scores, row.mask), overlay(image, scores)) for name, scores in rest.items()]
    figure = (row.name, f"figure {100 * row.mask.mean():.0f} %", _outlined(image, row.mask))
    return [figure, *maps, found, *others]


def _agreement(scores: Map, mask: Bool[np.ndarray, "size size"]) -> str:
    if not mask.any():
        return "no figure"
    return f"Jaccard {jaccard(above_otsu(scores[None]), mask[None])[0]:.2f}"


def _cut(image: Picture, binary: Bool[np.ndarray, "size size"]) -> Picture:
    """Return the image with all but what was found greyed."""
    outside = ~_large(binary, image)
    greyed = image + (outside[..., None] * GREYED) * (GREY - image)
    return np.rint(greyed).astype(np.uint8)


def _outlined(image: Picture, mask: Bool[np.ndarray, "size size"]) -> Picture:
    from skimage.segmentation import mark_boundaries

    large = _large(mask, image)
    marked = mark_boundaries(image, large, color=OUTLINE, mode="thick")  # type: ignore[no-untyped-call]
    return np.rint(255 * marked).astype(np.uint8)


def _large(binary: Bool[np.ndarray, "size size"], image: Picture) -> Bool[np.ndarray, "height width"]:
    return upsample(binary.astype(np.float32), *image.shape[:2]) >= 0.5
