"""Bottleneck Attention Module (Park et al., BMVC 2018) with any gate."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.batch_norm import normalized
from heedful.layers.pooling import mean
from heedful.layers.product import weighted
from heedful.layers.widths import hidden_width


class BAM(nn.Module):
    """Add the map weighted by channel and place: `x + x * gate(M_c + M_s)`, equations 1 to 4 of the paper.

    `M_c = BN(W1 relu(W0 GAP(x) + b0))`, `M_s = BN(conv1x1(conv3x3(conv3x3(conv1x1(x)))))`, the 3x3 convolutions
    dilated, a ReLU after each but the last. A weight of 0 changes nothing, so `neutral` is 0, and no gate takes away
    from x. The paper puts BAM between the stages of a network; it works in a block as the other layers do.

    How it stands to the code of others, with the same gate:

    - The paper: the last linear map's and convolution's biases are left out, which the batch norms behind them cancel.
      Its equations write no ReLU; without one both branches would be linear.
    - The authors' code multiplies the two branches instead of adding them, and has its batch norms after the hidden
      layers, none at the end.
    - With one image in training M_c has one number per channel: its batch norm then uses its running statistics.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the hidden width of both branches, which is at least 1; 16 in the paper.
        dilation: of the 3x3 convolutions, at least 1; 4 in the paper.
        gate: logits to weights; any of heedful's gates.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels, reduction or dilation is less than 1.
    """

    source: ClassVar[str] = "Park et al., BAM: Bottleneck Attention Module, BMVC 2018"
    neutral: ClassVar[float] = 0.0

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        dilation: int = 4,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        if dilation < 1:
            raise InputError(f"dilation is {dilation!r}, but it must be at least 1; the paper takes 4")
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False, device=device, dtype=dtype),
        )
        self.channel_norm = nn.BatchNorm1d(channels, device=device, dtype=dtype)
        self.spatial = _dilated(channels, hidden, dilation, device, dtype)
        self.spatial_norm = nn.BatchNorm2d(1, device=device, dtype=dtype)
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return what the gate is given, one number per image, channel and place."""
        channel = normalized(self.channel_norm, self.channel(mean(x, (2, 3))))
        return channel[:, :, None, None] + normalized(self.spatial_norm, self.spatial(x))

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return the weight of each channel at each place, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * (1 + mask(x))`."""
        return weighted(x, 1 + self.mask(x))


def _dilated(
    channels: int, hidden: int, dilation: int, device: torch.device | None, dtype: torch.dtype | None
) -> nn.Sequential:
    def context() -> nn.Conv2d:
        return nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, device=device, dtype=dtype)

    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype),
        nn.ReLU(),
        context(),
        nn.ReLU(),
        context(),
        nn.ReLU(),
        nn.Conv2d(hidden, 1, 1, bias=False, device=device, dtype=dtype),
    )
