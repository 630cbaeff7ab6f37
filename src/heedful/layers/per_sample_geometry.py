"""Where a convolution's kernel meets its map: the places of each tap (one place of the kernel), as slices."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Tap(NamedTuple):
    """One place of the kernel, where it lies on the phase's grid.

    Args:
        outputs: rows and columns of the output that it reaches.
        inputs: rows and columns of the phase that it takes them from, as many.
        rest: pairs of row and column slices of the phase that it takes nothing from.
    """

    outputs: tuple[slice, slice]
    inputs: tuple[slice, slice]
    rest: list[tuple[slice, slice]]


class Phase(NamedTuple):
    """The places of the input that share a remainder under the stride, and the taps that meet them.

    Args:
        places: row and column slices of the input.
        kernel: row and column slices of the kernel.
        taps: of the kernel's slices, row by row.
    """

    places: tuple[slice, slice]
    kernel: tuple[slice, slice]
    taps: list[Tap]


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over a map.

    Args:
        kernel: rows and columns of the kernel.
        stride: down and to the right, in places of the input.
        padding: zeros at the top, bottom, left and right.
        dilation: distance of neighbouring kernel places, in places of the input.
        groups: in which channels are convolved by themselves.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of the output for those of the input."""
        top, bottom, left, right = self.padding
        rows = size[0] + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1
        columns = size[1] + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1
        return rows // self.stride[0] + 1, columns // self.stride[1] + 1

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the map and the padding, equal on both sides, that is left to the convolution."""
        top, bottom, left, right = self.padding
        rows, columns = min(top, bottom), min(left, right)
        if (top, left) != (bottom, right):
            x = F.pad(x, (left - columns, right - columns, top - rows, bottom - rows))
        return x, (rows, columns)

    def phases(self, size: tuple[int, int]) -> Iterator[Phase]:
        """Yield the phases of an input of this many rows and columns that have places; with stride 1 there is one."""
        output = self.output_size(size)
        rows = list(_phases(self.kernel[0], self.stride[0], self.padding[0], self.dilation[0], size[0], output[0]))
        columns = list(_phases(self.kernel[1], self.stride[1], self.padding[2], self.dilation[1], size[1], output[1]))
        for down, right in product(rows, columns):
            taps = [_tap(*spans) for spans in product(down.spans, right.spans)]
            yield Phase((down.places, right.places), (down.kernel, right.kernel), taps)


class _Span(NamedTuple):
    outputs: slice
    inputs: slice
    length: int


class _Line(NamedTuple):
    places: slice
    kernel: slice
    spans: list[_Span]


def _phases(kernel: int, stride: int, padding: int, dilation: int, size: int, output: int) -> Iterator[_Line]:
    """Yield the phases of one line of the map: of a row, or of a column."""
    step = stride // gcd(stride, dilation)
    for first in range(min(step, kernel)):
        offset = first * dilation - padding
        phase = offset % stride
        length = -(-(size - phase) // stride)
        if length <= 0:
            continue
        spans = []
        for number in range(first, kernel, step):
            shift = (number * dilation - padding) // stride
            low, high = max(0, -shift), min(output, length - shift)
            high = max(low, high)
            spans.append(_Span(slice(low, high), slice(low + shift, high + shift), length))
        yield _Line(slice(phase, None, stride), slice(first, None, step), spans)


def _tap(down: _Span, right: _Span) -> Tap:
    whole = slice(None)
    rest = [(rows, whole) for rows in _outside(down)] + [(down.inputs, columns) for columns in _outside(right)]
    return Tap((down.outputs, right.outputs), (down.inputs, right.inputs), rest)


def _outside(span: _Span) -> list[slice]:
    before, after = slice(0, span.inputs.start), slice(span.inputs.stop, span.length)
    return [part for part in (before, after) if part.start < part.stop]
