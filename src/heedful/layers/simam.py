"""SimAM (Yang et al., ICML 2021), attention without parameters, with any gate."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.product import weighted
from heedful.layers.widths import checked


class SimAM(nn.Module):
    """Weight each place of a channel by how far it stands out there: `x * gate(1/e)`.

    `1/e = (x - μ)² / (4 (σ² + λ)) + 1/2`, with mean μ and variance σ² of the channel's places in the image. Like the
    paper's listing and the authors' code, σ² divides by one less than the number of places (the paper's text: by it);
    where there is one place it is 0. The logits are 1/2 at least, so that `attend` gives 0.62 at least.

    Args:
        channels: number of channels C of the feature map, at least 1; it decides nothing.
        regularization: λ, above 0; 1e-4 in the paper.
        gate: logits to weights; any of heedful's gates.
        device: as the other layers have; there is nothing to make.
        dtype: as the other layers have.

    Raises:
        InputError: if channels is less than 1, or regularization not above 0.
    """

    source: ClassVar[str] = "Yang et al., SimAM: A Simple, Parameter-Free Attention Module for CNNs, ICML 2021"

    def __init__(
        self,
        channels: int,
        *,
        regularization: float = 1e-4,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checked(channels)
        if not regularization > 0:
            raise InputError(f"regularization is {regularization!r}, but it must be above 0; the paper takes 1e-4")
        self.regularization = regularization
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return what the gate is given: the inverse energy of each place of each channel."""
        fewer = torch.sym_min(x.shape[2] * x.shape[3] - 1, 1)
        variance, mean = torch.var_mean(x, (2, 3), correction=fewer, keepdim=True)
        # Divided before it is squared: a square of a deviation above 256 is not a number of float16.
        return ((x - mean) * (0.5 * torch.rsqrt(variance + self.regularization))).square() + 0.5

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return the weight of each channel at each place, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x))

    def extra_repr(self) -> str:
        """Return λ."""
        return f"regularization={self.regularization:g}"
