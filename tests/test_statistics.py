"""Statistics against slow references (every sign written out, scipy, simulation), and the properties they must have."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful import statistics
from heedful.errors import InputError
from heedful.statistics import holm, paired, summary

REFERENCE = [6.2, 5.9, 6.5, 6.1, 5.7]
BETTER = [5.1, 5.2, 5.4, 5.5, 4.9]

errors = st.floats(0, 100).map(lambda value: round(value, 2))
pairs = st.lists(st.tuples(errors, errors), min_size=2, max_size=8)


def permutation_by_hand(differences):
    observed = abs(sum(differences))
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    extreme = [f for f in flips if abs(sum(s * d for s, d in zip(f, differences, strict=True))) >= observed - 1e-9]
    return len(extreme) / len(flips)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_summary_is_the_t_interval(confidence):
    result = summary(REFERENCE, confidence)
    low, high = scipy.stats.ttest_1samp(REFERENCE, 0).confidence_interval(confidence)
    assert (result.low, result.high) == pytest.approx((low, high))
    assert result.mean == pytest.approx(np.mean(REFERENCE))
    assert result.deviation == pytest.approx(np.std(REFERENCE, ddof=1))
    assert result.num_seeds == 5


def test_one_value_has_a_mean_and_nothing_else():
    result = summary([5.0])
    assert (result.mean, result.num_seeds) == (5.0, 1)
    assert all(math.isnan(number) for number in (result.deviation, result.low, result.high))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_is_scipys_paired_t_test(confidence):
    result = paired(BETTER, REFERENCE, confidence)
    expected = scipy.stats.ttest_rel(BETTER, REFERENCE)
    low, high = expected.confidence_interval(confidence)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert (result.low, result.high) == pytest.approx((low, high))
    assert result.difference == pytest.approx(-0.86)


@pytest.mark.parametrize("num_seeds", [2, 3, 7, 10])
def test_permutation_test_is_exact(num_seeds):
    generator = np.random.default_rng(num_seeds)
    values, reference = generator.normal(5.5, 1, num_seeds), generator.normal(5, 1, num_seeds)
    assert paired(values, reference).permutation_p_value == pytest.approx(permutation_by_hand(values - reference))


def test_permutation_test_counts_ties_that_binary_fractions_hide():
    # 0.1 + 0.2 > 0.3 in binary: the sums of both signs' patterns are equal in decimal, and must count as such.
    values, reference = [10.1, 10.2, 10.3, 10.3], [10.0, 10.0, 10.6, 10.0]
    assert paired(values, reference).permutation_p_value == permutation_by_hand([1, 2, -3, 3])


def test_many_seeds_are_sampled_with_a_fixed_seed_and_never_reach_zero():
    generator = np.random.default_rng(0)
    reference = generator.normal(5, 1, 20)
    values = reference + generator.normal(0.3, 0.6, 20)
    sampled = paired(values, reference).permutation_p_value
    exact = np.zeros(1)
    for difference in values - reference:
        exact = np.concatenate([exact + difference, exact - difference])
    assert sampled == pytest.approx(np.mean(np.abs(exact) >= abs(sum(values - reference)) - 1e-9), abs=0.003)
    assert sampled == paired(values, reference).permutation_p_value
    assert paired(reference + generator.normal(9, 0.1, 20), reference).permutation_p_value == pytest.approx(1 / 100_001)


@pytest.mark.parametrize("num_seeds", [3, 5, 12])
def test_detectable_difference_is_found_four_times_of_five(num_seeds):
    generator = np.random.default_rng(1)
    # Whatever the sample, its detectable difference is so many of its standard deviations.
    values = generator.normal(0, 1, num_seeds)
    detectable = paired(values, np.zeros(num_seeds)).detectable / np.std(values, ddof=1)
    experiments = generator.normal(detectable, 1, (40_000, num_seeds))
    found = scipy.stats.ttest_1samp(experiments, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.008)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 30, 400])
def test_detectable_difference_has_power_80_percent_by_scipys_noncentral_t(num_seeds):
    values = np.random.default_rng(num_seeds).normal(3, 2, num_seeds)
    standard_error = np.std(values, ddof=1) / math.sqrt(num_seeds)
    critical = scipy.stats.t.ppf(0.975, num_seeds - 1)
    noncentrality = paired(values, np.zeros(num_seeds)).detectable / standard_error
    assert scipy.stats.nct.sf(critical, num_seeds - 1, noncentrality) == pytest.approx(0.8, abs=1e-6)


def test_one_seed_says_nothing():
    result = paired([5.0], [6.0])
    assert (result.difference, result.num_seeds) == (-1.0, 1)
    others = (result.low, result.high, result.p_value, result.permutation_p_value, result.detectable)
    assert all(math.isnan(number) for number in others)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (-0.3, 2 / 2**4)])
def test_differences_without_spread_leave_the_permutation_test_alone(shift, expected):
    reference = [10.1, 20.1, 33.3, 0.7]
    result = paired([value + shift for value in reference], reference)
    assert result.p_value == result.permutation_p_value == expected
    assert result.low == result.difference == result.high == pytest.approx(shift)
    assert math.isnan(result.detectable)


def test_a_difference_of_rounding_is_none():
    assert paired([0.1 + 0.2] * 3, [0.3] * 3).difference == 0


def test_hardly_any_spread_gives_no_certainty():
    reference = np.linspace(1, 2, 200)
    result = paired(reference + 1 + 1e-6 * (np.arange(200) % 2), reference)
    assert 0 < result.p_value < 1e-300


def test_holm_by_hand():
    # Holm's steps for 0.01, 0.02, 0.03, 0.04 of four tests: ×4, ×3, ×2, ×1, never falling.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_does_not_count_nan():
    adjusted = holm([math.nan, 0.02, 0.3])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.3])


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        holm([0.5, p])


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_must_be_finite_numbers(values):
    with pytest.raises(InputError, match="one finite number per seed"):
        summary(values)
    with pytest.raises(InputError, match="reference are"):
        paired([1.0, 2.0], values)


def test_lengths_must_agree():
    with pytest.raises(InputError, match="3 values, 2 reference values"):
        paired([1, 2, 3], [1, 2])


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95])
def test_confidence_is_a_fraction(confidence):
    with pytest.raises(InputError, match=r"confidence is .* \(0, 1\)"):
        summary(REFERENCE, confidence)
    with pytest.raises(InputError, match=r"confidence is .* \(0, 1\)"):
        paired(BETTER, REFERENCE, confidence)


@given(pairs)
@settings(deadline=None)
def test_swapping_turns_the_sign_and_nothing_else(values):
    ours, theirs = zip(*values, strict=True)
    there, back = paired(ours, theirs), paired(theirs, ours)
    assert there.difference == -back.difference
    assert (there.low, there.high) == (-back.high, -back.low)
    assert (there.p_value, there.permutation_p_value) == (back.p_value, back.permutation_p_value)


@given(st.lists(st.tuples(errors, errors), min_size=2, max_size=18), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_seeds_changes_nothing(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    first, second = (paired(*zip(*v, strict=True)) for v in (values, shuffled))
    assert repr(first) == repr(second)  # nan equals nan in print


@given(pairs)
@settings(deadline=None)
def test_p_values_are_probabilities_and_never_zero(values):
    result = paired(*zip(*values, strict=True))
    assert 0 < result.p_value <= 1
    assert 2 / 2 ** len(values) <= result.permutation_p_value <= 1
    assert result.low <= result.difference <= result.high


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8))
@settings(deadline=None)
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    both = [(p, a) for p, a in zip(p_values, adjusted, strict=True) if not math.isnan(p)]
    assert all(p <= a <= 1 for p, a in both)
    assert [a for _, a in sorted(both)] == sorted(a for _, a in both)
    assert sum(map(math.isnan, adjusted)) == sum(map(math.isnan, p_values))


def test_significance_and_power_are_the_customary_ones():
    assert (statistics.SIGNIFICANCE, statistics.POWER) == (0.05, 0.8)
