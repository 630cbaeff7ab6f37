"""A sheet of attacked images: each image, its attacked versions and their changes, with the class it passes for.

Changes are stretched from ±ε to black and white; grey is no change. A class that is the true one is framed.
"""

import io
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

Version = tuple[str, Float[Tensor, "images 3 height width"], Int64[Tensor, "images"]]
"""Title, pixels in [0, 1], and the class that the network takes each image for."""


def sheet(
    versions: Sequence[Version], labels: Int64[Tensor, "images"], epsilon: float, classes: Sequence[str] = ()
) -> bytes:
    """Return a PNG with a row for each image.

    Args:
        versions: the images as they are, then attacked.
        labels: the true classes.
        epsilon: greatest change of a pixel, in [0, 1].
        classes: names in the order of their numbers; a class beyond them is shown by its number.
    """
    from heedful.maps.sheet import Sheet, enlarged

    _, original, _ = versions[0]
    pictures = Sheet(2 * len(versions) - 1, len(original), original.shape[2] / original.shape[3])
    for row, label in enumerate(labels.tolist()):
        for number, (title, pixels, found) in enumerate(versions):
            name, is_right = _name(classes, int(found[row])), int(found[row]) == label
            text = title if number or is_right else f"{title} of {_name(classes, label)}"
            pictures.show(row, max(0, 2 * number - 1), enlarged(_grey_levels(pixels[row])), name, text, framed=is_right)
            if number:
                change = (pixels[row] - original[row]) / max(2 * epsilon, 1e-12) + 0.5
                pictures.show(row, 2 * number, enlarged(_grey_levels(change)), "its change", "")
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        pictures.figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    return content.getvalue()


def _grey_levels(pixels: Tensor) -> NDArray[np.uint8]:
    return (pixels.clamp(0, 1) * 255).round().permute(1, 2, 0).cpu().numpy().astype(np.uint8)


def _name(classes: Sequence[str], number: int) -> str:
    return " ".join(classes[number].split()) if number < len(classes) else str(number)
