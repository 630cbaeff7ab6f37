"""A map laid over its image, as colours: for people to look at."""

import numpy as np
from jaxtyping import Float, UInt8

from heedful.errors import InputError

COLOUR_MAP = "inferno"  # dark to bright in every kind of colour vision, and in print


def upsample(
    values: Float[np.ndarray, "map_height map_width"], height: int, width: int
) -> Float[np.ndarray, "{height} {width}"]:
    """Return a map or mask at an image's size, float32, bilinear between the centres of its places.

    Args:
        values: any numbers.
        height: in pixels.
        width: in pixels.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    attention_map: Float[np.ndarray, "map_height map_width"],
    opacity: float = 0.5,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the image with a map over it: dark where the map is 0 or negative, bright at its maximum.

    The map is divided by its maximum, so that overlays show where, not how much; one without a positive value is all 0.

    Args:
        image: 0 to 255.
        attention_map: of any scale; values below 0 count as 0.
        opacity: of the map's colours, in [0, 1].

    Raises:
        InputError: if the map is not finite or opacity is outside [0, 1].
    """
    from matplotlib import colormaps

    if not 0 <= opacity <= 1:
        raise InputError(f"overlay: opacity is {opacity!r}, but it must be in [0, 1]")
    if not np.isfinite(attention_map).all():
        raise InputError("overlay: attention_map holds NaN or infinite values: compute it in float32")
    positive = np.maximum(attention_map.astype(np.float32), 0)
    maximum = positive.max()
    # Divided before it is enlarged: the maximum is the map's own, whatever the image's size.
    heat = upsample(positive / maximum if maximum > 0 else positive, *image.shape[:2])
    colours = 255 * colormaps[COLOUR_MAP](heat)[..., :3]
    return np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
