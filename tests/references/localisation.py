"""Localisation metrics, pixel by pixel from their definitions; slow."""

import numpy as np


def average_precision(scores, masks, num_bins):
    """Σ P_n (R_n − R_{n−1}) over thresholds k / num_bins from the highest; scores and masks of any number of images."""
    pairs = [(float(s), bool(m)) for s, m in zip(np.ravel(scores), np.ravel(masks), strict=True)]
    total, area, before = sum(m for _, m in pairs), 0.0, 0.0
    for k in range(num_bins, -1, -1):
        reached = [m for s, m in pairs if s >= k / num_bins]
        if reached:
            recall = sum(reached) / total
            area += sum(reached) / len(reached) * (recall - before)
            before = recall
    return area


def regions(binary):
    """Regions of true pixels (row, column), corners connected, each as a set."""
    left = {(r, c) for r in range(binary.shape[0]) for c in range(binary.shape[1]) if binary[r, c]}
    found = []
    while left:
        region, waiting = set(), [left.pop()]
        while waiting:
            row, column = waiting.pop()
            region.add((row, column))
            for near in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    waiting.append(near)
        found.append(region)
    return found


def box_around(region):
    rows, columns = [r for r, _ in region], [c for _, c in region]
    return min(columns), min(rows), max(columns), max(rows)


def pixels_of(box):
    left, top, right, bottom = (int(corner) for corner in box)
    return {(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)}


def overlap_of_boxes(first, second):
    first, second = pixels_of(first), pixels_of(second)
    return len(first & second) / len(first | second)


def best_overlap(scores, boxes, threshold):
    around = [box_around(region) for region in regions(scores > threshold * scores.max())]
    return max((overlap_of_boxes(a, b) for a in around for b in boxes), default=0.0)


def max_box_accuracy(scores, boxes, thresholds, delta):
    """Over images: the accuracy at the best threshold."""
    accuracies = []
    for threshold in thresholds:
        hits = [best_overlap(s, b, threshold) >= delta for s, b in zip(scores, boxes, strict=True)]
        accuracies.append(sum(hits) / len(hits))
    return max(accuracies)


def points_at(scores, mask, tolerance):
    best, place = -1.0, None
    for row in range(scores.shape[0]):
        for column in range(scores.shape[1]):
            if scores[row, column] > best:
                best, place = scores[row, column], (row, column)
    if best == 0:
        return False
    return any(
        mask[row, column] and (row - place[0]) ** 2 + (column - place[1]) ** 2 <= tolerance**2
        for row in range(scores.shape[0])
        for column in range(scores.shape[1])
    )


def energy(map_, mask):
    inside = sum(float(map_[place]) for place in np.ndindex(map_.shape) if mask[place])
    total = sum(float(map_[place]) for place in np.ndindex(map_.shape))
    return inside / total if total else 0.0


def otsu(scores):
    """The threshold with the least variance within the two classes, by trying every score."""
    best, threshold = np.inf, float(scores.max())
    for value in np.unique(scores)[:-1]:
        low, high = scores[scores <= value], scores[scores > value]
        within = low.size * low.var() + high.size * high.var()
        if within < best - 1e-12:
            best, threshold = within, float(value)
    return threshold


def jaccard(above, mask):
    first = {place for place in np.ndindex(mask.shape) if above[place]}
    second = {place for place in np.ndindex(mask.shape) if mask[place]}
    return len(first & second) / len(first | second)
