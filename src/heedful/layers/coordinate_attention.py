"""Coordinate Attention (Hou et al., CVPR 2021) with any gate."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.gates import attend, fresh
from heedful.layers.pooling import mean
from heedful.layers.product import weighted
from heedful.layers.widths import hidden_width


class Direction(nn.Module):
    """One half of Coordinate Attention: `x * gate(conv1x1(encoded))`, one weight per channel and row, or column.

    Args:
        channels: number of channels C of the feature map.
        hidden: number of channels h of what is encoded.
        gate: logits to weights.
        device: where the parameters are made.
        dtype: the parameters' type.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(hidden, channels, 1, device=device, dtype=dtype)
        self.gate = fresh(gate, device)

    def logits(
        self, encoded: Float[Tensor, "batch hidden rows columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Return what the gate is given: (N, C, H, 1) for rows, (N, C, 1, W) for columns."""
        return self.conv(encoded)

    def mask(self, encoded: Float[Tensor, "batch hidden rows columns"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return the weight of each channel at each row, or column, in the range of the gate."""
        return self.gate(self.logits(encoded))

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        encoded: Float[Tensor, "batch hidden rows columns"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(encoded)`."""
        return weighted(x, self.mask(encoded))


class CoordinateAttention(nn.Module):
    """Weight each channel by its row and by its column: `x * gate(F_h(f_h)) * gate(F_w(f_w))`.

    `[f_h; f_w] = hardswish(BN(F_1([means of the rows; means of the columns])))`, with one F_1 for both. The same gate
    stands in both places, `.height` and `.width`.

    How it stands to the code of others, with the same gate:

    - The authors' code: `reduction=32`, a hidden width of at least 8, and a bias in F_1, which the batch norm behind it
      cancels; it is left out here.
    - timm's `CoordAttn`: no biases (`bias=True` gives all three), a hidden width of C/24 rounded to a multiple of 8.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the hidden width h, which is at least 1. The authors' code takes 32; 16 is what the
            other layers have.
        gate: logits to weights, in both directions.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1.
    """

    source: ClassVar[str] = "Hou et al., Coordinate Attention for Efficient Mobile Network Design, CVPR 2021"

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False, device=device, dtype=dtype),
            nn.BatchNorm2d(hidden, device=device, dtype=dtype),
            nn.Hardswish(),
        )
        self.height = Direction(channels, hidden, gate=gate, device=device, dtype=dtype)
        self.width = Direction(channels, hidden, gate=gate, device=device, dtype=dtype)

    def encode(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch hidden height 1"], Float[Tensor, "batch hidden 1 width"]]:
        """Return what both directions are told: of each row, and of each column."""
        num_rows = x.shape[2]
        rows, columns = mean(x, (3,), keepdim=True), mean(x, (2,), keepdim=True)
        encoded = self.encoder(torch.cat([rows, columns.transpose(2, 3)], dim=2))
        return encoded[:, :, :num_rows], encoded[:, :, num_rows:].transpose(2, 3)

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return the weight of each channel at each place: the product of both directions' masks."""
        rows, columns = self.encode(x)
        return self.height.mask(rows) * self.width.mask(columns)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `width(height(x))`."""
        rows, columns = self.encode(x)
        return self.width(self.height(x, rows), columns)
