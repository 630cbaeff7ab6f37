"""[J]'s attention in loops, written from its equations; NumPy alone."""

import math

import numpy as np


def score(name, local, vector, parameters):
    """Return c of one place: local and vector are (C,)."""
    if name == "dp":
        return sum(a * b for a, b in zip(local, vector, strict=True))
    if name == "pc":
        return sum(u * (a + b) for u, a, b in zip(parameters["weight"], local, vector, strict=True))
    hidden = [
        math.tanh(sum(w * a for w, a in zip(row, local, strict=True)) + b + sum(v * g for v, g in zip(other, vector, strict=True)))
        for row, other, b in zip(parameters["local"], parameters["vector"], parameters["bias"], strict=True)
    ]  # fmt: skip
    return sum(u * h for u, h in zip(parameters["weight"], hidden, strict=True))


def weights(name, local, vector, parameters, gate=None):
    """Return a (H, W) of one map (C, H, W): a softmax over the places, or the gate's weights over their number."""
    _, height, width = local.shape
    scores = np.array(
        [[score(name, local[:, i, j], vector, parameters) for j in range(width)] for i in range(height)],
    )
    if gate is not None:
        return np.vectorize(gate)(scores) / (height * width)
    total = sum(math.exp(c) for c in scores.flat)
    return np.vectorize(lambda c: math.exp(c) / total)(scores)


def attended(local, weights):
    """Return the sum over places of a l, (C,)."""
    _, height, width = local.shape
    return sum(weights[i, j] * local[:, i, j] for i in range(height) for j in range(width))
