"""Slow AW-convolution written from equations 5, 7 and 8 of [Z] (Zhu et al., ICANN 2021)."""

import numpy as np
import torch
import torch.nn.functional as F

from tests.references.more_layers import batch_norm


def attention(x, size, first, first_norm, last, last_norm):
    """Equation 7 before the expansion and the gate: logits of x (N, C, H, W), place by place of the pooled map."""
    pooled = np.stack([[[bin.mean((1, 2)) for bin in row] for row in bins(image, size)] for image in x])
    hidden = np.maximum(first_norm(np.moveaxis(pooled @ first.T, 3, 1)), 0)
    return last_norm(np.moveaxis(np.moveaxis(hidden, 1, 3) @ last.T, 3, 1))


def bins(image, size):
    """The rows and columns that each place of an adaptive average pool covers."""
    rows, columns = [
        [(i * length // number, -(-(i + 1) * length // number)) for i in range(number)]
        for length, number in zip(image.shape[1:], size, strict=True)
    ]
    return [[image[:, top:bottom, left:right] for left, right in columns] for top, bottom in rows]


def expanded(a, out_channels, in_channels, rows, columns):
    """Equation 8 along C1, and likewise along C2, h and w: (N, C2/r, C1/r, h/r, w/r) to (N, C2, C1, h, w)."""
    for axis, size in enumerate((out_channels, in_channels, rows, columns), 1):
        ratio = size // a.shape[axis]
        shape = [*a.shape[: axis + 1], ratio, *a.shape[axis + 1 :]]
        a = a.unsqueeze(axis + 1).expand(shape).reshape(*a.shape[:axis], size, *a.shape[axis + 1 :])
    return a


def number_by_number(x, kernels, stride, padding, dilation, groups):
    """Equation 5: x (N, C, H, W), kernels (N, C2, C1, h, w), padding (top, bottom, left, right) of zeros."""
    top, bottom, left, right = padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    num_out, num_in, height, width = kernels.shape[1:]
    rows = (x.shape[2] - dilation[0] * (height - 1) - 1) // stride[0] + 1
    columns = (x.shape[3] - dilation[1] * (width - 1) - 1) // stride[1] + 1
    y = np.zeros((len(x), num_out, rows, columns))
    for n, p, m, q in np.ndindex(*y.shape):
        first = p // (num_out // groups) * num_in
        for o, j, k in np.ndindex(num_in, height, width):
            place = x[n, first + o, m * stride[0] + j * dilation[0], q * stride[1] + k * dilation[1]]
            y[n, p, m, q] += place * kernels[n, p, o, j, k]
    return y


def image_by_image(x, kernels, stride, padding, dilation, groups):
    """Equation 5 as a loop over images, which autograd differentiates."""
    top, bottom, left, right = padding
    x = F.pad(x, (left, right, top, bottom))
    return torch.cat(
        [
            F.conv2d(image[None], kernel, None, stride, 0, dilation, groups)
            for image, kernel in zip(x, kernels, strict=True)
        ]
    )


__all__ = ["attention", "batch_norm", "expanded", "image_by_image", "number_by_number"]
