"""What is done to maps before they are looked at or compared: brought to one scale and to the size of the image."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heedful.errors import unknown

SCALES = ("max", "min-max", "sum")


def normalised(maps: Float[Tensor, "batch *classes h w"], how: str = "max") -> Float[Tensor, "batch *classes h w"]:
    """Return every map divided by its maximum, stretched from its minimum to its maximum, or divided by its sum.

    A map without a positive maximum, extent or sum stays (min-max: becomes 0 everywhere). The gradient goes through the
    divisor.

    Args:
        maps: of any scale.
        how: "max", "min-max" or "sum".

    Raises:
        InputError: if it is none of them.
    """
    if how not in SCALES:
        raise unknown("scale", how, SCALES)
    if how == "min-max":
        maps = maps - maps.amin((-2, -1), keepdim=True)
    divisor = maps.sum((-2, -1), keepdim=True) if how == "sum" else maps.amax((-2, -1), keepdim=True)
    return maps / torch.where(divisor > 0, divisor, 1)


def upsampled(
    maps: Float[Tensor, "batch *classes h w"], size: tuple[int, int]
) -> Float[Tensor, "batch *classes height width"]:
    """Return the maps at the size (height, width), bilinear between the centres of their places."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, size, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)
