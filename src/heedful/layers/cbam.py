"""Convolutional Block Attention Module (Woo et al., ECCV 2018) with any gate: equation 7 of [L]."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.product import weighted
from heedful.layers.squeeze_excitation import bottleneck, mean


class ChannelAttention(nn.Module):
    """The first half of CBAM: `x * gate(MLP(GAP(x)) + MLP(GMP(x)))` with one MLP for mean and maximum.

    Arguments and errors are those of `SqueezeExcitation`.
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
        # amax, not adaptive_max_pool2d: deterministic on CUDA, and ties share the gradient as in the authors' code.
        return (self.mlp(mean(x, (2, 3))) + self.mlp(x.amax((2, 3))))[:, :, None, None]

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x))


class SpatialAttention(nn.Module):
    """The second half of CBAM: `x * gate(conv_kxk([mean over channels; maximum over channels]))`.

    Args:
        kernel_size: side k of the convolution, odd, so that the mask has the size of the map.
        gate: logits to weights.
        norm: whether a batch norm follows the convolution (see `CBAM`).
        device: where the parameters are made.
        dtype: the parameters' type.

    Raises:
        InputError: if kernel_size is not odd and positive.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 7,
        gate: Callable[[Tensor], Tensor] = attend,
        norm: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size is {kernel_size!r}, but it must be odd and positive, for example 7")
        padding = kernel_size // 2
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)
        self.norm = nn.BatchNorm2d(1, device=device, dtype=dtype) if norm else nn.Identity()
        self.gate = fresh(gate)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Return what the gate is given, one number per image and place."""
        pooled = torch.cat([mean(x, (1,), keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return self.norm(self.conv(pooled))

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Return the weight of each place, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x))


class CBAM(nn.Module):
    """Channel attention, then spatial attention on its result, the same gate in both places: equation 7 of [L].

    How it stands to the code of others, with the same gate and the same weights otherwise:

    - The authors' code of [L]: `reduction=8, init_std=0.01`, no batch norm in the spatial half, as here.
    - The CBAM authors' code: `spatial_norm=True` (momentum 0.01, its scale starting at 0), pooled maps in the order
      [max; mean]: turn `conv.weight.flip(1)` to exchange weights.
    - timm's `CbamModule`: no biases in the MLP, and batch norm in the spatial half.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the MLP's hidden width, which is at least 1.
        kernel_size: side of the spatial convolution, odd; 7 in the papers.
        gate: logits to weights, in both halves.
        init_std: None keeps PyTorch's initialisation; a number draws the MLP from N(0, init_std²) with zero biases, and
            the spatial convolution He-normal, as the authors' code of [L] does.
        spatial_norm: batch norm after the spatial convolution, as in the CBAM authors' code and in timm.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1, or kernel_size is even.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        gate: Callable[[Tensor], Tensor] = attend,
        init_std: float | None = None,
        spatial_norm: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channel = ChannelAttention(
            channels, reduction=reduction, gate=gate, init_std=init_std, device=device, dtype=dtype
        )
        self.spatial = SpatialAttention(
            kernel_size=kernel_size, gate=gate, norm=spatial_norm, device=device, dtype=dtype
        )
        if init_std is not None:
            nn.init.kaiming_normal_(self.spatial.conv.weight)

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return the weight of each channel at each place: the product of both halves' masks."""
        channel = self.channel.mask(x)
        return channel * self.spatial.mask(x * channel)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `spatial(channel(x))`."""
        return self.spatial(self.channel(x))
