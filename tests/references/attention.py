"""Slow implementations of equations 1 to 7 of [L] in float64, one number at a time."""

import math

import numpy as np
import torch


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def sigmoid_slope(z):
    return sigmoid(z) * sigmoid(-z)


def attend(z):
    return sigmoid(z), sigmoid_slope(z)


def ign1(alpha):
    return lambda z: (1 - alpha * sigmoid(z), -alpha * sigmoid_slope(z))


def ign2(z):
    """σ(1/σ(z)); below z = -300 1/σ(z) is so large that weight and slope are 1 and 0 in float64."""
    if z < -300:
        return 1.0, 0.0
    inverse = 1 / sigmoid(z)
    return sigmoid(inverse), -sigmoid_slope(inverse) * math.exp(-z)


def ign3(z):
    return sigmoid(-z), -sigmoid_slope(z)


def squeeze_excitation(x, w1, b1, w2, b2, gate):
    """Equation 6, image by image and channel by channel; `gate` gives (weight, slope)."""
    out = np.empty_like(x)
    for n, image in enumerate(x):
        squeezed = [channel.mean() for channel in image]
        for c, logit in enumerate(mlp(squeezed, w1, b1, w2, b2)):
            out[n, c] = image[c] * gate(logit)[0]
    return out


def mlp(vector, w1, b1, w2, b2):
    hidden = [max(0.0, sum(w * v for w, v in zip(row, vector, strict=True)) + b) for row, b in zip(w1, b1, strict=True)]
    return [sum(w * h for w, h in zip(row, hidden, strict=True)) + b for row, b in zip(w2, b2, strict=True)]


def channel_attention(x, w1, b1, w2, b2, gate):
    """The first two lines of equation 7."""
    out = np.empty_like(x)
    for n, image in enumerate(x):
        mean = mlp([channel.mean() for channel in image], w1, b1, w2, b2)
        top = mlp([channel.max() for channel in image], w1, b1, w2, b2)
        for c in range(len(image)):
            out[n, c] = image[c] * gate(mean[c] + top[c])[0]
    return out


def spatial_attention(x, kernel, gate):
    """The last line of equation 7: a kxk cross-correlation with zero padding over [mean; max]."""
    out = np.empty_like(x)
    reach = kernel.shape[-1] // 2
    for n, image in enumerate(x):
        pooled = np.pad(np.stack([image.mean(0), image.max(0)]), ((0, 0), (reach, reach), (reach, reach)))
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                window = pooled[:, i : i + kernel.shape[-2], j : j + kernel.shape[-1]]
                out[n, :, i, j] = image[:, i, j] * gate((window * kernel).sum())[0]
    return out


def numbers(*tensors):
    return [tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else tensor for tensor in tensors]
