"""What drawing splits rests on: images in random order, and whole numbers in proportion."""

import math

import torch
from jaxtyping import Int64
from torch import Tensor


def ranks(strata: Int64[Tensor, "count"], generator: torch.Generator) -> Int64[Tensor, "count"]:
    """Return each image's place, from 0, in a random order of its own stratum."""
    shuffled = torch.randperm(len(strata), generator=generator)
    order = shuffled[strata[shuffled].argsort(stable=True)]
    counts = strata.bincount()
    starts = counts.cumsum(0) - counts
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order)) - starts[strata[order]]
    return places


def proportional(counts: Int64[Tensor, "strata"], total: int) -> Int64[Tensor, "strata"]:
    """Return whole numbers in proportion to the counts that add up to the total (largest remainders)."""
    exact = counts.double() * (total / int(counts.sum()))
    quotas = exact.floor().long()
    missing = total - int(quotas.sum())
    quotas[(exact - quotas).argsort(descending=True, stable=True)[:missing]] += 1
    return quotas


def limited(limit: float | int, count: int) -> int:
    """Return how many of so many images a limit leaves: a fraction of them (float), or at most a number (int)."""
    return round(limit * count) if isinstance(limit, float) else min(limit, count)


def share(fraction: float, count: int) -> int:
    """Return that fraction of a number of images, rounded, at least one."""
    return max(1, math.floor(fraction * count + 0.5))
