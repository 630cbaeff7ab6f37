"""A batch norm that attention follows: its output carries its origin, so that training need not keep it.

`heedful.layers.product` says what the origin is for. The output is that of `nn.BatchNorm2d` to the bit.
"""

from typing import Any

import torch
from torch import Tensor, nn

from heedful.layers.product import Origin, remember
from heedful.layers.synchronised import is_synchronised
from heedful.surgery.mixing import Mixed


class Remembered(Mixed):
    """What an `nn.BatchNorm2d` becomes below its attention: it computes what it did, and the result has its origin."""

    def forward(self, u: Tensor) -> Tensor:
        """Return the batch norm of u; without its origin wherever that is not known to be right."""
        norm: Any = self
        if not _usual(norm, u):
            return super().forward(u)  # type: ignore[misc]
        fresh = not _seen(norm.attention)
        if not torch.is_grad_enabled():
            return remember(super().forward(u), Origin(fresh=fresh))  # type: ignore[misc]
        if norm.training:
            x, mean, inverse = _trained(norm, u)
        else:
            x, mean, inverse = super().forward(u), norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[misc]
        return remember(x, Origin((u, norm.weight, norm.bias, mean, inverse), norm.training, norm.eps, fresh))


def can_remember(module: nn.Module) -> bool:
    """Return whether this is a batch norm that computes as `nn.BatchNorm2d` does."""
    return isinstance(module, nn.BatchNorm2d) and type(module).forward is nn.BatchNorm2d.forward


def _usual(norm: nn.BatchNorm2d, u: Tensor) -> bool:
    """Return whether the norm has all its parts, and no compiler, tracer, transform or process has a part in it."""
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum)
    return (
        type(u) is Tensor
        and norm.track_running_stats
        and not [part for part in parts if part is None]
        and not is_synchronised()
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
    )


def _seen(attention: nn.Module) -> bool:
    """Return whether hooks see the maps that pass through the attention, whose memory must then not be used again."""
    hooked = [module for module in attention.modules() if module._forward_hooks or module._forward_pre_hooks]
    return bool(hooked) or bool(nn.modules.module._has_any_global_hook())  # type: ignore[no-untyped-call]


def _trained(norm: nn.BatchNorm2d, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `nn.BatchNorm2d.forward` does in training, and mean and 1 / deviation of each channel."""
    assert norm.momentum is not None
    norm._check_input_dim(u)
    nn.functional._verify_batch_size(list(u.shape))  # type: ignore[attr-defined]
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    x, mean, inverse, *_ = torch._batch_norm_impl_index(
        u,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        True,
        norm.momentum,
        norm.eps,
        torch.backends.cudnn.enabled,
    )
    return x, mean, inverse
