"""Squeeze-and-Excitation (Hu et al., CVPR 2018) with any gate: equation 6 of [L]."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.product import weighted


class SqueezeExcitation(nn.Module):
    """Weight each channel by what its mean over the image says: `x * gate(W2 relu(W1 GAP(x)))`, equation 6 of [L].

    Both linear maps have a bias, as in the authors' code; equation 6 writes none. The hidden width is
    `max(1, channels // reduction)`: timm's `SEModule` rounds it to a multiple of 8, so that on 16, 32 and 64 channels
    it is another layer. The authors' code of [L] takes `reduction=8` and `init_std=0.01`; the paper states neither.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the hidden width, at least 1; 16 is the default of the SE paper.
        gate: logits to weights; any of heedful's gates.
        init_std: None keeps `nn.Linear`'s initialisation; a number draws the weights from N(0, init_std²) and sets the
            biases to zero (0.01 in the authors' code of [L]).
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        gate: Callable[[Tensor], Tensor] = attend,
        init_std: float | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.mlp = bottleneck(channels, reduction, init_std, device, dtype)
        self.gate = fresh(gate)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return what the gate is given, one number per image and channel."""
        return self.mlp(mean(x, (2, 3)))[:, :, None, None]

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x))


def mean(x: Tensor, dims: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    """Return `x.mean(dims)`, cheaper to train through.

    The gradient of a mean divides a tensor as large as x; that of a sum is a view, and the division is of its result.
    Half precision is summed in float32, as `mean` does inside.
    """
    total = x.sum(dims, keepdim=keepdim, dtype=torch.promote_types(x.dtype, torch.float32))
    return (total / math.prod([x.shape[dim] for dim in dims])).to(x.dtype)


def bottleneck(
    channels: int, reduction: int, init_std: float | None, device: torch.device | None, dtype: torch.dtype | None
) -> nn.Sequential:
    """Return W2 relu(W1 ·) on (N, channels): the MLP of SE and CBAM."""
    if channels < 1 or reduction < 1:
        raise InputError(f"channels={channels!r} and reduction={reduction!r} must both be at least 1")
    hidden = max(1, channels // reduction)
    contract = nn.Linear(channels, hidden, device=device, dtype=dtype)
    expand = nn.Linear(hidden, channels, device=device, dtype=dtype)
    if init_std is not None:
        for linear in (contract, expand):
            nn.init.normal_(linear.weight, std=init_std)
            nn.init.zeros_(linear.bias)
    return nn.Sequential(contract, nn.ReLU(), expand)
