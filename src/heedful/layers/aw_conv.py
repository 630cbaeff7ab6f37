"""AW-convolution (Zhu et al., ICANN 2021) with any gate: a convolution whose weights are attended, image by image."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.fx
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from heedful.layers.attentive_conv import AttentiveConv2d
from heedful.layers.kernel_attention import KernelAttention
from heedful.layers.per_sample_conv import is_traced, per_sample_conv
from heedful.layers.per_sample_geometry import Geometry


class AWConv2d(AttentiveConv2d):
    """A convolution with a kernel of its own for each image, `K + A ⊙ K`, A computed from it: [Z], equations 4 to 8.

    [Z] is Zhu et al., "An Attention Module for Convolutional Neural Networks", ICANN 2021. Arguments, conversion from
    and to plain convolutions: see `AttentiveConv2d`; `reduction`, `gate`, `residual`, the ratios and `method`: see
    `KernelAttention`. With groups the input channels of equation 4 are those of a group.

    With [Z]'s ratios A differs between images, output channels and places of the kernel, not between input channels, so
    that the output is a sum over the kernel's places of scaled 1x1 convolutions: the images' kernels need not be made.
    Where A is 0 everywhere, `K + A ⊙ K` on a CPU without gradients is the plain convolution, to the bit.
    """

    source: ClassVar[str] = KernelAttention.source
    attention_class: ClassVar[type[nn.Module]] = KernelAttention
    attention: KernelAttention

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out rows columns"]:
        """Return equation 5, with the bias added."""
        return _convolved(
            x, self.attention(x), self.weight, self.bias, self.stride, self._reversed_padding_repeated_twice,
            self.padding_mode, self.dilation, self.groups, self.attention.method,
        )  # fmt: skip


def _convolved(
    x: Tensor,
    scale: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    sides: Sequence[int],
    padding_mode: str,
    dilation: tuple[int, ...],
    groups: int,
    method: str,
) -> Tensor:
    left, right, top, bottom = sides
    if padding_mode != "zeros":
        x = F.pad(x, (left, right, top, bottom), mode=padding_mode)
        left = right = top = bottom = 0
    kernel, stride, dilation = [(sizes[0], sizes[1]) for sizes in (weight.shape[2:], stride, dilation)]
    geometry = Geometry(kernel, stride, (top, bottom, left, right), dilation, groups)
    if _is_known(scale) and bool((scale == 1).all()):
        padded, padding = geometry.padded(x)
        return F.conv2d(padded, weight, bias, stride, padding, dilation, groups)
    # After the padding, because autocast pads by reflection in float32.
    x, weight, scale = _cast(x, weight, scale)
    y = per_sample_conv(x, weight, scale, geometry, method)
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]


# torch.fx, which fuses convolutions with batch norms, takes the convolution as one call: its choices need numbers.
torch.fx.wrap("_convolved")


def _is_known(scale: Tensor) -> bool:
    """Tell whether the numbers may be looked at: they are here, nothing is traced, and no gradient is wanted."""
    return type(scale) is Tensor and scale.device.type == "cpu" and not torch.is_grad_enabled() and not is_traced()


def _cast(x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three in the type that a convolution has under autocast, or else in that of x."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        return x.to(dtype), weight.to(dtype), scale.to(dtype)
    return x, weight, scale.to(x.dtype)
