"""Style-based Recalibration Module (Lee et al., SRM, ICCV 2019) with any gate."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.gates import attend, fresh
from heedful.layers.batch_norm import normalized
from heedful.layers.product import weighted
from heedful.layers.widths import checked


class StyleRecalibration(nn.Module):
    """Weight each channel by its own mean μ and deviation σ over the image: `x * gate(BN(w1 μ + w2 σ))`.

    Each channel has two weights and no bias, and sees no other channel. They start at 0, as in
    the authors' code, so that every mask starts at the gate's weight of 0.

    How it stands to the authors' code:

    - σ² divides by the number of places, as in the paper (the code: by one less, which is not defined for one place).
    - σ is the root of σ² + 1e-5, as in the code, so that a constant map has a gradient.
    - With one image in training, where each channel has one number, the batch norm uses its running statistics; the
      code raises.

    Args:
        channels: number of channels C of the feature map, at least 1.
        gate: logits to weights; any of heedful's gates.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels is less than 1.
    """

    source: ClassVar[str] = "Lee et al., SRM: A Style-based Recalibration Module for CNNs, ICCV 2019"

    def __init__(
        self,
        channels: int,
        *,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(checked(channels), 2, device=device, dtype=dtype))
        self.norm = nn.BatchNorm1d(channels, device=device, dtype=dtype)
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return what the gate is given, one number per image and channel."""
        variance, mean = torch.var_mean(x, (2, 3), correction=0)
        style = torch.stack([mean, (variance + EPSILON).sqrt()], dim=2)
        return normalized(self.norm, (style * self.weight).sum(2))[:, :, None, None]

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x))


EPSILON = 1e-5
"""Added to the variance: the authors' code."""
