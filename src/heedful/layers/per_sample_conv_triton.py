"""Convolution with a kernel of its own for each image, as Triton kernels: implicit matrix products, tap by tap.

For one group and a scale with one block of input channels, on a CUDA device. The forward kernel scales the accumulated
product of each tap before it adds it; that of the map's gradient scales the gradient as it is read; that of the
kernel's gradient accumulates image by image, and takes the scale's gradient from what it has for each image. Sums that
several programs share are written side by side and added afterwards, so that the results are the same in every run.

Imported only where a CUDA device runs it: Triton is not on every machine. `works` compares it with the PyTorch methods
once, before it is used.
"""
# Triton's language has no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, import-untyped, misc"

import functools
import warnings
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from heedful.layers import per_sample_plain as plain
from heedful.layers.per_sample_geometry import Geometry
from heedful.layers.per_sample_saving import Gradients, derived

PLACES, CHANNELS, DEPTH = 64, 64, 32
"""Sides of a program's tile, and how much of the sum it takes in at a time."""

PROGRAMS = 512
"""How many programs there should be at least, for the gradient of a kernel: some for each multiprocessor."""


class TritonTaps(torch.autograd.Function):
    """The sum over taps; saves its inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
        """Return y, in the memory format of x."""
        ctx.save_for_backward(x, weight, scale)
        ctx.geometry = geometry
        size = geometry.output_size((x.shape[2], x.shape[3]))
        y = _empty(x, (x.shape[0], weight.shape[0], *size))
        grid = (triton.cdiv(size[0] * size[1], PLACES), triton.cdiv(weight.shape[0], CHANNELS), x.shape[0])
        with torch.cuda.device_of(x):
            _forward[grid](
                x, _by_tap(weight), _scale_by_tap(scale, geometry), y, weight.shape[1], weight.shape[0],
                *x.shape[2:], *size, *x.stride(), *y.stride(), *_numbers(geometry), *geometry.kernel,
                PLACES, CHANNELS, DEPTH, _precision(),
            )  # fmt: skip
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        """Return the gradients of map, kernel and scale."""
        x, weight, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            return derived(plain.taps, x, weight, scale, ctx.geometry, g)
        with torch.cuda.device_of(x):
            of_x = _map_gradient(g, x, weight, scale, ctx.geometry) if ctx.needs_input_grad[0] else None
            if not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
                return of_x, None, None, None
            return of_x, *_kernel_gradients(g, x, weight, scale, ctx.geometry), None


def usable(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> bool:
    """Tell whether the kernels are made for these tensors, and work on their device."""
    types = (torch.float32, torch.float16, torch.bfloat16)
    fits = geometry.groups == 1 and scale.shape[2] == 1 and x.dtype in types and weight.dtype == x.dtype
    return fits and x.numel() > 0 and works(x.device, x.dtype)


@functools.cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether the kernels compile here and agree with PyTorch, tried once; warn if not."""
    made = torch.Generator().manual_seed(0)
    shapes = ((2, 20, 9, 7), (18, 20, 3, 3), (2, 18, 1, 3, 3))
    x, weight, scale = [torch.randn(shape, generator=made).to(device, dtype).requires_grad_() for shape in shapes]
    geometry = Geometry((3, 3), (2, 1), (1, 1, 0, 1))
    found = []
    try:
        with torch.enable_grad():
            for form in (TritonTaps.apply, plain.taps):
                y = form(x, weight, scale, geometry)
                found.append([y, *torch.autograd.grad(y, (x, weight, scale), torch.ones_like(y))])
    except Exception as error:  # Triton raises errors of many kinds, its own, the driver's, the C compiler's
        problem = f"{type(error).__name__}: {error}"
    else:
        distances = [(one - other).norm() / other.norm() for one, other in zip(*found, strict=True)]
        if max(distances) < 0.02:
            return True
        problem = f"they differ from PyTorch's by {max(distances):.1%}"
    warnings.warn(f"heedful's Triton kernels are not used on {device} for {dtype} ({problem})", stacklevel=2)
    return False


def _map_gradient(g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    of_x = torch.empty_like(x)
    grid = (triton.cdiv(x.shape[2] * x.shape[3], PLACES), triton.cdiv(x.shape[1], CHANNELS), x.shape[0])
    _backward_map[grid](
        g, _by_tap(weight), _scale_by_tap(scale, geometry), of_x, weight.shape[1], weight.shape[0],
        *x.shape[2:], *g.shape[2:], *of_x.stride(), *g.stride(), *_numbers(geometry), *geometry.kernel,
        PLACES, CHANNELS, DEPTH, _precision(),
    )  # fmt: skip
    return of_x


def _kernel_gradients(
    g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of the shared kernel and of the scale."""
    num_out, num_in, rows, columns = weight.shape
    taps, blocks = rows * columns, (triton.cdiv(num_out, CHANNELS), triton.cdiv(num_in, CHANNELS))
    parts = min(x.shape[0], triton.cdiv(PROGRAMS, blocks[0] * blocks[1] * taps))
    of_weight = torch.empty(parts, taps, num_out, num_in, device=x.device, dtype=torch.float32)
    of_scale = torch.empty(blocks[1], x.shape[0], taps, num_out, device=x.device, dtype=torch.float32)
    _backward_kernel[blocks[0] * blocks[1], taps, parts](
        g, x, _by_tap(weight), _scale_by_tap(scale, geometry), of_weight, of_scale, x.shape[0], num_in, num_out,
        *x.shape[2:], *g.shape[2:], *x.stride(), *g.stride(), *_numbers(geometry), *geometry.kernel,
        parts, CHANNELS, DEPTH, _precision(),
    )  # fmt: skip
    by_place = of_weight.sum(0).permute(1, 2, 0).reshape(weight.shape)
    by_tap = of_scale.sum(0).permute(0, 2, 1).reshape(x.shape[0], num_out, 1, rows, columns)
    return by_place.to(weight.dtype), by_tap.sum_to_size(scale.shape).to(scale.dtype)


def _empty(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=memory_format)


def _by_tap(weight: Tensor) -> Tensor:
    """Return the kernel as (taps, C2, C1)."""
    return weight.flatten(2).permute(2, 0, 1).contiguous()


def _scale_by_tap(scale: Tensor, geometry: Geometry) -> Tensor:
    """Return the scale as (N, taps, C2)."""
    return scale[:, :, 0].expand(-1, -1, *geometry.kernel).flatten(2).transpose(1, 2).contiguous()


def _numbers(geometry: Geometry) -> tuple[int, ...]:
    return *geometry.stride, geometry.padding[0], geometry.padding[2], *geometry.dilation


def _precision() -> str:
    """Return how float32 is multiplied: as PyTorch's own convolutions do."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"


@triton.jit
def _forward(
    x, weight, scale, y, num_in, num_out, height, width, out_height, out_width,
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w, stride_h, stride_w, top, left, dilation_h, dilation_w,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PLACES: tl.constexpr, CHANNELS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    out = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = place // out_width, place % out_width
    total = tl.zeros((PLACES, CHANNELS), tl.float32)
    for tap in range(ROWS * COLUMNS):
        h = row * stride_h + (tap // COLUMNS) * dilation_h - top
        w = column * stride_w + (tap % COLUMNS) * dilation_w - left
        inside = (row < out_height) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        product = tl.zeros((PLACES, CHANNELS), tl.float32)
        for first in range(0, num_in, DEPTH):
            channel = first + tl.arange(0, DEPTH)
            at = image * x_n + h[:, None] * x_h + w[:, None] * x_w + channel[None, :] * x_c
            read = tl.load(x + at, mask=inside[:, None] & (channel < num_in)[None, :], other=0.0)
            within = (channel < num_in)[:, None] & (out < num_out)[None, :]
            kernel = tl.load(weight + (tap * num_out + out[None, :]) * num_in + channel[:, None], within, other=0.0)
            product = tl.dot(read, kernel, product, input_precision=PRECISION)
        factor = tl.load(scale + (image * ROWS * COLUMNS + tap) * num_out + out, out < num_out, other=0.0)
        total += product * factor.to(tl.float32)[None, :]
    at = image * y_n + row[:, None] * y_h + column[:, None] * y_w + out[None, :] * y_c
    tl.store(y + at, total.to(y.dtype.element_ty), (row < out_height)[:, None] & (out < num_out)[None, :])


@triton.jit
def _backward_map(
    g, weight, scale, of_x, num_in, num_out, height, width, out_height, out_width,
    x_n, x_c, x_h, x_w, g_n, g_c, g_h, g_w, stride_h, stride_w, top, left, dilation_h, dilation_w,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PLACES: tl.constexpr, CHANNELS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    into = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = place // width, place % width
    total = tl.zeros((PLACES, CHANNELS), tl.float32)
    for tap in range(ROWS * COLUMNS):
        above = row + top - (tap // COLUMNS) * dilation_h
        before = column + left - (tap % COLUMNS) * dilation_w
        h, w = above // stride_h, before // stride_w
        met = (above >= 0) & (before >= 0) & (above % stride_h == 0) & (before % stride_w == 0)
        inside = met & (row < height) & (h < out_height) & (w < out_width)
        for first in range(0, num_out, DEPTH):
            channel = first + tl.arange(0, DEPTH)
            at = image * g_n + h[:, None] * g_h + w[:, None] * g_w + channel[None, :] * g_c
            read = tl.load(g + at, mask=inside[:, None] & (channel < num_out)[None, :], other=0.0)
            factor = tl.load(scale + (image * ROWS * COLUMNS + tap) * num_out + channel, channel < num_out, other=0.0)
            within = (channel < num_out)[:, None] & (into < num_in)[None, :]
            kernel = tl.load(weight + (tap * num_out + channel[:, None]) * num_in + into[None, :], within, other=0.0)
            scaled = (read.to(tl.float32) * factor.to(tl.float32)[None, :]).to(read.dtype)
            total = tl.dot(scaled, kernel, total, input_precision=PRECISION)
    at = image * x_n + row[:, None] * x_h + column[:, None] * x_w + into[None, :] * x_c
    tl.store(of_x + at, total.to(of_x.dtype.element_ty), (row < height)[:, None] & (into < num_in)[None, :])


@triton.jit
def _backward_kernel(
    g, x, weight, scale, of_weight, of_scale, num_images, num_in, num_out, height, width, out_height, out_width,
    x_n, x_c, x_h, x_w, g_n, g_c, g_h, g_w, stride_h, stride_w, top, left, dilation_h, dilation_w,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, parts,
    CHANNELS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tap, part = tl.program_id(1), tl.program_id(2)
    blocks = tl.cdiv(num_in, CHANNELS)
    block = tl.program_id(0) % blocks
    out = (tl.program_id(0) // blocks) * CHANNELS + tl.arange(0, CHANNELS)
    into = block * CHANNELS + tl.arange(0, CHANNELS)
    within = (out < num_out)[:, None] & (into < num_in)[None, :]
    at = (tap * num_out + out[:, None]) * num_in + into[None, :]
    kernel = tl.load(weight + at, within, other=0.0).to(tl.float32)
    total = tl.zeros((CHANNELS, CHANNELS), tl.float32)
    for image in range(part, num_images, parts):
        number = tl.cast(image, tl.int64)
        product = tl.zeros((CHANNELS, CHANNELS), tl.float32)
        for first in range(0, out_height * out_width, DEPTH):
            place = first + tl.arange(0, DEPTH)
            row, column = place // out_width, place % out_width
            h = row * stride_h + (tap // COLUMNS) * dilation_h - top
            w = column * stride_w + (tap % COLUMNS) * dilation_w - left
            inside = (row < out_height) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
            g_at = number * g_n + row[None, :] * g_h + column[None, :] * g_w + out[:, None] * g_c
            gradient = tl.load(g + g_at, inside[None, :] & (out < num_out)[:, None], other=0.0)
            x_at = number * x_n + h[:, None] * x_h + w[:, None] * x_w + into[None, :] * x_c
            read = tl.load(x + x_at, inside[:, None] & (into < num_in)[None, :], other=0.0)
            product = tl.dot(gradient, read, product, input_precision=PRECISION)
        factor = tl.load(scale + (number * ROWS * COLUMNS + tap) * num_out + out, out < num_out, other=0.0)
        total += product * factor.to(tl.float32)[:, None]
        s_at = ((block * num_images + number) * ROWS * COLUMNS + tap) * num_out + out
        tl.store(of_scale + s_at, tl.sum(product * kernel, 1), out < num_out)
    w_at = ((part.to(tl.int64) * ROWS * COLUMNS + tap) * num_out + out[:, None]) * num_in + into[None, :]
    tl.store(of_weight + w_at, total, within)
