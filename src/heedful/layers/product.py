"""The product of a feature map and its mask, with which every attention layer ends, and what training keeps of it.

Autograd keeps x for the gradient of the mask in `x * mask`, a whole map that nothing else needs where x comes from a
batch norm, which keeps its own input u. Such an x carries its `Origin`, from which the gradient is computed instead.
The parts of x's gradient, from its product and its pools, are gathered and put together in one pass.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function


def weighted(
    x: Float[Tensor, "batch channels height width"],
    mask: Float[Tensor, "#batch #channels #height #width"],
    *,
    only_pooled: bool = False,
) -> Float[Tensor, "batch channels height width"]:
    """Return `x * mask`; x must not be used afterwards, since the result may take its memory.

    Args:
        x: feature maps (N, C, H, W).
        mask: weights that broadcast to it, e.g. (N, C, 1, 1) or (N, 1, H, W).
        only_pooled: whether x was given to nothing but the functions of `heedful.layers.pooling`, none of which keeps
            it, so that its memory is free in training too.
    """
    origin = origin_of(x)
    if origin is None or torch.result_type(x, mask) != x.dtype:
        return x * mask
    if not torch.is_grad_enabled():
        return remember(x.mul_(mask), origin) if origin.fresh else x * mask
    data = x.detach()
    result: Tensor = _Product.apply(origin.token(x), mask, data, origin, origin.fresh and only_pooled)
    if mask.shape[2:].numel() == 1:
        remember(result, Origin((*origin.tensors, mask), origin.training, origin.eps, origin.fresh))
    return result


@dataclass
class Origin:
    """How a feature map was made: `batch_norm(u) * masks`; it stands at the tensor while that is inside its module.

    Args:
        tensors: u (N, C, H, W), the norm's weight and bias, mean and 1 / deviation of each channel (C,), then the masks
            (N, C, 1, 1); nothing where no gradient is asked for.
        training: whether mean and deviation are those of u, not constants.
        eps: of the batch norm.
        fresh: whether nothing else sees the map, so that its memory and its gradient's can be used again.
    """

    tensors: tuple[Tensor, ...] = ()
    training: bool = False
    eps: float = 0.0
    fresh: bool = False
    parts: "Parts | None" = None
    _token: Tensor | None = None

    def token(self, x: Tensor) -> Tensor:
        """Return what stands for x in autograd's graph: its users leave their part of the gradient in `parts`."""
        if self._token is None:
            self.parts = Parts(x.shape, x.dtype, x.device)
            self._token = _Gather.apply(x, self.parts)
        assert self._token is not None
        return self._token


_ATTRIBUTE = "_heedful_origin"
_FREE = "_heedful_free"
"""Attribute of a gradient that was made here, for the next operation; unless the map is seen, nothing else has it."""


def origin_of(x: Tensor) -> Origin | None:
    """Return how this map was made, or None where that is not known (any more)."""
    if torch.compiler.is_compiling():
        return None
    origin, version = vars(x).get(_ATTRIBUTE, (None, 0))  # torch.fx's stand-ins for maps have any attribute
    return origin if origin is None or not origin.tensors or x._version == version else None


def remember(x: Tensor, origin: Origin) -> Tensor:
    """Let the map carry its origin, and return it."""
    setattr(x, _ATTRIBUTE, (origin, x._version if origin.tensors else 0))
    return x


def forget(x: Any) -> Any:
    """Take the origin off a map that leaves the module that made it, and return it."""
    if isinstance(x, Tensor) and not torch.compiler.is_compiling() and hasattr(x, _ATTRIBUTE):
        delattr(x, _ATTRIBUTE)
    return x


@dataclass
class Parts:
    """The parts of a map's gradient in one backward pass.

    Args:
        shape: of the map.
        dtype: likewise.
        device: likewise.
        product: gradient of the map's product, its mask, and memory that may take the result; None: it has none.
        shares: what is added everywhere: they broadcast to the map.
        peaks: dimension of (N, C, H W), places along it, and what is added there.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    product: tuple[Tensor, Tensor, Tensor | None] | None = None
    shares: list[Tensor] = field(default_factory=list)
    peaks: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    backward_pass: int = -1

    def now(self) -> "Parts":
        """Return self, less what an earlier backward pass left that did not reach the map."""
        if self.backward_pass != torch._C._current_graph_task_id():
            self.clear()
            self.backward_pass = torch._C._current_graph_task_id()
        return self

    def clear(self) -> None:
        """Drop all parts."""
        self.product, self.shares, self.peaks = None, [], []

    def total(self) -> Tensor:
        """Return the map's gradient."""
        gradient = self._dense()
        for dim, places, values in self.peaks:
            flat = gradient.flatten(2)  # a view
            # Not scatter_add, which is not deterministic on a GPU; no place occurs twice.
            values = flat.gather(dim, places) + values
            if torch.is_grad_enabled():
                gradient = flat.scatter(dim, places, values).view(self.shape)
            else:
                flat.scatter_(dim, places, values)
        return gradient

    def _dense(self) -> Tensor:
        share = sum(self.shares[1:], start=self.shares[0]) if self.shares else None
        if self.product is None:
            zeros = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
            return zeros if share is None else zeros + share
        gradient, mask, memory = self.product
        if share is None:
            return torch.mul(gradient, mask, out=memory)
        if memory is None and share.shape == mask.shape == (*gradient.shape[:2], 1, 1) and _on_cpu(gradient):
            return _linear(gradient, mask, share)
        if gradient.is_cuda:
            return torch.addcmul(share, gradient, mask, out=memory)
        return torch.mul(gradient, mask, out=memory).add_(share)  # quicker on a CPU


def _on_cpu(gradient: Tensor) -> bool:
    return gradient.is_cpu and gradient.is_contiguous() and not torch.is_grad_enabled()


def _linear(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return `scale * maps + shift`, both (N, C, 1, 1), in one pass: that of a batch norm of N C channels."""
    scale, shift = scale.flatten(), shift.flatten().to(scale.dtype)
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    channels = maps.view(1, -1, *maps.shape[2:])
    return torch.native_batch_norm(channels, scale, shift, zeros, ones, False, 0.0, 0.0)[0].view(maps.shape)


class _Gather(Function):
    """From a map to its token; backward, from the parts of the gradient to the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.parts = parts
        return x.new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor, None]:
        total = ctx.parts.now().total()
        ctx.parts.clear()
        setattr(total, _FREE, True)
        return total, None


class _Product(Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, mask: Tensor, x: Tensor, origin: Origin, overwrite: bool) -> Tensor:
        ctx.save_for_backward(mask, *origin.tensors)
        ctx.parts, ctx.origin = origin.parts, (origin.training, origin.eps, origin.fresh)
        if not overwrite:
            return x * mask
        ctx.mark_dirty(x)
        return x.mul_(mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mask, *tensors = ctx.saved_tensors
        training, eps, fresh = ctx.origin
        of_mask, memory = None, None
        if ctx.needs_input_grad[1]:
            if torch.is_grad_enabled():
                of_mask = (gradient * _made_again(tensors, training, eps)).sum_to_size(mask.shape)
            else:
                of_mask, memory = _gradient_of_mask(gradient, mask, tensors)
            of_mask = of_mask.to(mask.dtype)
        if ctx.needs_input_grad[0]:
            if fresh and not torch.is_grad_enabled() and getattr(gradient, _FREE, False):
                memory = gradient
            ctx.parts.now().product = (gradient, mask, memory)
        return None, of_mask, None, None, None


def _made_again(tensors: list[Tensor], training: bool, eps: float) -> Tensor:
    """Return the map, such that it can be differentiated."""
    u, weight, bias, mean, inverse, *masks = tensors
    if training:
        x = F.batch_norm(u, None, None, weight, bias, training=True, eps=eps)
    else:
        x = (u - _over_channels(mean)) * _over_channels(inverse * weight) + _over_channels(bias)
    return math.prod(masks, start=x.to(u.dtype))


def _gradient_of_mask(gradient: Tensor, mask: Tensor, tensors: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return the sum of `gradient * x` over the dimensions of the mask that have one entry; and memory to use again.

    x = scale * u + shift is not computed where the sum can be had from those of `gradient * u` and of the gradient.
    """
    u, weight, bias, mean, inverse, *masks = tensors
    if mask.shape[2:].numel() == 1:
        products, sums = _sums_over_places(gradient, u, mean, inverse)
        total = math.prod(masks, start=(weight * products).addcmul_(bias, sums)[:, :, None, None])
        return total.sum_to_size(mask.shape), None
    scale = weight * inverse
    shift = math.prod(masks, start=_over_channels(torch.addcmul(bias, mean, scale, value=-1)))
    scale = math.prod(masks, start=_over_channels(scale))
    if mask.shape[1] > 1:
        return (gradient * torch.addcmul(shift.to(u.dtype), u, scale.to(u.dtype))).sum_to_size(mask.shape), None
    products = gradient * u
    total = _over_all_channels(scale, products) + _over_all_channels(shift, gradient)
    return total.sum_to_size(mask.shape), products


def _sums_over_places(gradient: Tensor, u: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of `gradient * (u - mean) * inverse` and of the gradient, both (N, C)."""
    num_images, channels, height, width = u.shape
    if gradient.is_contiguous() and u.is_contiguous() and gradient.dtype == u.dtype:
        # Both at once, and without a map between: what the gradients of a batch norm's weight and bias are, if every
        # channel of every image is a channel of its own.
        shape = (1, num_images * channels, height, width)
        mean = mean.expand(num_images, -1).reshape(-1)
        inverse = inverse.expand(num_images, -1).reshape(-1)
        wanted = [False, True, True]
        _, products, sums = torch.ops.aten.native_batch_norm_backward(
            gradient.view(shape), u.view(shape), inverse, None, None, mean, inverse, True, 0.0, wanted
        )
        return products.view(num_images, channels), sums.view(num_images, channels)
    exact = torch.promote_types(u.dtype, torch.float32)
    sums = gradient.sum((2, 3), dtype=exact)
    return ((gradient * u).sum((2, 3), dtype=exact) - mean * sums) * inverse, sums


def _over_all_channels(weights: Tensor, maps: Tensor) -> Tensor:
    """Return the sum over the channels of weights (N or 1, C, 1, 1) times maps, (N, 1, H, W)."""
    num_images, channels = maps.shape[:2]
    rows = weights.to(maps.dtype).expand(num_images, channels, 1, 1).view(num_images, 1, channels)
    return torch.bmm(rows, maps.flatten(2)).view(num_images, 1, *maps.shape[2:])


def _over_channels(values: Tensor) -> Tensor:
    return values[None, :, None, None]
