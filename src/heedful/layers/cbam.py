"""Convolutional Block Attention Module (Woo et al., ECCV 2018) with any gate, equation 7 of [L]; and [Z]'s two forms.

[Z] is Zhu et al., "An Attention Module for Convolutional Neural Networks", ICANN 2021.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.batch_norm import normalized
from heedful.layers.conventions import Pool, convention_named
from heedful.layers.pooling import maximum, mean
from heedful.layers.product import weighted
from heedful.layers.squeeze_excitation import bottleneck


class ChannelAttention(nn.Module):
    """The first half of CBAM: `x * gate(MLP(GAP(x)) + MLP(GMP(x)))` with one MLP for mean and maximum.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the MLP's hidden width; None: the convention's own.
        gate: logits to weights.
        convention: see `CBAM`.
        pools: what is pooled, the mean, the maximum or both; None: both.
        device: where the parameters are made.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1, or convention or pools are unknown.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int | None = None,
        gate: Callable[[Tensor], Tensor] = attend,
        convention: str = "paper",
        pools: tuple[Pool, ...] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        preset = convention_named(convention)
        hidden = preset.cbam_hidden(channels, reduction)
        self.mlp = bottleneck(channels, hidden, preset, bias=preset.cbam_bias, device=device, dtype=dtype)
        self.pools = _checked(preset.pools if pools is None else pools)
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return what the gate is given, one number per image and channel."""
        # One pass of the MLP for all that was pooled, since it reads its weights once.
        return self.mlp(torch.stack([_pooled(x, pool, (2, 3)) for pool in self.pools])).sum(0)[:, :, None, None]

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x), only_pooled=True)

    def extra_repr(self) -> str:
        """Return what is pooled."""
        return f"pools={self.pools}"


class SpatialAttention(nn.Module):
    """The second half of CBAM: `x * gate(conv_kxk([mean over channels; maximum over channels]))`.

    Args:
        kernel_size: side k of the convolution, odd, so that the mask has the size of the map.
        gate: logits to weights.
        convention: see `CBAM`.
        pools: what is pooled, in the order of the maps; None: both, in the convention's order.
        device: where the parameters are made.
        dtype: the parameters' type.

    Raises:
        InputError: if kernel_size is not odd and positive, or convention or pools are unknown.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 7,
        gate: Callable[[Tensor], Tensor] = attend,
        convention: str = "paper",
        pools: tuple[Pool, ...] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size is {kernel_size!r}, but it must be odd and positive, for example 7")
        preset = convention_named(convention)
        self.pools = _checked(preset.pools if pools is None else pools)
        num_pools, padding = len(self.pools), kernel_size // 2
        self.conv = nn.Conv2d(num_pools, 1, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)
        if preset.spatial_fan is not None:
            nn.init.kaiming_normal_(self.conv.weight, mode=preset.spatial_fan)
        self.norm: nn.Module = nn.Identity()
        if preset.norm_momentum is not None:
            self.norm = nn.BatchNorm2d(1, momentum=preset.norm_momentum, device=device, dtype=dtype)
            nn.init.constant_(self.norm.weight, preset.norm_scale)
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Return what the gate is given, one number per image and place."""
        pooled = torch.cat([_pooled(x, pool, (1,), keepdim=True) for pool in self.pools], dim=1)
        return normalized(self.norm, self.conv(pooled))

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Return the weight of each place, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x), only_pooled=True)

    def extra_repr(self) -> str:
        """Return what is pooled, in order."""
        return f"pools={self.pools}"


class CBAM(nn.Module):
    """Channel attention, then spatial attention on its result, the same gate in both places: equation 7 of [L].

    Where the paper, the authors' code of [L], CBAM's authors' code and timm differ (hidden width, biases,
    initialisation, order of the pooled maps, batch norm after the spatial convolution), `convention` chooses: see
    `heedful.layers.conventions`.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the MLP's hidden width, at least 1; None: the convention's own, 16 in the CBAM paper.
        kernel_size: side of the spatial convolution, odd; 7 in the papers.
        gate: logits to weights, in both halves.
        convention: "paper", "laakom-code", "cbam-code" or "timm".
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1, kernel_size is even, or the convention is unknown.
    """

    source: ClassVar[str] = "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018"
    pools: ClassVar[tuple[Pool, ...] | None] = None
    """What both halves pool; None: the mean and the maximum."""

    def __init__(
        self,
        channels: int,
        *,
        reduction: int | None = None,
        kernel_size: int = 7,
        gate: Callable[[Tensor], Tensor] = attend,
        convention: str = "paper",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channel = ChannelAttention(
            channels,
            reduction=reduction,
            gate=gate,
            convention=convention,
            pools=self.pools,
            device=device,
            dtype=dtype,
        )
        self.spatial = SpatialAttention(
            kernel_size=kernel_size, gate=gate, convention=convention, pools=self.pools, device=device, dtype=dtype
        )

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return the weight of each channel at each place: the product of both halves' masks."""
        channel = self.channel.mask(x)
        return channel * self.spatial.mask(x * channel)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `spatial(channel(x))`."""
        return self.spatial(self.channel(x))


class MeanCBAM(CBAM):
    """CBAM without max-pooled features: both halves see means only, so that the spatial convolution sees one map.

    The form of [Z], section 4.1 ("Spatial" in its table 1). Arguments and errors are those of `CBAM`.
    """

    source: ClassVar[str] = f"{CBAM.source}; without maximum: Zhu et al., AW-convolution, ICANN 2021"
    pools: ClassVar[tuple[Pool, ...] | None] = ("mean",)


class ChannelCBAM(nn.Module):
    """CBAM's channel half alone, without max-pooled features: the same function as `SqueezeExcitation`.

    The other form of [Z], section 4.1 ("MaxPool" in its table 1, as we read it). A difference between its rows and SE's
    is one of chance, or of a convention: timm's MLP has biases in SE, and none here.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the MLP's hidden width; None: the convention's own.
        gate: logits to weights.
        convention: see `CBAM`.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1, or the convention is unknown.
    """

    source: ClassVar[str] = f"{CBAM.source}; channel half, without maximum: Zhu et al., AW-convolution, ICANN 2021"

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
        means: tuple[Pool, ...] = ("mean",)
        self.channel = ChannelAttention(
            channels, reduction=reduction, gate=gate, convention=convention, pools=means, device=device, dtype=dtype
        )

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return what the gate is given, one number per image and channel."""
        return self.channel.logits(x)

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.channel.mask(x)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return self.channel(x)


def _pooled(x: Tensor, pool: Pool, dims: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    return (mean if pool == "mean" else maximum)(x, dims, keepdim=keepdim)


def _checked(pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
    if not pools or len(set(pools)) < len(pools) or not set(pools) <= {"mean", "max"}:
        raise InputError(f"pools is {pools!r}, but it must be ('mean',), ('max',) or both of them")
    return pools
