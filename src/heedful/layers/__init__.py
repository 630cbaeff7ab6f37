"""Attention layers, one paper a file: feature map (N, C, H, W) in and out, `channels` first, the rest keyword-only."""

from torch import nn

from heedful.layers.cbam import CBAM
from heedful.layers.squeeze_excitation import SqueezeExcitation

__all__ = ["CBAM", "LAYERS", "SqueezeExcitation"]

LAYERS: dict[str, type[nn.Module]] = {"se": SqueezeExcitation, "cbam": CBAM}
"""Name in the notation of variants -> layer."""
