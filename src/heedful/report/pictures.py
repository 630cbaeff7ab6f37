"""Pictures: Grad-CAM maps of every variant side by side (figure 2 of [L]), and the spatial masks on the same images.

[L] is Laakom et al., "Learning to ignore: rethinking attention in CNNs", BMVC 2021 (arXiv:2111.05684).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from heedful.maps.overlay import overlay, upsample
from heedful.report.evidence import Evidence
from heedful.report.figures import shortened, style
from heedful.report.grid import Grid

SMALLEST_SIDE = 128  # pixels; below, an image is enlarged by whole pixels, so that the map over it stays smooth
LEAST_RANGE = 0.05  # of a mask's colour scale: a mask that hardly varies shall look so
WRONG = "#c00000"


def attention(pictures: Mapping[str, Evidence], classes: Sequence[str], num_images: int = 6) -> Figure:
    """Draw test images (rows) with each variant's Grad-CAM map of the true class (columns).

    Under each map stands the probability of the true class; a wrong prediction is framed, crossed and named.

    Args:
        pictures: of one seed, by variant; at least one.
        classes: names, in the order of the labels.
        num_images: at most so many rows, the first ones.
    """
    first = next(iter(pictures.values()))
    num_rows = min(num_images, *(len(each.images) for each in pictures.values()))
    with style():
        grid = Grid(["image", *pictures], num_rows, _aspect(first))
        for row in range(num_rows):
            grid.show(
                row,
                0,
                _enlarged(first.images[row]),
                shortened(class_name(classes, int(first.labels[row])), grid.most_characters),
            )
            for column, each in enumerate(pictures.values(), start=1):
                picture = overlay(_enlarged(each.images[row]), each.maps[row])
                text = f"{100 * each.probabilities[row]:.0f} %"
                if each.labels[row] == each.predictions[row]:
                    grid.show(row, column, picture, text)
                else:
                    name = shortened(
                        class_name(classes, int(each.predictions[row])), grid.most_characters - len(text) - 4
                    )
                    grid.show(row, column, picture, f"✗ {name}, {text}", frame=WRONG)
        return grid.figure


def spatial_masks(evidence: Evidence, classes: Sequence[str], num_images: int = 4, num_depths: int = 3) -> Figure:
    """Draw test images (rows) with a variant's spatial masks at a few depths (columns).

    Each column has a colour scale, and under each mask stands its range of weights: masks can be nearly flat.

    Args:
        evidence: of a run with at least one spatial gate.
        classes: names, in the order of the labels.
        num_images: at most so many rows, the first ones.
        num_depths: at most so many gates: the first, the last and those evenly between.
    """
    gates = list(evidence.spatial)
    chosen = [gates[i] for i in sorted({round(i) for i in np.linspace(0, len(gates) - 1, num_depths)})]
    num_rows = min(num_images, len(evidence.images))
    with style():
        grid = Grid(["image", *map(short_gate, chosen)], num_rows, _aspect(evidence), with_scales=True)
        for row in range(num_rows):
            grid.show(
                row,
                0,
                _enlarged(evidence.images[row]),
                shortened(class_name(classes, int(evidence.labels[row])), grid.most_characters),
            )
        for column, gate in enumerate(chosen, start=1):
            masks = evidence.spatial[gate][:num_rows]
            low, high = float(masks.min()), float(masks.max())
            missing = max(0.0, LEAST_RANGE - (high - low)) / 2
            top = max(high, min(1.0, high + missing))  # weights relative to average pooling may be above 1
            colours = ScalarMappable(Normalize(max(0.0, low - missing), top), "viridis")
            for row, mask in enumerate(masks):
                picture = colours.to_rgba(upsample(mask, *_enlarged(evidence.images[row]).shape[:2]), bytes=True)
                grid.show(row, column, picture[..., :3], f"{mask.min():.3f} to {mask.max():.3f}")
            grid.scale(column, colours)
        return grid.figure


SHARED_WORDS = ("attention", "before", "channel", "spatial", "excitations")
"""Parts of names that tell gates of one network not apart."""


def short_gate(name: str) -> str:
    """Return a gate's place without the words that all gates share: "layer1.0.attention.channel" is "layer1.0"."""
    parts = [part for part in name.split(".") if part not in SHARED_WORDS]
    return ".".join(parts) or name


def class_name(classes: Sequence[str], label: int) -> str:
    """Return the class's name, or its number if it has none."""
    return classes[label] if 0 <= label < len(classes) else str(label)


def _aspect(evidence: Evidence) -> float:
    return evidence.images.shape[1] / evidence.images.shape[2]


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = -(-SMALLEST_SIDE // min(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
