"""Separation, insertion, deletion and blur, image by image from their definitions; slow."""

import itertools
import math

import torch


def ks(true, confusing):
    """Greatest |F_C(x) − F_T(x)| over the values x."""
    return max(
        abs(sum(c <= x for c in confusing) / len(confusing) - sum(t <= x for t in true) / len(true))
        for x in [*true, *confusing]
    )


def overlap(target, confusing):
    above = below = 0.0
    for t, c in zip(target.flatten().tolist(), confusing.flatten().tolist(), strict=True):
        t, c = t / float(target.max()), c / float(confusing.max())
        above += 2 * min(t, c)
        below += t + c
    return above / below


@torch.no_grad()
def curve(model, start, end, map_, cls, num_steps):
    """Probabilities of a class as pixels of one image (C, H, W) change from start to end, the map's highest first."""
    width = map_.shape[1]
    order = sorted(range(map_.numel()), key=lambda place: -float(map_.flatten()[place]))
    found = []
    for step in range(num_steps + 1):
        shown = start.clone()
        for place in order[: round(step / num_steps * map_.numel())]:
            shown[:, place // width, place % width] = end[:, place // width, place % width]
        scores = model(shown[None])[0]
        found.append(math.exp(float(scores[cls])) / sum(math.exp(float(score)) for score in scores))
    return found


def area(points):
    return sum((a + b) / 2 for a, b in itertools.pairwise(points)) / (len(points) - 1)


def mirrored(place, length):
    place = abs(place)
    return place if place < length else 2 * (length - 1) - place


def blurred(image, size, deviation):
    """One image (C, H, W) under a Gaussian of size × size weights that add up to 1."""
    margin = size // 2
    offsets = range(-margin, margin + 1)
    weights = {(i, j): math.exp(-(i * i + j * j) / (2 * deviation**2)) for i in offsets for j in offsets}
    total = sum(weights.values())
    result = torch.zeros_like(image)
    for channel in range(image.shape[0]):
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                result[channel, row, column] = sum(
                    weight
                    / total
                    * image[channel, mirrored(row + i, image.shape[1]), mirrored(column + j, image.shape[2])]
                    for (i, j), weight in weights.items()
                )
    return result
