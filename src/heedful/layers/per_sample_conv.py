"""Convolution with a kernel of its own for each image, equation 5 of [Z]: the exact methods, and the choice among them.

[Z] is Zhu et al., "An Attention Module for Convolutional Neural Networks", ICANN 2021. `benchmarks/aw_convolution.py`
measures what `choose` says.
"""

import dataclasses
import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor

from heedful.errors import InputError, unknown
from heedful.layers import per_sample_plain as plain
from heedful.layers.per_sample_geometry import Geometry
from heedful.layers.per_sample_saving import Form, Grouped, Output, Taps

METHODS = ("auto", "output", "taps", "grouped", "unfold")

TAPS_UP_TO = 196
"""Places of the output map up to which taps are quicker than the grouped convolution, on a CPU with AVX-512."""

TAPS_FROM = 128
"""Channels in and out from which they are: below, the passes over the taps' products cost more than the products."""


def per_sample_conv(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels group_channels rows columns"],
    scale: Float[Tensor, "batch out_channels blocks scale_rows scale_columns"],
    geometry: Geometry,
    method: str = "auto",
) -> Float[Tensor, "batch out_channels out_height out_width"]:
    """Return the convolution of each image with its own kernel, `scale * weight`.

    By any method the result and its gradients, of first and higher order, are those of a loop over the images, but for
    rounding. In eager mode little more than x, weight and scale is saved for the backward pass.

    Args:
        x: maps (N, C1, H, W).
        weight: the shared kernel (C2, C1 / groups, h, w).
        scale: (N, C2, blocks, h or 1, w or 1): block b is for the b-th part of a group's input channels.
        geometry: how the kernel moves.
        method: `auto`, or one of these.

            - `output`: one convolution, its output scaled; for a scale that is the same for a whole kernel.
            - `taps`: 1x1 convolutions, one for each place of the kernel, scaled and added; for a scale with one block.
            - `grouped`: a grouped convolution of all images' kernels. It exports, but not to ONNX.
            - `unfold`: a product of all images' kernels and patches. It saves all of them for the backward pass.

    Raises:
        InputError: if the method is unknown or not for such a scale.
    """
    if method == "auto":
        method = choose(x, weight, scale, geometry)
    check(method, scale.shape[2], (scale.shape[3], scale.shape[4]))
    traced = is_traced()
    form = (_TRACED if traced else _EAGER)[method]
    y = form(x, weight, scale, geometry)
    return y if traced else _in_format_of(x, y)


def choose(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> str:
    """Return the quickest method for these shapes; for an export, one that ONNX has with any number of images."""
    if scale.shape[2:].numel() == 1:
        return "output"
    one_block = scale.shape[2] == 1
    if x.is_cuda and one_block and _has_kernels(x, weight, scale, geometry):
        return "taps"
    if torch.compiler.is_exporting() or torch._C._is_tracing():
        return "taps" if one_block else "unfold"
    rows, columns = geometry.output_size((x.shape[2], x.shape[3]))
    wide = geometry.groups == 1 and min(weight.shape[:2]) >= TAPS_FROM
    if one_block and wide and rows * columns <= TAPS_UP_TO and x.shape[0] > 1:
        return "taps"
    return "grouped"


def is_traced() -> bool:
    """Tell whether what is done is written down, to be compiled or exported, or transformed by `torch.func`."""
    return torch.compiler.is_compiling() or torch._C._is_tracing() or torch._C._are_functorch_transforms_active()


def check(method: str, blocks: int, places: tuple[int, int]) -> None:
    """Refuse a method that does not exist or is not for such a scale.

    Args:
        method: a name.
        blocks: of input channels with a scale of their own.
        places: rows and columns of the kernel with a scale of their own.

    Raises:
        InputError: if so.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if method == "output" and (blocks, places) != (1, (1, 1)):
        raise InputError(
            "method is 'output', but the scale differs within a kernel: let ratio_in be the channels of a group and "
            "ratio_kernel the kernel's size, or take method='auto'"
        )
    if method == "taps" and blocks != 1:
        raise InputError(
            "method is 'taps', but the scale differs between input channels: let ratio_in be the channels of a group, "
            "or take method='grouped' or 'auto'"
        )


def _has_kernels(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> bool:
    """Tell whether Triton is here, and its kernels are for these tensors and work."""
    if is_traced() or importlib.util.find_spec("triton") is None:
        return False
    from heedful.layers import per_sample_conv_triton as kernels

    return kernels.usable(x, weight, scale, geometry)


def _taps(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    if x.is_cuda and _has_kernels(x, weight, scale, geometry):
        from heedful.layers import per_sample_conv_triton as kernels

        return kernels.TritonTaps.apply(x, weight, scale, geometry)
    if geometry.groups == 1:
        return Taps.apply(x, weight, scale, geometry)
    single = dataclasses.replace(geometry, groups=1)
    whole = ((x, 1), (weight, 0), (scale, 1))
    parts = zip(*[tensor.chunk(geometry.groups, axis) for tensor, axis in whole], strict=True)
    return torch.cat([Taps.apply(*part, single) for part in parts], 1)


def _in_format_of(x: Tensor, y: Tensor) -> Tensor:
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return y.contiguous(memory_format=torch.channels_last)
    return y


_TRACED: dict[str, Form] = {
    "output": plain.output,
    "taps": plain.taps,
    "grouped": plain.grouped,
    "unfold": plain.unfold,
}

_EAGER: dict[str, Form] = {"output": Output.apply, "taps": _taps, "grouped": Grouped.apply, "unfold": plain.unfold}
