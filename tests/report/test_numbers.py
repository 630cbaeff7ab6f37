"""Every number is written as it was rounded by hand."""

import math

import pytest

from heedful.report import numbers
from heedful.statistics import Paired, Summary

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "text"), [(0.9, "+0.90"), (-0.9, "−0.90"), (0.0, "0.00"), (-0.004, "0.00"), (12.345, "+12.35")]
)
def test_signed(value, text):
    assert numbers.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.012"), (0.34, "0.34"), (1.0, "1.00"), (0.00099, "< 0.001"), (1e-300, "< 0.001"), (NAN, "—")],
)
def test_p_value(value, text):
    assert numbers.p_value(value) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *[(0, "0"), (12, "12"), (999, "999"), (1000, "1.00 k"), (75_290, "75.3 k"), (759_000, "759 k")],
        *[(999_499, "999 k"), (999_600, "1.00 M"), (25_557_032, "25.6 M"), (1_234_000_000, "1.23 G"), (None, "—")],
    ],
)
def test_count(number, text):
    assert numbers.count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds, text):
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [(0.9, 0.3, "0.9"), (-0.9, 0.3, "0.9"), (0.94, 0.04, "0.94"), (0.044, 0.01, "0.044"), (1.25, 1.25, "1.2")],
)
def test_points_keep_the_digits_that_the_scale_needs(value, scale, text):
    assert numbers.points(value, scale) == text


def test_mean_interval_and_difference():
    summary = Summary(5.123, 0.206, -0.5, 10.7, 3)
    assert numbers.mean_and_deviation(summary) == "5.12 ± 0.21"
    assert numbers.interval(summary) == "−0.50 to 10.70"
    pair = Paired(-0.9, -1.5, -0.3, 0.01, 0.06, 0.8, 5)
    assert numbers.difference(pair) == "−0.90 [−1.50, −0.30]"


def test_one_seed_has_a_mean_alone():
    summary = Summary(5.0, NAN, NAN, NAN, 1)
    assert (numbers.mean_and_deviation(summary), numbers.interval(summary)) == ("5.00", "—")
    assert numbers.difference(Paired(0.4, NAN, NAN, NAN, NAN, NAN, 1)) == "+0.40"


def test_nothing_is_a_dash():
    nothing = {numbers.mean_and_deviation(None), numbers.interval(None), numbers.difference(None), numbers.ratio(NAN)}
    assert nothing == {"—"}


def test_lists_of_words():
    assert [numbers.listed(list(words)) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert (numbers.plural(1, "seed"), numbers.plural(2, "seed")) == ("1 seed", "2 seeds")
