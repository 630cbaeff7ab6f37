"""The attention of an AW-convolution (Zhu et al., ICANN 2021): one weight per image for each place of its kernel."""

import functools
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.fx
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.batch_norm import normalized
from heedful.layers.per_sample_conv import check, is_traced
from heedful.layers.widths import hidden_width


class KernelAttention(nn.Module):
    """The attention maps A of an AW-convolution, equation 7 of [Z], before they are expanded.

    `gate(BN(Pointconv2(relu(BN(Pointconv1(AvgPool(x)))))))`, where AvgPool leaves as many places as the kernel has.
    Both pointwise convolutions are without bias: a batch norm follows. With one image and one place in training, where
    a batch norm would see one number per channel, it uses its running statistics.

    Args:
        conv: the convolution whose weights are attended; read, not kept.
        reduction: input channels divided by the hidden width, which is at least 1; r = 16 in [Z].
        gate: logits to weights; any of heedful's gates.
        residual: whether the convolution's kernel is K + A ⊙ K, equation 6, or A ⊙ K.
        ratio_in: r_C1, how many of a group's input channels share a weight; None: all, as in [Z].
        ratio_out: r_C2, how many output channels do; 1 in [Z].
        ratio_kernel: r_hw, how many places of the kernel do, down and across; 1 in [Z].
        method: how the convolution is then computed, see `heedful.layers.per_sample_conv.per_sample_conv`.

    Raises:
        InputError: if the reduction is less than 1, a ratio does not divide what it is for, or the method is unknown or
            not for these ratios.
    """

    source: ClassVar[str] = "Zhu et al., An Attention Module for Convolutional Neural Networks, ICANN 2021"

    def __init__(
        self,
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
        super().__init__()
        hidden = hidden_width(conv.in_channels, reduction)
        self.shape = _compact_shape(conv, ratio_in, ratio_out, ratio_kernel)
        self.ratio_out, self.ratio_kernel, self.method = ratio_out, ratio_kernel, method
        check(method, self.shape[1], self.shape[2:])
        device, dtype, weights = conv.weight.device, conv.weight.dtype, self.shape[0] * self.shape[1]
        self.contract = nn.Conv2d(conv.in_channels, hidden, 1, bias=False, device=device, dtype=dtype)
        self.contract_norm = nn.BatchNorm2d(hidden, device=device, dtype=dtype)
        self.expand = nn.Conv2d(hidden, weights, 1, bias=False, device=device, dtype=dtype)
        self.expand_norm = nn.BatchNorm2d(weights, device=device, dtype=dtype)
        self.neutral = 0.0 if residual else 1.0
        self.gate = fresh(gate, device)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out inner rows columns"]:
        """Return by what the weights are multiplied, 1 + A or A: (N, C2, C1 / r_C1, h, w), or 1 for h and w."""
        mask = self.mask(x)
        scale = mask if self.neutral else 1 + mask
        if self.ratio_out > 1:
            scale = scale.repeat_interleave(self.ratio_out, 1)
        if self.ratio_kernel > 1 and self.shape[2:] != (1, 1):
            scale = scale.repeat_interleave(self.ratio_kernel, 3).repeat_interleave(self.ratio_kernel, 4)
        return scale

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out inner rows columns"]:
        """Return what the gate is given: (N, C2 / r_C2, C1 / r_C1, h / r_hw, w / r_hw)."""
        pooled = pool(x, self.shape[2:])
        hidden = torch.relu(normalized(self.contract_norm, self.contract(pooled)))
        return torch.unflatten(normalized(self.expand_norm, self.expand(hidden)), 1, self.shape[:2])

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out inner rows columns"]:
        """Return A before its expansion (equation 8), in the range of the gate and the shape of the logits."""
        return self.gate(self.logits(x))


def pool(x: Float[Tensor, "batch channels height width"], size: tuple[int, int]) -> Tensor:
    """Return means of the map, (N, C, *size), as `adaptive_avg_pool2d`, whose gradient on CUDA is not deterministic.

    Args:
        x: maps.
        size: rows and columns of means; means overlap where they do not divide the map.
    """
    fixed = type(x) is Tensor and x.device.type == "cpu" and not is_traced()
    averages = (_kept_averages if fixed else _averages)((x.shape[2], x.shape[3]), size, x.dtype, x.device)
    return torch.unflatten(torch.matmul(x.flatten(2), averages), 2, size)


# torch.fx takes it as one call.
torch.fx.wrap("pool")


def _averages(
    lengths: tuple[int, int], numbers: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:  # fmt: skip
    """Return the matrix (places of the map, means) whose columns average what adaptive pooling does."""
    lines = []
    for length, number in zip(lengths, numbers, strict=True):
        index, place = torch.arange(number, device=device), torch.arange(length, device=device)[:, None]
        start, stop = index * length // number, -((index + 1) * -length // number)
        inside = ((place >= start) & (place < stop)).to(dtype)
        lines.append(inside / inside.sum(0, keepdim=True))
    return torch.einsum("hi,wj->hwij", *lines).flatten(2).flatten(0, 1)


@functools.lru_cache(maxsize=64)
def _kept_averages(
    lengths: tuple[int, int], numbers: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:  # fmt: skip
    # What is made in inference mode could not be saved for a backward pass later.
    with torch.inference_mode(False):
        return _averages(lengths, numbers, dtype, device)


def _compact_shape(
    conv: nn.Conv2d, ratio_in: int | None, ratio_out: int, ratio_kernel: int
) -> tuple[int, int, int, int]:  # fmt: skip
    """Return (C2 / r_C2, C1 / r_C1, h / r_hw, w / r_hw)."""
    per_group = conv.in_channels // conv.groups
    rows, columns = conv.kernel_size
    ratio_in = per_group if ratio_in is None else ratio_in
    for name, ratio, what, sizes in (
        ("ratio_in", ratio_in, "a group's input channels", (per_group,)),
        ("ratio_out", ratio_out, "the output channels", (conv.out_channels,)),
        ("ratio_kernel", ratio_kernel, "the kernel's rows and columns", (rows, columns)),
    ):
        if ratio < 1 or any(size % ratio for size in sizes):
            numbers = " and ".join(map(str, dict.fromkeys(sizes)))
            raise InputError(f"{name} is {ratio!r}, but it must divide {what}, {numbers}")
    return conv.out_channels // ratio_out, per_group // ratio_in, rows // ratio_kernel, columns // ratio_kernel
