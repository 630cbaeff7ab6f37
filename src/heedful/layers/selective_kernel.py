"""Selective Kernel convolution (Li et al., SKNet, CVPR 2019) with any gate: a convolution chooses its field of view."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.batch_norm import normalized
from heedful.layers.pooling import mean
from heedful.layers.widths import hidden_width


class SKConv2d(nn.Conv2d):
    """Each output channel is a mixture of the convolution's own and that of a second kernel, dilated twice as far.

    `V = w U1 + (1 - w) U2`, `w = gate(a - b)`, `[a; b] = W2 relu(BN(W1 GAP(U1 + U2)))`, where U1 is the output of this
    convolution, U2 that of the second kernel. With `attend`, w and 1 - w are the softmax over a and b, equations 1 to 6
    of the paper. Where w is 1 the result is U1 exactly: the plain convolution.

    How it stands to others:

    - In the paper a batch norm and a ReLU follow each branch before the two are added; here they follow V, where the
      network has them, so that the layer can take the place of a convolution and be the same at w = 1.
    - The paper's 5x5 kernel is, as there, a 3x3 one with dilation 2. Of a 1x1 kernel both fields of view are one place.
    - timm's `SelectiveKernel` gives each branch half of the input channels unless `split_input=False`. Its attention is
      the one here, with a hidden width of C / 16 as a multiple of 8.
    - With one image in training, where the hidden features have one number each, their batch norm uses its running
      statistics.

    Args:
        in_channels: as in `nn.Conv2d`, and so the others up to dtype; the second kernel has the same.
        out_channels: number of output channels C.
        kernel_size: side, or height and width, of both kernels.
        stride: of both.
        padding: of the first; the second gets more, so that the outputs have the same size. With an even kernel_size
            what it gets more is not symmetric: one more above and on the left.
        dilation: of the first; twice that of the second.
        groups: of both; 32 in the paper's SKNets.
        bias: whether each of the two kernels has one.
        padding_mode: of both.
        device: where the parameters are made.
        dtype: the parameters' type.
        reduction: C divided by the hidden width, which is at least 32; 16 in the paper.
        gate: logits to weights; any of heedful's gates.

    Raises:
        InputError: if out_channels or reduction is less than 1.
    """

    source: ClassVar[str] = "Li et al., Selective Kernel Networks, CVPR 2019"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reduction: int = 16,
        gate: Callable[[Tensor], Tensor] = attend,
    ) -> None:
        hidden_width(out_channels, reduction)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.attention = KernelSelection(self, reduction=reduction, gate=gate)

    @classmethod
    def put_into(cls, conv: nn.Conv2d, *, reduction: int = 16, gate: Callable[[Tensor], Tensor] = attend) -> None:
        """Turn a plain convolution into this one, in place: its parameters, hooks and place in the network stay.

        Args:
            conv: exactly an `nn.Conv2d`, not a subclass.
            reduction: see the class.
            gate: likewise.

        Raises:
            InputError: if it is something else, or reduction is less than 1.
        """
        _check(conv)
        attention = KernelSelection(conv, reduction=reduction, gate=gate)
        conv.__class__ = cls
        conv.attention = attention

    def take_out(self) -> None:
        """Turn this convolution back into a plain `nn.Conv2d`, in place; the attention is gone."""
        del self.attention
        self.__class__ = nn.Conv2d  # type: ignore[assignment]

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, *, reduction: int = 16, gate: Callable[[Tensor], Tensor] = attend
    ) -> "SKConv2d":
        """Return a new convolution of this kind that shares the parameters of a plain one, which stays as it is.

        Arguments and errors are those of `put_into`.
        """
        _check(conv)
        twin: Any = _like(conv, conv.padding, conv.dilation, device="meta")
        twin.weight, twin.bias = conv.weight, conv.bias
        cls.put_into(twin.train(conv.training), reduction=reduction, gate=gate)
        return twin

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out_channels 1 1"]:
        """Return what the gate is given, one number per image and output channel."""
        return self.attention.logits(*self._branches(x))

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out_channels 1 1"]:
        """Return the weight of the convolution's own output, in the range of the gate."""
        return self.attention.mask(*self._branches(x))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out_channels rows columns"]:
        """Return `mask U1 + (1 - mask) U2`."""
        return self.attention(*self._branches(x))

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        own, second = super().forward(x), self.attention.conv(x)
        if 0 in [side % 2 for side in self.kernel_size]:
            # The padding could not be split evenly: there can be one row or column more than is needed.
            second = second[:, :, : own.shape[2], : own.shape[3]]
        return own, second


class KernelSelection(nn.Module):
    """The second kernel of an `SKConv2d`, and the weight of the first one's output against the second one's.

    Args:
        conv: the first; the second is made on its device, in its type and mode.
        reduction: channels divided by the hidden width.
        gate: logits to weights.

    Raises:
        InputError: if reduction is less than 1.
    """

    neutral: ClassVar[float] = 1.0

    def __init__(self, conv: nn.Conv2d, *, reduction: int = 16, gate: Callable[[Tensor], Tensor] = attend) -> None:
        super().__init__()
        channels, device, dtype = conv.out_channels, conv.weight.device, conv.weight.dtype
        hidden = max(hidden_width(channels, reduction), LEAST_HIDDEN)
        double = tuple(2 * dilation for dilation in conv.dilation)
        self.conv = _like(conv, _wider(conv), double, device=device, dtype=dtype)
        self.contract = nn.Linear(channels, hidden, bias=False, device=device, dtype=dtype)
        self.norm = nn.BatchNorm1d(hidden, device=device, dtype=dtype)
        self.select = nn.Linear(hidden, 2 * channels, bias=False, device=device, dtype=dtype)
        self.gate = fresh(gate, device)
        self.train(conv.training)

    def logits(
        self,
        own: Float[Tensor, "batch channels height width"],
        second: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch channels 1 1"]:
        """Return a - b, what the gate is given, one number per image and channel."""
        features = self.contract(mean(own, (2, 3)) + mean(second, (2, 3)))
        a, b = self.select(torch.relu(normalized(self.norm, features))).chunk(2, dim=1)
        return (a - b)[:, :, None, None]

    def mask(
        self,
        own: Float[Tensor, "batch channels height width"],
        second: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of the first kernel's output, in the range of the gate."""
        return self.gate(self.logits(own, second))

    def forward(
        self,
        own: Float[Tensor, "batch channels height width"],
        second: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the mixture of both kernels' outputs."""
        # In this form it is the first exactly where its weight is 1, and only the difference is kept for the backward.
        return own + (1 - self.mask(own, second)) * (second - own)


LEAST_HIDDEN = 32
"""The paper's L, the least hidden width."""


def _check(conv: nn.Module) -> None:
    if type(conv) is not nn.Conv2d:
        raise InputError(f"conv is a {type(conv).__name__}, but only a plain nn.Conv2d can get attention")


def _like(
    conv: nn.Conv2d, padding: Any, dilation: Any, *, device: torch.device | str, dtype: torch.dtype | None = None
) -> nn.Conv2d:
    """Return a plain convolution with the arguments of another, but for these."""
    arguments = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding, dilation, conv.groups
    return nn.Conv2d(*arguments, conv.bias is not None, conv.padding_mode, device, dtype)  # type: ignore[arg-type]


def _wider(conv: nn.Conv2d) -> str | tuple[int, ...]:
    """Return the padding with which twice the dilation gives at least as large an output."""
    if conv.padding == "same":
        return "same"
    padding = (0, 0) if isinstance(conv.padding, str) else conv.padding
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return tuple(p + (r + 1) // 2 for p, r in zip(padding, reach, strict=True))
