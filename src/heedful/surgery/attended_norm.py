"""A batch norm that is followed by attention: its output carries its origin, so that it need not be kept for training.

`heedful.layers.product` says what the origin is for. The output is that of `nn.BatchNorm2d` to the bit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heedful.layers.product import Origin, remember
from heedful.surgery.mixing import Mixed


class Remembered(Mixed):
    """What a batch norm becomes below its attention: the same computation, and the origin with its result."""

    def forward(self, u: Tensor) -> Tensor:
        """Return the batch norm of u; without an origin wherever that is not certain to be right."""
        assert isinstance(self, nn.BatchNorm2d)
        if not _usual(self, u):
            return super().forward(u)
        fresh = not _seen(self.attention)  # type: ignore[arg-type]
        if not torch.is_grad_enabled():
            return remember(super().forward(u), Origin(fresh=fresh))
        if self.training:
            x, mean, inverse = _trained(self, u)
        else:
            x, mean, inverse = super().forward(u), self.running_mean, torch.rsqrt(self.running_var + self.eps)  # type: ignore[operator]
        return remember(x, Origin((u, self.weight, self.bias, mean, inverse), self.training, self.eps, fresh))  # type: ignore[arg-type]


def can_remember(module: nn.Module) -> bool:
    """Return whether this is a batch norm that computes as `nn.BatchNorm2d` does."""
    return isinstance(module, nn.BatchNorm2d) and type(module).forward is nn.BatchNorm2d.forward


def _usual(norm: nn.BatchNorm2d, u: Tensor) -> bool:
    """Return whether nothing but the plain computation is asked for: no compiler, tracer or transform, no odd norm."""
    stored = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum)
    return (
        type(u) is Tensor
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
        and norm.track_running_stats
        and None not in [None if value is None else 0 for value in stored]
    )


def _seen(attention: nn.Module) -> bool:
    """Return whether hooks see the maps that pass through the attention, whose memory must then not be used again."""
    if nn.modules.module._has_any_global_hook():
        return True
    hooked = [module._forward_hooks or module._forward_pre_hooks for module in attention.modules()]
    return any(hooked)


def _trained(norm: nn.BatchNorm2d, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `nn.BatchNorm2d.forward` does in training, and mean and 1 / deviation of each channel."""
    norm._check_input_dim(u)
    F._verify_batch_size(list(u.shape))  # type: ignore[attr-defined]
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
