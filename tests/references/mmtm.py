"""MMTM from its equations in loops: numpy, float64, element by element; gates give (weight, slope)."""

import numpy as np


def joint_of(means, weight, bias):
    """Return W s + b and its ReLU for one element, s being the means of all streams in a row."""
    row = [value for of_stream in means for value in of_stream]
    before = [
        sum(w * s for w, s in zip(weights, row, strict=True)) + b for weights, b in zip(weight, bias, strict=True)
    ]
    return row, before, [max(0.0, z) for z in before]


def places(x):
    """Return one element's stream as rows of channels; a vector has one place a channel."""
    return x.reshape(x.shape[0], -1)


def forward(streams, squeeze, expands, gate, factor=1.0, absent=()):
    """Return the weighted streams.

    `squeeze` and each of `expands` is (weight, bias); `absent` holds pairs of element and stream.
    """
    outs = [np.empty_like(x) for x in streams]
    for n in range(len(streams[0])):
        means = [[row.mean() for row in places(x[n])] for x in streams]
        means = [[0.0] * len(m) if (n, k) in absent else m for k, m in enumerate(means)]
        _, _, hidden = joint_of(means, *squeeze)
        for x, out, (weight, bias) in zip(streams, outs, expands, strict=True):
            for c in range(x.shape[1]):
                z = sum(w * h for w, h in zip(weight[c], hidden, strict=True)) + bias[c]
                out[n, c] = x[n, c] * factor * gate(z)[0]
    return outs


def backward(streams, squeeze, expands, gate, gradients, factor=1.0):
    """Return the gradients of `sum(y * gradients)`: of the streams, of the squeeze, and of each expansion."""
    of_streams = [np.empty_like(x) for x in streams]
    of_squeeze = tuple(np.zeros_like(p) for p in squeeze)
    of_expands = [tuple(np.zeros_like(p) for p in pair) for pair in expands]
    for n in range(len(streams[0])):
        row, before, hidden = joint_of([[r.mean() for r in places(x[n])] for x in streams], *squeeze)
        of_hidden = [0.0] * len(hidden)
        for k, (x, (weight, bias)) in enumerate(zip(streams, expands, strict=True)):
            for c in range(x.shape[1]):
                value, slope = gate(sum(w * h for w, h in zip(weight[c], hidden, strict=True)) + bias[c])
                of_streams[k][n, c] = gradients[k][n, c] * factor * value
                of_logit = factor * slope * (gradients[k][n, c] * x[n, c]).sum()
                of_expands[k][1][c] += of_logit
                for j, h in enumerate(hidden):
                    of_expands[k][0][c, j] += of_logit * h
                    of_hidden[j] += of_logit * weight[c, j]
        of_row = [0.0] * len(row)
        for j, (z, g) in enumerate(zip(before, of_hidden, strict=True)):
            if z > 0:
                of_squeeze[1][j] += g
                for i, s in enumerate(row):
                    of_squeeze[0][j, i] += g * s
                    of_row[i] += g * squeeze[0][j, i]
        position = 0
        for x, out in zip(streams, of_streams, strict=True):
            for c in range(x.shape[1]):
                out[n, c] += of_row[position] / places(x[n]).shape[1]
                position += 1
    return of_streams, of_squeeze, of_expands
