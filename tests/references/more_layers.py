"""Slow implementations of the other attention layers from their papers' equations: numpy, float64, image by image.

Each returns the logits, as one number per image, channel and place. `norm` is a batch norm: arrays (N, C, ...) in and
out, see `batch_norm`.
"""

import math

import numpy as np

from tests.references.attention import mlp


def batch_norm(weight, bias, mean=None, variance=None, eps=1e-5):
    """With the batch's own mean and variance where none are given, channel by channel."""

    def normalize(z):
        out = np.empty_like(z)
        for c in range(z.shape[1]):
            values = z[:, c].ravel().tolist()
            middle = sum(values) / len(values) if mean is None else mean[c]
            spread = sum((v - middle) ** 2 for v in values) / len(values) if variance is None else variance[c]
            out[:, c] = (z[:, c] - middle) / math.sqrt(spread + eps) * weight[c] + bias[c]
        return out

    return normalize


def spread(per_channel, x):
    return np.array(per_channel)[:, :, None, None] * np.ones_like(x)


def efficient_channel_attention(x, kernel):
    reach = len(kernel) // 2
    logits = []
    for image in x:
        means = [channel.mean() for channel in image]
        near = [[(i, c + i - reach) for i in range(len(kernel))] for c in range(len(means))]
        logits.append([sum(kernel[i] * means[c] for i, c in pairs if 0 <= c < len(means)) for pairs in near])
    return spread(logits, x)


def convolution(image, kernels, bias=None, *, stride=1, dilation=1, padding=0, depthwise=False):
    """One image (C, H, W), kernels (C2, C1, k, l): a sum over taps and channels for each place."""
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    height, width = kernels.shape[2:]
    rows = (padded.shape[1] - dilation * (height - 1) - 1) // stride + 1
    columns = (padded.shape[2] - dilation * (width - 1) - 1) // stride + 1
    out = np.zeros((len(kernels), rows, columns))
    for c, kernel in enumerate(kernels):
        seen = padded[c : c + 1] if depthwise else padded
        for i in range(rows):
            for j in range(columns):
                top, left = i * stride, j * stride
                window = seen[:, top : top + dilation * height : dilation, left : left + dilation * width : dilation]
                out[c, i, j] = (window[:, :height, :width] * kernel).sum() + (0 if bias is None else bias[c])
    return out


def bottleneck_attention(x, channel_weights, channel_norm, convolutions, spatial_norm, dilation):
    """`channel_weights`: W0, b0, W1; `convolutions`: (kernels, bias) of the 1x1, the two 3x3 and the last 1x1."""
    w0, b0, w1 = channel_weights
    channel = np.array([mlp([c.mean() for c in image], w0, b0, w1, [0.0] * len(image)) for image in x])
    spatial = []
    for image in x:
        for number, (kernels, bias) in enumerate(convolutions):
            reach = dilation if kernels.shape[-1] == 3 else 0
            image = convolution(
                image if number == 0 else np.maximum(image, 0), kernels, bias, dilation=max(1, reach), padding=reach
            )
        spatial.append(image)
    return channel_norm(channel)[:, :, None, None] + spatial_norm(np.array(spatial))


def gathered_means(x, extent):
    """The mean over the (2e-1)x(2e-1) places around every e-th, those outside the map left out; e = 0: over all."""
    if extent == 0:
        return np.array([[[[channel.mean()]] for channel in image] for image in x])
    reach = extent - 1
    rows, columns = range(0, x.shape[2], extent), range(0, x.shape[3], extent)
    out = np.empty((*x.shape[:2], len(rows), len(columns)))
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            window = x[:, :, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
            out[:, :, a, b] = window.mean((2, 3))
    return out


def gathered_depthwise(x, kernels, norms, *, stride, padding):
    for number, (kernel, norm) in enumerate(zip(kernels, norms, strict=True)):
        x = np.maximum(x, 0) if number else x
        x = norm(np.array([convolution(i, kernel, stride=stride, padding=padding, depthwise=True) for i in x]))
    return x


def excite(x, gathered, mixing=None):
    """Each place takes what was gathered nearest to it; `mixing`: W1, b1, W2, b2."""
    rows, columns = gathered.shape[2:]
    out = np.empty_like(x)
    for n in range(len(x)):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                vector = gathered[n, :, i * rows // x.shape[2], j * columns // x.shape[3]]
                out[n, :, i, j] = vector if mixing is None else mlp(vector, *mixing)
    return out


def global_context(x, place_weights, w1, b1, scale, shift, w2, b2, eps=1e-5):
    """The layer norm's scale and shift; None where there is none."""
    logits = []
    for image in x:
        places = image.reshape(len(image), -1).T
        heeded = [math.exp(sum(w * v for w, v in zip(place_weights, place, strict=True))) for place in places]
        context = sum(h * place for h, place in zip(heeded, places, strict=True)) / sum(heeded)
        hidden = [sum(w * v for w, v in zip(row, context, strict=True)) + b for row, b in zip(w1, b1, strict=True)]
        if scale is not None:
            middle = sum(hidden) / len(hidden)
            deviation = math.sqrt(sum((h - middle) ** 2 for h in hidden) / len(hidden) + eps)
            hidden = [(h - middle) / deviation * s + t for h, s, t in zip(hidden, scale, shift, strict=True)]
        hidden = [max(0.0, h) for h in hidden]
        logits.append([sum(w * h for w, h in zip(row, hidden, strict=True)) + b for row, b in zip(w2, b2, strict=True)])
    return spread(logits, x)


def coordinate_attention(x, w1, norm, height, width):
    """`height` and `width`: (weights, bias). Returns the logits of both directions."""
    lines = np.concatenate([x.mean(3), x.mean(2)], axis=2)
    encoded = norm(np.array([w1 @ image for image in lines]))
    encoded = encoded * np.clip(encoded + 3, 0, 6) / 6
    num_rows = x.shape[2]
    of_rows = np.array([height[0] @ image[:, :num_rows] + height[1][:, None] for image in encoded])
    of_columns = np.array([width[0] @ image[:, num_rows:] + width[1][:, None] for image in encoded])
    return of_rows[:, :, :, None] * np.ones_like(x), of_columns[:, :, None, :] * np.ones_like(x)


def simam(x, regularization):
    out = np.empty_like(x)
    for n, image in enumerate(x):
        for c, channel in enumerate(image):
            middle, num_places = channel.mean(), channel.size
            variance = sum((t - middle) ** 2 for t in channel.ravel().tolist()) / max(num_places - 1, 1)
            out[n, c] = (channel - middle) ** 2 / (4 * (variance + regularization)) + 0.5
    return out


def style_recalibration(x, weights, norm, eps=1e-5):
    z = np.empty(x.shape[:2])
    for n, image in enumerate(x):
        for c, channel in enumerate(image):
            middle = channel.mean()
            variance = sum((t - middle) ** 2 for t in channel.ravel().tolist()) / channel.size
            z[n, c] = weights[c][0] * middle + weights[c][1] * math.sqrt(variance + eps)
    return spread(norm(z), x)
