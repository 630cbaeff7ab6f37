"""AW-convolution (Zhu et al., ICANN 2021) with any gate: a convolution whose weights are attended, image by image."""

import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
import torch.fx
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend
from heedful.layers.kernel_attention import KernelAttention
from heedful.layers.per_sample_conv import is_traced, per_sample_conv
from heedful.layers.per_sample_geometry import Geometry


class AWConv2d(nn.Conv2d):
    """A convolution with a kernel of its own for each image, `K + A ⊙ K`, A computed from it: [Z], equations 4 to 8.

    [Z] is Zhu et al., "An Attention Module for Convolutional Neural Networks", ICANN 2021. A drop-in for `nn.Conv2d`,
    whose arguments come first and whose `weight` and `bias` keep their keys; all that A needs is the child `attention`.
    With [Z]'s ratios A differs between images, output channels and places of the kernel, not between input channels, so
    that the output is a sum over the kernel's places of scaled 1x1 convolutions: the images' kernels need not be made.
    Where A is 0 everywhere, `K + A ⊙ K` on a CPU without gradients is the plain convolution, to the bit.

    Args:
        in_channels: as for `nn.Conv2d`, like all up to dtype.
        out_channels: as there.
        kernel_size: as there.
        stride: as there.
        padding: as there.
        dilation: as there.
        groups: as there; the input channels of equation 4 are then those of a group.
        bias: as there.
        padding_mode: as there.
        device: as there.
        dtype: as there.
        reduction: as for `KernelAttention`, like all that follow.
        gate: as there.
        residual: as there.
        ratio_in: as there.
        ratio_out: as there.
        ratio_kernel: as there.
        method: as there.

    Raises:
        InputError: as there.
    """

    source: ClassVar[str] = KernelAttention.source

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reduction: int = 16,
        gate: Callable[[Tensor], Tensor] = attend,
        residual: bool = True,
        ratio_in: int | None = None,
        ratio_out: int = 1,
        ratio_kernel: int = 1,
        method: str = "auto",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.attention = KernelAttention(
            self,
            reduction=reduction,
            gate=gate,
            residual=residual,
            ratio_in=ratio_in,
            ratio_out=ratio_out,
            ratio_kernel=ratio_kernel,
            method=method,
        )

    @classmethod
    def put_into(
        cls,
        conv: nn.Conv2d,
        *,
        reduction: int = 16,
        gate: Callable[[Tensor], Tensor] = attend,
        residual: bool = True,
        ratio_in: int | None = None,
        ratio_out: int = 1,
        ratio_kernel: int = 1,
        method: str = "auto",
    ) -> None:
        """Make an `AWConv2d` of a plain convolution, in place: it stays the same object, with its parameters and hooks.

        Args:
            conv: of type `nn.Conv2d`; its device, type and mode are those of the attention.
            reduction: as for `KernelAttention`, like all that follow.
            gate: as there.
            residual: as there.
            ratio_in: as there.
            ratio_out: as there.
            ratio_kernel: as there.
            method: as there.

        Raises:
            InputError: as there, or if conv is of another type. It is then as it was.
        """
        if type(conv) is not nn.Conv2d:
            raise InputError(
                f"conv is a {type(conv).__name__}, but attention on weights needs a plain nn.Conv2d: put it into that"
            )
        attention = KernelAttention(
            conv,
            reduction=reduction,
            gate=gate,
            residual=residual,
            ratio_in=ratio_in,
            ratio_out=ratio_out,
            ratio_kernel=ratio_kernel,
            method=method,
        )
        conv.add_module("attention", attention.train(conv.training))
        conv.__class__ = cls

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        *,
        reduction: int = 16,
        gate: Callable[[Tensor], Tensor] = attend,
        residual: bool = True,
        ratio_in: int | None = None,
        ratio_out: int = 1,
        ratio_kernel: int = 1,
        method: str = "auto",
    ) -> "AWConv2d":
        """Return an `AWConv2d` that shares weight and bias with a plain convolution, which stays as it is.

        Arguments and errors are those of `put_into`; hooks are taken over.
        """
        # What is in the memo is shared, not copied.
        made = copy.deepcopy(conv, {id(parameter): parameter for parameter in conv.parameters()})
        cls.put_into(
            made,
            reduction=reduction,
            gate=gate,
            residual=residual,
            ratio_in=ratio_in,
            ratio_out=ratio_out,
            ratio_kernel=ratio_kernel,
            method=method,
        )
        assert isinstance(made, cls)
        return made

    def take_out(self) -> None:
        """Make the plain convolution of it again, in place; the attention is gone."""
        del self.attention
        self.__class__ = nn.Conv2d  # type: ignore[assignment]

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
