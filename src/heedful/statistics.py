"""Seeds -> mean, interval and paired test: what a few runs can say about a difference, and what they cannot.

Two variants trained with the same seeds are compared seed by seed. The t interval and t-test assume roughly normal
differences; the permutation test (random signs of the differences) assumes only that they are symmetric about 0.

The distributions come from scipy.special: scipy.stats wraps the same functions, and takes seconds to import.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heedful.errors import InputError

SIGNIFICANCE = 0.05  # two-sided, for `detectable` and for every "counts as a difference" of the report
POWER = 0.8  # the customary chance of finding a true difference, for `detectable`
MOST_EXACT_FLIPS = 2**16
NUM_MONTE_CARLO_FLIPS = 100_000
ROUNDING = (
    1e-9  # differences closer than this fraction of the values are ties: 10.1 - 10.0 is not 20.1 - 20.0 in binary
)


Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """One variant's values over seeds; `deviation`, `low` and `high` are nan for a single seed."""

    mean: float
    deviation: float
    low: float
    high: float
    num_seeds: int


@dataclass(frozen=True)
class Paired:
    """A variant's differences to the reference, seed by seed; all but `difference` is nan for a single seed.

    `detectable` is the smallest true difference, in the values' unit, that as many seeds with this spread would find
    with 80 % power by a two-sided t-test at 5 %.
    """

    difference: float
    low: float
    high: float
    p_value: float
    permutation_p_value: float
    detectable: float
    num_seeds: int


def summary(values: Values, confidence: float = 0.95) -> Summary:
    """Return mean, standard deviation (n - 1 in the denominator) and t interval of the mean.

    Args:
        values: one finite number per seed, at least one.
        confidence: of the interval, in (0, 1).

    Raises:
        InputError: if there is no value, one is not finite, or confidence is outside (0, 1).
    """
    checked = _checked(values, "values")
    mean = _mean(checked)
    deviation = _deviation(checked)
    low, high = _interval(mean, deviation, len(checked), confidence)
    return Summary(mean, deviation, low, high, len(checked))


def paired(values: Values, reference: Values, confidence: float = 0.95) -> Paired:
    """Compare a variant with the reference, seed by seed: interval, paired t-test, permutation test, detectable size.

    Differences without any spread (ties are likely on small test sets) tell a t-test nothing: there `p_value` is the
    permutation test's, the interval is the value itself and `detectable` is nan.

    Args:
        values: one finite number per seed.
        reference: the reference's numbers, of the same seeds in the same order.
        confidence: of the interval, in (0, 1).

    Raises:
        InputError: if the two differ in length, are empty or not finite, or confidence is outside (0, 1).
    """
    ours, theirs = _checked(values, "values"), _checked(reference, "reference")
    if len(ours) != len(theirs):
        raise InputError(f"paired: {len(ours)} values, {len(theirs)} reference values: give both for the same seeds")
    differences, num_seeds = ours - theirs, len(ours)
    mean, deviation = _mean(differences), _deviation(differences)
    low, high = _interval(mean, deviation, num_seeds, confidence)
    if num_seeds == 1:
        return Paired(mean, low, high, math.nan, math.nan, math.nan, 1)
    tie = ROUNDING * float(max(np.abs(ours).max(), np.abs(theirs).max()))
    permutation = _permutation_test(differences, tie)
    if np.ptp(differences) <= tie:
        same = mean if abs(mean) > tie else 0.0
        return Paired(same, same, same, permutation, permutation, math.nan, num_seeds)
    error_of_mean = deviation / math.sqrt(num_seeds)
    p_value = _t_test(mean / error_of_mean, num_seeds)
    return Paired(mean, low, high, p_value, permutation, error_of_mean * _noncentrality(num_seeds), num_seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the given order; nan stays nan and counts as no test.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.

    Args:
        p_values: one per comparison, in [0, 1] or nan.

    Raises:
        InputError: if one is outside [0, 1].
    """
    if any(p < 0 or p > 1 for p in p_values):
        raise InputError(f"holm: p_values are {list(p_values)}, but each must be in [0, 1] or nan")
    adjusted = [math.nan] * len(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _checked(values: Values, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or not np.isfinite(array).all():
        raise InputError(f"{name} are {values!r}, but they must be one finite number per seed, at least one")
    return array


def _mean(values: NDArray[np.float64]) -> float:
    # fsum is exact, so that neither the order of the seeds nor the sign of the differences moves the last bit.
    return math.fsum(values) / len(values)


def _deviation(values: NDArray[np.float64]) -> float:
    if len(values) == 1:
        return math.nan
    return math.sqrt(math.fsum((values - _mean(values)) ** 2) / (len(values) - 1))


def _interval(mean: float, deviation: float, num_seeds: int, confidence: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence!r}, but it must be in (0, 1), for example 0.95")
    if num_seeds == 1:
        return math.nan, math.nan
    half = deviation / math.sqrt(num_seeds) * float(stdtrit(num_seeds - 1, (1 + confidence) / 2))
    return mean - half, mean + half


def _t_test(statistic: float, num_seeds: int) -> float:
    from scipy.special import stdtr

    # Many seeds with hardly any spread underflow to 0, and no finite number of runs makes a difference certain.
    return max(float(2 * stdtr(num_seeds - 1, -abs(statistic))), sys.float_info.min)


def _permutation_test(differences: NDArray[np.float64], tie: float) -> float:
    """Return how often random signs give a sum as far from 0 as the observed one: exact, or Monte Carlo for many."""
    observed = abs(math.fsum(differences)) - tie * len(differences)
    # Sorted sizes, since under random signs neither the order of the seeds nor the observed signs matter.
    sizes = np.sort(np.abs(differences))
    if 2 ** len(sizes) <= MOST_EXACT_FLIPS:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return float(np.mean(np.abs(sums) >= observed))
    generator = np.random.default_rng(0)
    sums = np.zeros(NUM_MONTE_CARLO_FLIPS)
    for size in sizes:
        sums += size * generator.choice((-1.0, 1.0), NUM_MONTE_CARLO_FLIPS)
    return float((np.sum(np.abs(sums) >= observed) + 1) / (NUM_MONTE_CARLO_FLIPS + 1))


def _noncentrality(num_seeds: int) -> float:
    """Return the true mean, in standard errors, that a paired t-test of `num_seeds` finds with power POWER."""
    from scipy.special import nctdtrinc, stdtrit

    critical = stdtrit(num_seeds - 1, 1 - SIGNIFICANCE / 2)
    # One tail: where the power is 0.8, the chance of the other tail is below 1e-6.
    return float(nctdtrinc(num_seeds - 1, 1 - POWER, critical))
