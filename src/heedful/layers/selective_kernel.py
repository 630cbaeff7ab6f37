"""Selective Kernel convolution (Li et al., SKNet, CVPR 2019) with any gate: a convolution chooses its field of view."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.gates import attend, fresh
from heedful.layers.attentive_conv import AttentiveConv2d
from heedful.layers.batch_norm import normalized
from heedful.layers.pooling import mean
from heedful.layers.widths import hidden_width


class KernelSelection(nn.Module):
    """The second kernel of an `SKConv2d`, and the weight of the first one's output against the second one's.

    Args:
        conv: the first; the second is made on its device, in its type and mode.
        reduction: output channels C divided by the hidden width, which is at least 32; 16 in the paper.
        gate: logits to weights; any of heedful's gates.

    Raises:
        InputError: if reduction or the number of output channels is less than 1.
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


class SKConv2d(AttentiveConv2d):
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

    Arguments, conversion from and to plain convolutions: see `AttentiveConv2d`; `reduction` and `gate`: see
    `KernelSelection`. Stride, groups (32 in the paper's SKNets) and bias are those of both kernels; the second gets
    twice the dilation and so much more padding that the outputs have the same size. With an even kernel_size what it
    gets more is not symmetric: one more above and on the left.
    """

    source: ClassVar[str] = "Li et al., Selective Kernel Networks, CVPR 2019"
    attention_class: ClassVar[type[nn.Module]] = KernelSelection
    attention: KernelSelection

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


LEAST_HIDDEN = 32
"""The paper's L, the least hidden width."""


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
