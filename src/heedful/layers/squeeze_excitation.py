"""Squeeze-and-Excitation (Hu et al., CVPR 2018) with any gate: equation 6 of [L]."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.gates import attend, fresh
from heedful.layers.conventions import Convention, convention_named
from heedful.layers.pooling import mean
from heedful.layers.product import weighted


class SqueezeExcitation(nn.Module):
    """Weight each channel by what its mean over the image says: `x * gate(W2 relu(W1 GAP(x)))`, equation 6 of [L].

    Both linear maps have a bias, as in the authors' code; equation 6 writes none. Where the hidden width and the
    initialisation differ between the paper, the authors' code of [L] and timm, `convention` chooses (see
    `heedful.layers.conventions`): timm rounds the width to a multiple of 8, so that on 16, 32 and 64 channels its layer
    is another one.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the hidden width, at least 1; None: the convention's own, 16 in the SE paper and timm, 8
            in the authors' code of [L].
        gate: logits to weights; any of heedful's gates.
        convention: "paper", "laakom-code", "cbam-code" (CBAM's channel half without the maximum) or "timm".
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1, or the convention is unknown.
    """

    source: ClassVar[str] = "Hu, Shen and Sun, Squeeze-and-Excitation Networks, CVPR 2018"

    def __init__(
        self,
        channels: int,
        *,
        reduction: int | None = None,
        gate: Callable[[Tensor], Tensor] = attend,
        convention: str = "paper",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        preset = convention_named(convention)
        self.mlp = bottleneck(channels, preset.se_hidden(channels, reduction), preset, device=device, dtype=dtype)
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return what the gate is given, one number per image and channel."""
        return self.mlp(mean(x, (2, 3)))[:, :, None, None]

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x), only_pooled=True)


def bottleneck(
    channels: int,
    hidden: int,
    convention: Convention,
    *,
    bias: bool = True,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Return W2 relu(W1 ·) on (N, channels), the MLP of SE and CBAM, as the convention draws it."""
    contract = nn.Linear(channels, hidden, bias=bias, device=device, dtype=dtype)
    expand = nn.Linear(hidden, channels, bias=bias, device=device, dtype=dtype)
    for linear in (contract, expand):
        if convention.mlp_std is not None:
            nn.init.normal_(linear.weight, std=convention.mlp_std)
        if bias and convention.zero_biases:
            nn.init.zeros_(linear.bias)
    return nn.Sequential(contract, nn.ReLU(), expand)
