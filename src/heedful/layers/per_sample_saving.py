"""Convolution with a kernel of its own for each image that saves little for the backward pass, and is quick on a CPU.

Each function saves its inputs (the map, the shared kernel, the small scale) and computes the rest again, but for
products on small maps, which would cost more to repeat than they weigh. Where gradients are themselves differentiated,
the forms of `heedful.layers.per_sample_plain` are.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heedful.layers import per_sample_plain as plain
from heedful.layers import per_sample_taps as places_last
from heedful.layers.per_sample_geometry import Geometry

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, None]
Form = Callable[[Tensor, Tensor, Tensor, Geometry], Tensor]

PLACES_KEPT = 196
"""Places of an input map up to which products are kept for the backward pass.

In ResNet-50 at 224 pixels this saves 14 % more than the plain network does; one stage more would be 30 %.
"""


class Output(torch.autograd.Function):
    """One convolution whose output is scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
        """Return y."""
        product = _convolution(x, weight, geometry)
        _save(ctx, x, weight, scale, geometry, [product])
        return product * scale[:, :, 0]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        """Return the gradients of map, kernel and scale."""
        x, weight, scale, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return derived(plain.output, x, weight, scale, ctx.geometry, g)
        of_scale = None
        if ctx.needs_input_grad[2]:
            product = kept[0] if kept else _convolution(x, weight, ctx.geometry)
            of_scale = (g * product).sum((2, 3)).view_as(scale)
        needs = ctx.needs_input_grad
        of_x, of_weight = _convolution_gradients(g * scale[:, :, 0], x, weight, ctx.geometry, needs[0], needs[1])
        return of_x, of_weight, of_scale, None


class Grouped(torch.autograd.Function):
    """One grouped convolution, each image a group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
        """Return y."""
        _save(ctx, x, weight, scale, geometry, [])
        return plain.grouped(x, weight, scale, geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        """Return the gradients of map, kernel and scale."""
        x, weight, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            return derived(plain.grouped, x, weight, scale, ctx.geometry, g)
        needs = ctx.needs_input_grad
        kernels = plain.own_kernels(weight, scale)
        of_x, of_kernels = _convolution_gradients(g, x, kernels, ctx.geometry, needs[0], needs[1] or needs[2])
        if of_kernels is None:
            return of_x, None, None, None
        return of_x, *_split(of_kernels, weight, scale), None


class Taps(torch.autograd.Function):
    """The sum over taps, channels last; for one group and a scale with one block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
        """Return y."""
        y, products = places_last.forward(x, weight, _by_tap(scale, geometry), geometry)
        _save(ctx, x, weight, scale, geometry, products)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        """Return the gradients of map, kernel and scale."""
        x, weight, scale, *products = ctx.saved_tensors
        if torch.is_grad_enabled():
            return derived(plain.taps, x, weight, scale, ctx.geometry, g)
        of_x, of_weight, of_scale = places_last.backward(
            g, x, weight, _by_tap(scale, ctx.geometry), products, ctx.geometry, ctx.needs_input_grad
        )
        if of_scale is not None:
            of_scale = of_scale.permute(0, 3, 1, 2).unsqueeze(2).sum_to_size(scale.shape)
        return of_x, of_weight, of_scale, None


def derived(form: Form, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry, g: Tensor) -> Gradients:
    """Return gradients that can be differentiated again."""
    # Views, so that the gradient ends at them: the scale may itself have been computed from the map.
    x, weight, scale = inputs = [tensor.view_as(tensor) for tensor in (x, weight, scale)]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(form(x, weight, scale, geometry), wanted, g, create_graph=True))
    of_x, of_weight, of_scale = [next(found) if tensor.requires_grad else None for tensor in inputs]
    return of_x, of_weight, of_scale, None


def _save(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry, products: list[Tensor]) -> None:
    kept = products if ctx.needs_input_grad[2] and x.shape[2:].numel() <= PLACES_KEPT else []
    ctx.save_for_backward(x, weight, scale, *kept)
    ctx.geometry = geometry


def _by_tap(scale: Tensor, geometry: Geometry) -> Tensor:
    """Return a scale with one block as (N, h, w, C2)."""
    return scale[:, :, 0].expand(-1, -1, *geometry.kernel).permute(0, 2, 3, 1).contiguous()


def _convolution(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    padded, padding = geometry.padded(x)
    return F.conv2d(padded, weight, None, geometry.stride, padding, geometry.dilation, geometry.groups)


def _convolution_gradients(
    g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, needs_x: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of map and kernel, for a kernel of all images or, with five dimensions, one of each."""
    own = weight.dim() == 5
    if own and needs_x and max(geometry.stride) > 1 and x.device.type == "cpu":
        # oneDNN brings what it has for a strided convolution from channels last, slowly where channels are many.
        alone = zip(torch.split(g, 1), torch.split(x, 1), weight, strict=True)
        of_images = [_convolution_gradients(*image, geometry, True, False)[0] for image in alone]
        together = torch.cat([image for image in of_images if image is not None])
        return together, _convolution_gradients(g, x, weight, geometry, False, needs_weight)[1]
    padded, padding = geometry.padded(x)
    arguments = [plain.as_groups(g), plain.as_groups(padded), weight.flatten(0, 1)] if own else [g, padded, weight]
    of_padded, of_weight, _ = torch.ops.aten.convolution_backward(
        *arguments, None, geometry.stride, padding, geometry.dilation, False, (0, 0),
        geometry.groups * (x.shape[0] if own else 1), (needs_x, needs_weight, False),
    )  # fmt: skip
    of_x = _without_padding(of_padded.view(padded.shape), x, padding, geometry) if needs_x else None
    return of_x, of_weight.view(weight.shape) if needs_weight else None


def _without_padding(of_padded: Tensor, x: Tensor, left_over: tuple[int, int], geometry: Geometry) -> Tensor:
    top, left = geometry.padding[0] - left_over[0], geometry.padding[2] - left_over[1]
    return of_padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def _split(of_kernels: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the shared kernel and of the scale from those of the images' kernels."""
    blocks = scale.shape[2]
    of_kernels, shared = torch.unflatten(of_kernels, 2, (blocks, -1)), torch.unflatten(weight, 1, (blocks, -1))
    factors = scale.unsqueeze(3)
    of_weight = (of_kernels * factors).sum(0).flatten(1, 2)
    return of_weight, (of_kernels * shared).sum(3).sum_to_size(scale.shape)
