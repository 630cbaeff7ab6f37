"""One image file → a square of RGB pixels; and uint8 arrays resized in batches."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn import functional as F

from heedful.errors import InputError

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

LARGEST_DECODED = 2**30 // 12
"""Pixels that an image may have when it is decoded: a quarter of a gigabyte of RGB, above which Pillow warns."""

JPEG_START = b"\xff\xd8\xff"


def read_rgb(path: Path, smallest_side: int) -> Image.Image:
    """Return the picture that a file shows: upright, RGB, every byte of it decoded.

    Args:
        path: the file; of an animation the first frame is taken.
        smallest_side: in pixels; a larger JPEG may be decoded at 1/2, 1/4 or 1/8, but no smaller than this: so one of
            20,000 × 20,000 pixels can be read, where other formats, and progressive JPEGs, are held whole.

    Raises:
        InputError: if more pixels than `LARGEST_DECODED` would have to be decoded.
        Exception: whatever Pillow raises on bytes that are not an image, or not a whole one.
    """
    with opened(path) as image:
        num_held = image.width * image.height if image.info.get("progressive") else 0  # whole, whatever is drafted
        image.draft("RGB", (smallest_side, smallest_side))
        if max(num_held, image.width * image.height) > LARGEST_DECODED:
            raise _too_large(path)
        return _to_rgb(ImageOps.exif_transpose(image))


def opened(path: Path) -> ImageFile.ImageFile:
    """Open an image without decoding it.

    Raises:
        InputError: if it is too large for Pillow, and not a JPEG.
        Exception: whatever Pillow raises on bytes that are not an image.
    """
    with path.open("rb") as file:
        is_jpeg = file.read(3) == JPEG_START
    if is_jpeg:
        # Image.open refuses large images before one can ask for fewer of their pixels.
        return JpegImageFile(path)
    try:
        return Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error


def _too_large(path: Path) -> InputError:
    return InputError(
        f"{path.name} has more than the {LARGEST_DECODED // 10**6} million pixels that are decoded: save it smaller, "
        "or as a JPEG that is not progressive, which can be decoded at an eighth of its size"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips at 255 and shows white.
        grey = np.asarray(image, dtype=np.float32).clip(0, 65535) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("RGB")


def read_square(path: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Return the picture's middle square, scaled (bilinear, antialiased) to size × size pixels.

    Raises:
        Exception: as `read_rgb`.
    """
    # Twice the size leaves the antialiasing something to average: Pillow's own `reducing_gap` of 2.
    image = ImageOps.fit(read_rgb(path, 2 * size), (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(image)


def to_channels_first(
    images: UInt8[np.ndarray, "count height width 3"] | UInt8[np.ndarray, "count height width"],
) -> UInt8[Tensor, "count 3 height width"]:
    """Return images, grey or RGB, as a tensor with three channels."""
    if images.ndim == 3:
        return torch.from_numpy(images).unsqueeze(1).repeat(1, 3, 1, 1)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def resize(images: UInt8[Tensor, "count 3 height width"], size: int) -> UInt8[Tensor, "count 3 size size"]:
    """Return the images' middle squares, scaled (bilinear, antialiased) to size × size pixels."""
    height, width = images.shape[2:]
    if height == width == size:
        return images
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[:, :, top : top + side, left : left + side]
    # In batches: the whole set at once would need several copies of itself.
    scaled = [
        F.interpolate(batch, (size, size), mode="bilinear", antialias=True) for batch in torch.split(squares, 1024)
    ]
    return torch.cat(scaled)


def check_image_size(image_size: int | None) -> None:
    """Raise an InputError if images of that side could not be used."""
    if image_size is not None and not 8 <= image_size <= 4096:
        raise InputError(f"image_size is {image_size}, but it must be from 8 to 4096 pixels, for example 32 or 224")


def moments(image: UInt8[np.ndarray, "height width 3"]) -> NDArray[np.float64]:
    """Return mean and mean square per channel, (2, 3), of the image's values in [0, 1]."""
    pixels = image.reshape(-1, 3) / 255
    return np.stack([pixels.mean(axis=0), (pixels**2).mean(axis=0)])
