"""Augmentation of whole batches where they lie, CPU or GPU: no loop over images, no worker processes.

Each function takes uint8 images and a generator on their device, draws what it needs for every image at once, and
returns new images; the same seed gives the same result.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from heedful.errors import unknown

Images = UInt8[Tensor, "batch channels height width"]


def flip(images: Images, generator: torch.Generator) -> Images:
    """Return the images, each mirrored left to right with probability 1/2."""
    count = len(images)
    mirrored = torch.rand(count, generator=generator, device=images.device) < 0.5
    # Picking from both copies moves whole images; torch.where, pixel by pixel, takes three times as long.
    both = torch.cat([images, images.flip(3)])
    return both.index_select(0, torch.arange(count, device=images.device) + count * mirrored)


def shift(images: Images, generator: torch.Generator, fraction: float = 1 / 8, fill: str = "edge") -> Images:
    """Return the images, each moved by a whole number of pixels of its own, down and across.

    Args:
        images: uint8, 0 to 255.
        generator: on the images' device.
        fraction: the farthest move, in either direction, as a fraction of the image's side (rounded down to pixels);
            the default, 4 pixels of 32, is that of He et al., "Deep residual learning" (2016).
        fill: what comes in at the border: "edge" repeats the border's pixels, "zero" is black.

    Raises:
        InputError: if fill is neither.
    """
    if fill not in ("edge", "zero"):
        raise unknown("fill", fill, ("edge", "zero"))
    count, _, height, width = images.shape
    reach_down, reach_right = int(fraction * height), int(fraction * width)
    draw = partial(torch.randint, size=(count, 1), generator=generator, device=images.device)
    down, right = draw(-reach_down, reach_down + 1), draw(-reach_right, reach_right + 1)
    rows = torch.arange(height, device=images.device) - down
    if fill == "zero":
        padded = F.pad(images, (reach_right, reach_right, reach_down, reach_down))
        return _windows(padded, rows + reach_down, reach_right - right, width)
    left, last = images[..., :1], images[..., -1:]
    padded = torch.cat([left.expand(-1, -1, -1, reach_right), images, last.expand(-1, -1, -1, reach_right)], dim=3)
    return _windows(padded, rows.clamp(0, height - 1), reach_right - right, width)


def _windows(
    images: Images, rows: Int64[Tensor, "batch rows"], left: Int64[Tensor, "batch 1"], num_columns: int
) -> UInt8[Tensor, "batch channels rows columns"]:
    """Return the given rows of each image, each from the image's own left column on.

    A row of the result lies in memory in one piece, so it is copied as one: a gather, pixel by pixel, takes half as
    long again.
    """
    count, channels, full_height, full_width = images.shape
    pixels = images.reshape(-1)
    pieces = pixels.as_strided((len(pixels) - num_columns + 1, num_columns), (1, 1))
    planes = torch.arange(count * channels, device=images.device).view(count, channels, 1) * full_height
    starts = (planes + rows.unsqueeze(1)) * full_width + left.unsqueeze(1)
    return pieces.index_select(0, starts.view(-1)).view(count, channels, rows.shape[1], num_columns)


def crop(images: Images, generator: torch.Generator, smallest: float = 0.6) -> Images:
    """Return of each image a window of random size at a random place, scaled back to the image's size (bilinear).

    Args:
        images: uint8, 0 to 255.
        generator: on the images' device.
        smallest: the window's side is drawn between this and 1, as a fraction of the image's.
    """
    count, device = len(images), images.device
    side = smallest + (1 - smallest) * torch.rand(count, 1, generator=generator, device=device)
    # Coordinates run from -1 to 1, so a window of this side has its centre within ±(1 - side).
    centre = (1 - side) * (2 * torch.rand(count, 2, generator=generator, device=device) - 1)
    transform = torch.cat([torch.diag_embed(side.expand(-1, 2)), centre.unsqueeze(2)], dim=2)
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    cropped = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return cropped.round_().to(torch.uint8)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "flip": flip,
    "shift": shift,
    "shift-zero": partial(shift, fill="zero"),
    "crop": crop,
}


def check_names(names: tuple[str, ...]) -> None:
    """Raise an InputError if a name is not among AUGMENTATIONS."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
