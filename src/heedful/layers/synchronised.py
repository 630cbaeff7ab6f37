"""Batch norm over the images of all processes that train one network, whichever module computes it.

With the batch of one process alone as its sample, several processes would train another network than one does. torch's
`SyncBatchNorm` is for GPUs, has no second derivatives, and takes a module's place, which what is more than a batch norm
does not survive (timm's, with its activation; one that attention follows). So the function is exchanged, not the
modules: no network changes, and the names of its weights stay.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_depth = 0


@contextmanager
def synchronised() -> Iterator[None]:
    """While it lasts, let `torch.nn.functional.batch_norm` take mean and variance over the batches of all processes.

    All processes of the default group must call the same batch norms in the same order, each with an image at least.
    What goes around that function (a batch norm in TorchScript, or written out) is not synchronised.
    """
    global _depth
    _depth += 1
    try:
        with _Exchanged():
            yield
    finally:
        _depth -= 1


def is_synchronised() -> bool:
    """Return whether batch norms are synchronised at the moment: a process then cannot decide by its own batch."""
    return _depth > 0


class _Exchanged(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (batch_norm if function is F.batch_norm else function)(*args, **(kwargs or {}))


def batch_norm(
    x: Float[Tensor, "batch channels *places"],
    running_mean: Float[Tensor, " channels"] | None,
    running_var: Float[Tensor, " channels"] | None,
    weight: Float[Tensor, " channels"] | None = None,
    bias: Float[Tensor, " channels"] | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "batch channels *places"]:
    """Return what `torch.nn.functional.batch_norm` returns for the batches of all processes put together.

    It can be differentiated any number of times, and computes in float32 at least.

    Args:
        x: the batch of this process.
        running_mean: taken in place towards the mean by `momentum`; None: not kept.
        running_var: likewise, towards the unbiased variance.
        weight: by which each channel is multiplied; None: 1.
        bias: which is added then; None: 0.
        training: whether the batch is the sample; otherwise the running statistics are, in each process by itself.
        momentum: in [0, 1].
        eps: added to the variance.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count, mean, var = _statistics(wide)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
    scale = torch.rsqrt(var + eps) if weight is None else weight * torch.rsqrt(var + eps)
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the count, mean and variance of each channel over all processes.

    The variance is that of each process around the mean of all: a mean of squares less the square of the mean would
    lose digits.
    """
    places = [dim for dim in range(x.ndim) if dim != 1]
    own = x.new_full((1,), x.numel() / x.shape[1])
    own_var, own_mean = torch.var_mean(x, places, correction=0)
    totals = summed(torch.cat([own, own * own_mean]))
    count, mean = totals[:1], totals[1:] / totals[:1]
    return count, mean, summed(own * (own_var + (own_mean - mean) ** 2)) / count


def summed(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the sum over all processes of the default group, with its gradient."""
    return _Sum.apply(x)


class _Sum(Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)
