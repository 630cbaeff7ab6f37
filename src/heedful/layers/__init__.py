"""Attention layers, one paper a file: feature map (N, C, H, W) in and out, `channels` first, the rest keyword-only."""

from torch import nn

from heedful.layers.attentive_conv import AttentiveConv2d
from heedful.layers.aw_conv import AWConv2d
from heedful.layers.bam import BAM
from heedful.layers.cbam import CBAM, ChannelCBAM, MeanCBAM
from heedful.layers.coordinate_attention import CoordinateAttention
from heedful.layers.eca import EfficientChannelAttention
from heedful.layers.gather_excite import GatherExcite
from heedful.layers.global_context import GlobalContext
from heedful.layers.selective_kernel import SKConv2d
from heedful.layers.simam import SimAM
from heedful.layers.squeeze_excitation import SqueezeExcitation
from heedful.layers.style_recalibration import StyleRecalibration

__all__ = [
    "BAM",
    "CBAM",
    "CONVOLUTIONS",
    "LAYERS",
    "SOURCES",
    "AWConv2d",
    "ChannelCBAM",
    "CoordinateAttention",
    "EfficientChannelAttention",
    "GatherExcite",
    "GlobalContext",
    "MeanCBAM",
    "SKConv2d",
    "SimAM",
    "SqueezeExcitation",
    "StyleRecalibration",
]

LAYERS: dict[str, type[nn.Module]] = {
    "se": SqueezeExcitation,
    "cbam": CBAM,
    "cbam_mean": MeanCBAM,
    "cbam_channel": ChannelCBAM,
    "eca": EfficientChannelAttention,
    "bam": BAM,
    "ge": GatherExcite,
    "gc": GlobalContext,
    "coord": CoordinateAttention,
    "simam": SimAM,
    "srm": StyleRecalibration,
}
"""Name in the notation of variants -> layer."""

CONVOLUTIONS: dict[str, type[AttentiveConv2d]] = {"aw": AWConv2d, "sk": SKConv2d}
"""Name in the notation of variants -> convolution with attention, which takes the place of a plain one."""

SOURCES: dict[str, str] = {name: vars(layer)["source"] for name, layer in {**LAYERS, **CONVOLUTIONS}.items()}
"""Name in the notation of variants -> citation."""
