import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from heedful import InputError
from heedful.evaluate.separation import ks_chart, overlap, separation, true_and_confusing
from tests.references import evidence_of_maps as slow


def random_maps(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def test_the_most_confusing_class_is_the_most_probable_other():
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]], dtype=torch.float64)
    found = true_and_confusing(probabilities, torch.tensor([0, 1, 2]))
    assert found.tolist() == [[0.6, 0.3, 0.5], [0.3, 0.6, 0.3]]
    with pytest.raises(InputError, match="class 3 is out of range"):
        true_and_confusing(probabilities, torch.tensor([0, 1, 3]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_ks_is_scipys_and_the_definitions(true, confusing):
    true, confusing = np.array(true), np.array(confusing)
    found = separation(true, confusing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the p-value of very few images
        expected = ks_2samp(true, confusing)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert found.statistic == pytest.approx(slow.ks(true, confusing), abs=1e-12)
    distance = np.abs(found.confusing - found.true)
    # Where the curves are as far apart at several places, scipy may name another of them.
    for location in (found.location, expected.statistic_location):
        assert distance[found.probabilities == location] == pytest.approx(found.statistic, abs=1e-12)


def test_where_one_place_is_furthest_it_is_scipys():
    rng = np.random.default_rng(0)
    true, confusing = rng.beta(4, 2, 501), rng.beta(2, 5, 501)
    found, expected = separation(true, confusing), ks_2samp(true, confusing)
    assert (found.statistic, found.location) == (pytest.approx(expected.statistic), expected.statistic_location)


def test_the_curves_of_the_chart():
    found = separation(np.array([0.05, 0.9, 0.9, 1.0]), np.array([0.0, 0.1, 0.1, 0.5]), num_points=11)
    assert found.probabilities == pytest.approx(np.linspace(0, 1, 11))
    assert found.true.tolist() == [0, *[0.25] * 8, 0.75, 1]
    assert found.confusing.tolist() == [0.25, *[0.75] * 4, *[1] * 6]
    assert (found.statistic, found.location, found.true_is_higher) == (0.75, 0.5, True)


def test_of_several_places_the_lowest_and_which_way():
    true, confusing = np.array([0.2, 0.9, 0.9, 1.0]), np.array([0.0, 0.1, 0.1, 0.5])
    for found, right in ((separation(true, confusing), True), (separation(confusing, true), False)):
        assert (found.statistic, found.location, found.true_is_higher) == (0.75, 0.1, right)


def test_a_network_that_is_always_right_and_one_that_guesses():
    assert separation(np.full(5, 0.9), np.full(5, 0.1)).statistic == 1
    assert separation(np.full(5, 0.5), np.full(5, 0.5)).statistic == 0


@pytest.mark.parametrize("values", [[], [0.5, np.nan], [1.5], [-0.1]])
def test_what_are_no_probabilities(values):
    with pytest.raises(InputError, match=r"all in \[0, 1\]"):
        separation(np.array(values), np.array([0.5]))


def test_the_chart_shows_curves_statistic_and_place():
    charts = {"plain": separation(np.array([0.2, 0.9]), np.array([0.1, 0.3])), "icasc": separation(*np.eye(2))}
    figure = ks_chart(charts)
    assert [axes.get_title() for axes in figure.axes] == [
        f"{title}\nKS {found.statistic:.2f} at {found.location:.2f}" for title, found in charts.items()
    ]
    confusing, true, place = figure.axes[0].get_lines()
    np.testing.assert_allclose(confusing.get_ydata(), 100 * charts["plain"].confusing)
    np.testing.assert_allclose(true.get_ydata(), 100 * charts["plain"].true)
    assert place.get_xdata() == [charts["plain"].location] * 2


def test_overlap_is_equation_3_without_mask():
    target, confusing = random_maps(4, 3, 5), 7 * random_maps(4, 3, 5)
    expected = [slow.overlap(t, c) for t, c in zip(target, confusing, strict=True)]
    torch.testing.assert_close(
        overlap(target, confusing), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_overlap_knows_no_scale_and_leaves_blank_maps_out():
    target, confusing = random_maps(3, 4, 4), random_maps(3, 4, 4)
    torch.testing.assert_close(overlap(target, confusing), overlap(5 * target, 0.1 * confusing))
    torch.testing.assert_close(overlap(target, 3 * target), torch.ones(3, dtype=torch.float64))
    blank = torch.tensor([0.0, 1, 1], dtype=torch.float64)[:, None, None]
    assert overlap(target * blank, confusing).isnan().tolist() == [True, False, False]
    assert overlap(target, confusing * blank).isnan().tolist() == [True, False, False]
