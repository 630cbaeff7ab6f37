"""Mean and maximum of a feature map over its places or its channels, cheap to train through.

Where the map carries its origin (see `heedful.layers.product`), neither keeps it for the backward pass: the mean keeps
nothing, the maximum the places at which it was found.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from heedful.layers.product import Origin, Parts, origin_of


def mean(
    x: Float[Tensor, "batch channels height width"], dims: tuple[int, ...], *, keepdim: bool = False
) -> Float[Tensor, "..."]:
    """Return `x.mean(dims)`.

    The gradient of a mean divides a tensor as large as x; that of a sum is a view, and the division is of its result.
    Half precision is summed in float32, as `mean` does inside.

    Args:
        x: feature maps (N, C, H, W).
        dims: (2, 3) for the mean over places, or (1,) over channels.
        keepdim: whether the dimensions stay, with one entry.
    """
    origin = _origin_for_gradient(x)
    if origin is None:
        return _mean(x, dims, keepdim)
    result: Tensor = _Pool.apply(origin.token(x), _mean(x.detach(), dims, keepdim), None, origin.parts, dims)
    return result


def maximum(
    x: Float[Tensor, "batch channels height width"], dims: tuple[int, ...], *, keepdim: bool = False
) -> Float[Tensor, "..."]:
    """Return `x.amax(dims)`; where the map carries its origin, one of equal entries gets the whole gradient.

    Args:
        x: feature maps (N, C, H, W).
        dims: (2, 3) for the maximum over places, or (1,) over channels.
        keepdim: whether the dimensions stay, with one entry.
    """
    origin = _origin_for_gradient(x)
    if origin is None:
        # amax, not adaptive_max_pool2d: deterministic on CUDA, and ties share the gradient as in the code of [L].
        return _halved(x, 16).amax(1).amax(1, keepdim) if dims == (1,) and _can_halve(x) else x.amax(dims, keepdim)
    values, places = _maximum_over_channels(x.detach()) if dims == (1,) else _maximum_over_places(x.detach())
    values = values if keepdim else values.squeeze(dims)
    result: Tensor = _Pool.apply(origin.token(x), values, places, origin.parts, dims)
    return result


class _Pool(Function):
    """Values that were pooled from the map with this token."""

    @staticmethod
    def forward(
        ctx: Any, token: Tensor, values: Tensor, places: Tensor | None, parts: Parts, dims: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(places)
        ctx.parts, ctx.dims = parts, dims
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        (places,) = ctx.saved_tensors
        parts = ctx.parts.now()
        shape = [1 if dim in ctx.dims else size for dim, size in enumerate(parts.shape)]
        if places is None:
            parts.shares.append(gradient.reshape(shape) / math.prod([parts.shape[dim] for dim in ctx.dims]))
        else:
            parts.peaks.append((ctx.dims[0], places, gradient.reshape(places.shape)))
        return None, None, None, None, None


def _origin_for_gradient(x: Tensor) -> Origin | None:
    origin = origin_of(x)
    return origin if origin is not None and torch.is_grad_enabled() and x.requires_grad else None


def _mean(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    exact = torch.promote_types(x.dtype, torch.float32)
    if dims == (1,) and _can_halve(x):
        total = _halved(x, 16).sum(1, dtype=exact).sum(1, keepdim)
    else:
        total = x.sum(dims, keepdim, dtype=exact)
    return (total / math.prod([x.shape[dim] for dim in dims])).to(x.dtype)


def _can_halve(x: Tensor) -> bool:
    return isinstance(x, Tensor) and not torch.compiler.is_compiling() and x.is_contiguous()


def _halved(x: Tensor, at_most: int) -> Tensor:
    """Return x with its channels in two dimensions: reduced one after the other, the memory is read in its order.

    Args:
        x: feature maps (N, C, H, W).
        at_most: entries of the second of the two, fewer where C cannot be divided so.
    """
    num_images, channels, height, width = x.shape
    divisor = _divisor(channels, at_most)
    return x.view(num_images, channels // divisor, divisor, height, width)


def _divisor(number: int, at_most: int) -> int:
    return max(divisor for divisor in range(1, at_most + 1) if number % divisor == 0)


# A maximum with its place takes the CPU several times as long as one without. Over many entries both functions look
# for the part that has it first, and for the place within that part only.


def _maximum_over_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima (N, 1, H, W), and the channels where they are, (N, 1, H W)."""
    if x.device.type != "cpu" or not _can_halve(x):
        values, places = x.max(1, keepdim=True)
        return values, places.flatten(2)
    halved = _halved(x, 64).flatten(3)
    column = halved.amax(1).max(1, keepdim=True).indices
    rows = halved.gather(2, column[:, None].expand(-1, halved.shape[1], -1, -1)).squeeze(2)
    values, row = rows.max(1, keepdim=True)
    return values.view(-1, 1, *x.shape[2:]), row * halved.shape[2] + column


def _maximum_over_places(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima (N, C, 1, 1), and the places where they are, (N, C, 1)."""
    flat = x.flatten(2)
    num_images, channels, num_places = flat.shape
    if x.device.type != "cpu" or not flat.is_contiguous() or num_places < 512:
        values, places = flat.max(2, keepdim=True)
        return values[..., None], places
    pieces = _divisor(num_places, 16)
    size = num_places // pieces
    piece = flat.view(-1, pieces, size).amax(2).max(1).indices
    values, place = flat.view(-1, size).index_select(0, torch.arange(0, len(piece) * pieces, pieces) + piece).max(1)
    shape = (num_images, channels, 1)
    return values.view(*shape, 1), (piece * size + place).view(shape)
