"""[J]'s attention in loops, written from its equations; NumPy alone."""

import math

import numpy as np


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def score(name, local, vector, parameters):
    """Return c of one place: local and vector are (C,)."""
    if name == "dp":
        return dot(local, vector)
    if name == "pc":
        return dot(parameters["weight"], [a + b for a, b in zip(local, vector, strict=True)])
    rows = zip(parameters["local"], parameters["vector"], parameters["bias"], strict=True)
    hidden = [math.tanh(dot(of_l, local) + dot(of_g, vector) + bias) for of_l, of_g, bias in rows]
    return dot(parameters["weight"], hidden)


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
