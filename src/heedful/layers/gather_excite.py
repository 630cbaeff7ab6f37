"""Gather-Excite (Hu et al., NeurIPS 2018) with any gate: GE-θ⁻, GE-θ and GE-θ⁺."""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.batch_norm import normalized
from heedful.layers.pooling import mean
from heedful.layers.product import weighted
from heedful.layers.widths import hidden_width


class GatherExcite(nn.Module):
    """Weight each place of a channel by what the channel is around it: `x * gate(interpolate(MLP(gather(x))))`.

    | paper | here | gather | MLP |
    |---|---|---|---|
    | GE-θ⁻ | the default | means of (2e-1)x(2e-1) places, one every e places; of the whole map if e = 0 | none |
    | GE-θ | `learned=True` | log2(e) depthwise 3x3 convolutions of stride 2; of the map's size if e = 0 | none |
    | GE-θ⁺ | `learned=True, mlp=True` | as GE-θ | SE's, as 1x1 convolutions |

    A batch norm follows each depthwise convolution, a ReLU stands between two of them. What was gathered is spread over
    the map by its nearest place. `mlp=True` alone is SE where e = 0. With one image in training, a batch norm that sees
    one number per channel uses its running statistics.

    timm's `GatherExcite` computes the same, but can be built in the form GE-θ⁻ only (`use_mlp=False`), as of 1.0.31.

    Args:
        channels: number of channels C of the feature map, at least 1.
        extent: e, from how far is gathered, in places: a power of two, 2, 4 and 8 in the paper, or 0 for the whole map,
            which is best there.
        learned: whether the gathering has parameters.
        mlp: whether an MLP mixes the channels of what was gathered.
        reduction: C divided by the MLP's hidden width, which is at least 1; 16 in the paper.
        map_size: height and width of the map in places; needed, and allowed, if learned over the whole map.
        gate: logits to weights; any of heedful's gates.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1, extent is neither 0 nor a power of two from 2, or map_size
            is missing, superfluous or not positive.
    """

    source: ClassVar[str] = "Hu et al., Gather-Excite: Exploiting Feature Context in CNNs, NeurIPS 2018"

    def __init__(
        self,
        channels: int,
        *,
        extent: int = 0,
        learned: bool = False,
        mlp: bool = False,
        reduction: int = 16,
        map_size: tuple[int, int] | None = None,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        _check(extent, learned, map_size)
        self.gather: nn.Module = MeanGather(extent)
        if learned:
            self.gather = DepthwiseGather(channels, extent=extent, map_size=map_size, device=device, dtype=dtype)
        self.mlp: nn.Module = nn.Identity()
        if mlp:
            contract = nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype)
            expand = nn.Conv2d(hidden, channels, 1, device=device, dtype=dtype)
            self.mlp = nn.Sequential(contract, nn.ReLU(), expand)
        self.extent = extent
        self.gate = fresh(gate, device)

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return what the gate is given: one number per image and channel, and per place unless e = 0."""
        gathered = self.mlp(self.gather(x))
        return F.interpolate(gathered, size=x.shape[2:], mode="nearest") if self.extent else gathered

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return the weight of each channel, at each place unless e = 0, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x))


class MeanGather(nn.Module):
    """Means of (2e-1)x(2e-1) places around every e-th place, of those that lie in the map; of the whole map if e = 0.

    Args:
        extent: e, at least 0.
    """

    def __init__(self, extent: int) -> None:
        super().__init__()
        self.extent = extent

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return the means: (N, C, 1, 1), or ceil(H/e) rows and ceil(W/e) columns."""
        if not self.extent:
            return mean(x, (2, 3), keepdim=True)
        reach = self.extent - 1
        return F.avg_pool2d(x, 2 * reach + 1, self.extent, padding=reach, count_include_pad=False)

    def extra_repr(self) -> str:
        """Return the extent."""
        return f"extent={self.extent}"


class DepthwiseGather(nn.Module):
    """Depthwise convolutions that shrink the map e-fold, or one of the map's size; a batch norm after each.

    Args:
        channels: number of channels C.
        extent: e, a power of two from 2, or 0 where map_size is given.
        map_size: height and width of the map in places, if e = 0.
        device: where the parameters are made.
        dtype: the parameters' type.
    """

    def __init__(
        self,
        channels: int,
        *,
        extent: int = 0,
        map_size: tuple[int, int] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.map_size = map_size
        size, stride, padding = ((3, 3), 2, 1) if map_size is None else (map_size, 1, 0)
        num_convs = extent.bit_length() - 1 if map_size is None else 1
        made = [
            nn.Conv2d(channels, channels, size, stride, padding, 1, channels, False, device=device, dtype=dtype)
            for _ in range(num_convs)
        ]
        self.convs = nn.ModuleList(made)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels, device=device, dtype=dtype) for _ in made])

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels rows columns"]:
        """Return what was gathered: (N, C, 1, 1), or ceil(H/e) rows and ceil(W/e) columns.

        Raises:
            InputError: if the map does not have the size that the layer was made for.
        """
        if self.map_size is not None and tuple(x.shape[2:]) != self.map_size:
            size = "x".join(map(str, x.shape[2:]))
            raise InputError(
                f"the map is {size}, but this layer was made for map_size={self.map_size}: make it for this one"
            )
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = normalized(norm, conv(F.relu(x) if number else x))
        return x


def _check(extent: int, learned: bool, map_size: tuple[int, int] | None) -> None:
    if extent != 0 and (extent < 2 or extent & (extent - 1)):
        raise InputError(f"extent is {extent!r}, but it must be 0, for the whole map, or a power of two: 2, 4, 8, ...")
    if learned and extent == 0 and map_size is None:
        raise InputError("map_size is None, but learned=True with extent=0 needs the map's height and width: (7, 7)")
    if map_size is not None and not (learned and extent == 0):
        raise InputError(f"map_size is {map_size!r}, but it is only for learned=True with extent=0: leave it out")
    if map_size is not None and min(map_size) < 1:
        raise InputError(f"map_size is {map_size!r}, but height and width must be at least 1")
