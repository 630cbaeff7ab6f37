"""Selective Kernel convolution from its paper's equations, in numpy, float64, one number at a time."""

import math

import numpy as np

from tests.references.more_layers import batch_norm

INDEX = {
    "zeros": lambda i, size: i if 0 <= i < size else None,
    "replicate": lambda i, size: min(max(i, 0), size - 1),
    "circular": lambda i, size: i % size,
    "reflect": lambda i, size: size - 1 - abs(size - 1 - abs(i)),
}


def value(image, i, j, mode):
    i, j = INDEX[mode](i, image.shape[0]), INDEX[mode](j, image.shape[1])
    return 0.0 if i is None or j is None else image[i, j]


def convolution(x, kernel, bias, *, size, start, stride, dilation, groups, mode):
    """Place (i, j) of the output sees the window from (i, j) * stride + start on; `size` rows and columns."""
    out = np.zeros((len(x), len(kernel), *size))
    per_group, width = len(kernel) // groups, kernel.shape[1]
    for n, c, i, j in np.ndindex(out.shape):
        for m, k, l in np.ndindex(kernel.shape[1:]):  # noqa: E741
            place = [s * o + b + d * t for s, o, b, d, t in zip(stride, (i, j), start, dilation, (k, l), strict=True)]
            out[n, c, i, j] += kernel[c, m, k, l] * value(x[n, c // per_group * width + m], *place, mode)
        out[n, c, i, j] += 0 if bias is None else bias[c]
    return out


def branches(x, kernels, biases, *, stride, padding, dilation, groups, mode):
    """U1 and U2: the second window is twice as far dilated around the centre of the first, rounded up and left."""
    reach = [d * (k - 1) for d, k in zip(dilation, kernels[0].shape[2:], strict=True)]
    size = [(n + 2 * p - r - 1) // s + 1 for n, p, r, s in zip(x.shape[2:], padding, reach, stride, strict=True)]
    start = [-p for p in padding]
    further = [-p - math.ceil(r / 2) for p, r in zip(padding, reach, strict=True)]
    double = [2 * d for d in dilation]
    options = {"size": size, "stride": stride, "groups": groups, "mode": mode}
    return (
        convolution(x, kernels[0], biases[0], start=start, dilation=dilation, **options),
        convolution(x, kernels[1], biases[1], start=further, dilation=double, **options),
    )


def selective_kernel(u1, u2, contract, norm, select, weigh=None):
    """Equations 1 to 6 from both branches on; `norm`: weight, bias, and mean and variance or neither.

    `weigh` is the weight of U1 from a - b; by default the softmax over a and b is taken.
    """
    squeezed = np.array([[(a + b).mean() for a, b in zip(*maps, strict=True)] for maps in zip(u1, u2, strict=True)])
    features = np.maximum(batch_norm(*norm)(squeezed @ contract.T), 0)
    channels = len(select) // 2
    a, b = features @ select[:channels].T, features @ select[channels:].T
    if weigh is None:
        weights = np.exp(a) / (np.exp(a) + np.exp(b)), np.exp(b) / (np.exp(a) + np.exp(b))
    else:
        own = np.vectorize(weigh)(a - b)
        weights = own, 1 - own
    return weights[0][:, :, None, None] * u1 + weights[1][:, :, None, None] * u2
