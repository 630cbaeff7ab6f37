"""Efficient Channel Attention (Wang et al., ECA-Net, CVPR 2020) with any gate."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.pooling import mean
from heedful.layers.product import weighted
from heedful.layers.widths import checked


class EfficientChannelAttention(nn.Module):
    """Weight each channel by the means of its k neighbours: `x * gate(conv1d_k(GAP(x)))`.

    The convolution runs over the channels, with zeros beyond the first and the last, one kernel for all, no bias.

    The paper takes for k the odd number nearest to (log2(C) + 1) / 2, which is two numbers where that is even; the
    authors' code and timm's `EcaModule` round down to a whole number and then up to an odd one, as here. As in timm, k
    is at least 3; the authors' code makes it 1 below 8 channels, where a channel sees but itself.

    Args:
        channels: number of channels C of the feature map, at least 1.
        kernel_size: number of neighbours k, odd; None: from C as above.
        gate: logits to weights; any of heedful's gates.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels is less than 1, or kernel_size not odd and positive.
    """

    source: ClassVar[str] = "Wang et al., ECA-Net: Efficient Channel Attention, CVPR 2020"

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        size = neighbours(checked(channels)) if kernel_size is None else kernel_size
        if size < 1 or size % 2 == 0:
            raise InputError(f"kernel_size is {size!r}, but it must be odd and positive, for example 3, or None")
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False, device=device, dtype=dtype)
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return what the gate is given, one number per image and channel."""
        return self.conv(mean(x, (2, 3))[:, None])[:, 0, :, None, None]

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x), only_pooled=True)


def neighbours(channels: int) -> int:
    """Return k for C channels: (log2(C) + 1) / 2, the paper's γ = 2 and b = 1, made odd; at least 3."""
    size = int((math.log2(channels) + 1) / 2)
    return max(3, size if size % 2 else size + 1)
