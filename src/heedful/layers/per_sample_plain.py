"""Convolution with a kernel of its own for each image (equation 5 of [Z]), in operations that PyTorch differentiates.

[Z] is Zhu et al., "An Attention Module for Convolutional Neural Networks", ICANN 2021. Four exact ways to compute

    y[n, p] = Σ_o Σ_jk x[n, o, m'+j, n'+k] · scale[n, p, o, j, k] · weight[p, o, j, k]

where `scale` has one block for all input channels, or blocks of equally many. These are what `torch.compile` and
`torch.export` see, what gives second derivatives, and what the quicker ways of the neighbouring files are tested on.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from heedful.layers.per_sample_geometry import Geometry, Phase

Maps = Float[Tensor, "batch channels height width"]
Kernels = Float[Tensor, "out_channels in_channels rows columns"]
Outputs = Float[Tensor, "batch out_channels out_height out_width"]
Scales = Float[Tensor, "batch out_channels blocks scale_rows scale_columns"]


def output(x: Maps, weight: Kernels, scale: Scales, geometry: Geometry) -> Outputs:
    """Scale the output of one convolution: where the scale is the same for a whole kernel."""
    padded, padding = geometry.padded(x)
    y = F.conv2d(padded, weight, None, geometry.stride, padding, geometry.dilation, geometry.groups)
    return y * scale[:, :, 0]


def grouped(x: Maps, weight: Kernels, scale: Scales, geometry: Geometry) -> Outputs:
    """Make a group of each image, in one grouped convolution with all images' kernels."""
    padded, padding = geometry.padded(x)
    images, kernels = as_groups(padded), as_groups(own_kernels(weight, scale), 1)
    groups = geometry.groups * x.shape[0]
    y = F.conv2d(images, kernels, None, geometry.stride, padding, geometry.dilation, groups)
    return y.view(x.shape[0], weight.shape[0], *y.shape[2:])


def own_kernels(weight: Tensor, scale: Tensor) -> Tensor:
    """Return each image's kernel (N, C2, C1, h, w): `scale` times `weight`."""
    blocks = scale.shape[2]
    split = torch.unflatten(weight, 1, (blocks, -1))
    return (scale.unsqueeze(3) * split).flatten(2, 3)


def as_groups(x: Tensor, first: int = 0) -> Tensor:
    """Return (N, C, ...) as (1, N C, ...), or (N C, ...) if `first` is 1: one long list of channels."""
    flat = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    return flat if first else flat.unsqueeze(0)


def unfold(x: Maps, weight: Kernels, scale: Scales, geometry: Geometry) -> Outputs:
    """Multiply each image's kernel, as a matrix, with the image's patches."""
    padded, padding = geometry.padded(x)
    patches = F.unfold(padded, geometry.kernel, geometry.dilation, padding, geometry.stride)
    kernels = torch.unflatten(own_kernels(weight, scale).flatten(2), 1, (geometry.groups, -1))
    y = torch.matmul(kernels, torch.unflatten(patches, 1, (geometry.groups, -1)))
    return torch.unflatten(y.flatten(1, 2), 2, geometry.output_size((x.shape[2], x.shape[3])))


def taps(x: Maps, weight: Kernels, scale: Scales, geometry: Geometry) -> Outputs:
    """Add up the kernel's places: a 1x1 convolution each, scaled by image and channel, shifted to where it belongs.

    Needs a scale with one block. Never makes the images' own kernels.
    """
    size = geometry.output_size((x.shape[2], x.shape[3]))
    by_tap = scale[:, :, 0].expand(-1, -1, *geometry.kernel)
    terms = []
    for phase in geometry.phases((x.shape[2], x.shape[3])):
        products = _products(x, weight, phase, geometry.groups)
        scales = by_tap[:, :, phase.kernel[0], phase.kernel[1]].flatten(2)
        for number, tap in enumerate(phase.taps):
            reached = products[:, number][:, :, tap.inputs[0], tap.inputs[1]]
            terms.append(F.pad(reached * scales[:, :, number, None, None], _border(tap.outputs, size)))
    # Nothing reaches the map where each output lies in the padding; the other form gives zeros with a gradient.
    return functools.reduce(torch.add, terms) if terms else grouped(x, weight, scale, geometry)


def _products(x: Tensor, weight: Tensor, phase: Phase, groups: int) -> Tensor:
    """Return, for each tap, the 1x1 convolution of the phase's places: (N, taps, C2, rows, columns)."""
    places = x[:, :, phase.places[0], phase.places[1]]
    kernels = weight[:, :, phase.kernel[0], phase.kernel[1]].flatten(2).permute(2, 0, 1)
    if groups == 1:
        products = F.conv2d(places, kernels.flatten(0, 1).unsqueeze(-1).unsqueeze(-1))
        return torch.unflatten(products, 1, (kernels.shape[0], -1))
    by_group = torch.unflatten(kernels, 1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    products = F.conv2d(places, by_group.unsqueeze(-1).unsqueeze(-1), groups=groups)
    return torch.unflatten(products, 1, (groups, kernels.shape[0], -1)).transpose(1, 2).flatten(2, 3)


def _border(outputs: tuple[slice, slice], size: tuple[int, int]) -> list[int]:
    rows, columns = outputs
    return [columns.start, size[1] - columns.stop, rows.start, size[0] - rows.stop]
