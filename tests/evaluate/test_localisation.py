import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful import InputError
from heedful.evaluate.baselines import centre_gaussian
from heedful.evaluate.localisation import (
    average_precision,
    best_overlaps,
    boxes_around,
    energy_inside,
    jaccard_at_otsu,
    max_box_accuracy,
    otsu,
    overlaps,
    pixel_counts,
    pointing_hits,
)
from heedful.evaluate.located import Located, stretched
from tests.references import localisation as slow

SIDE = 9


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def scores(rng):
    """Stretched, with ties, and scores that lie on thresholds."""
    return stretched(np.round(rng.random((6, SIDE, SIDE)) ** 2, 2))


@pytest.fixture
def boxes():
    return [
        np.array([[1, 2, 5, 6]]),
        np.array([[0, 0, 3, 8], [5, 1, 8, 3]]),
        *[np.array([[i, i, 8, 7]]) for i in range(4)],
    ]


@pytest.fixture
def masks(boxes):
    found = np.zeros((6, SIDE, SIDE), dtype=bool)
    for mask, of_image in zip(found, boxes, strict=True):
        for left, top, right, bottom in of_image:
            mask[top : bottom + 1, left : right + 1] = True
    return found


@pytest.mark.parametrize("num_bins", [7, 1000])
def test_average_precision_of_all_pixels_and_of_each_image(scores, masks, num_bins):
    counts = pixel_counts(scores, masks, num_bins)
    assert counts.sum((1, 2)).tolist() == [SIDE**2] * 6
    assert counts[:, 0].sum(1).tolist() == masks.sum((1, 2)).tolist()
    together = average_precision(counts.sum(0))
    assert float(together) == pytest.approx(slow.average_precision(scores, masks, num_bins), abs=1e-10)
    alone = [slow.average_precision(s, m, num_bins) for s, m in zip(scores, masks, strict=True)]
    np.testing.assert_allclose(average_precision(counts), alone, rtol=0, atol=1e-10)


def test_counts_of_batches_add_up(scores, masks):
    parts = [pixel_counts(scores[:2], masks[:2]), pixel_counts(scores[2:], masks[2:])]
    assert (np.concatenate(parts) == pixel_counts(scores, masks)).all()


def test_average_precision_of_perfect_and_of_empty_maps(masks):
    np.testing.assert_allclose(average_precision(pixel_counts(masks.astype(float), masks)), 1)
    blank = average_precision(pixel_counts(np.zeros(masks.shape), masks))
    np.testing.assert_allclose(blank, masks.mean((1, 2)))


def test_a_score_on_a_threshold_reaches_it():
    thresholds = np.arange(1001) / 1000  # 0.29 × 1000 is less than 290
    counts = pixel_counts(thresholds[None, None], np.ones((1, 1, 1001), dtype=bool))
    assert (counts[0, 0] == 1).all()


def test_best_overlaps_and_max_box_accuracy(scores, boxes):
    thresholds = np.linspace(0, 1, 6)
    found = np.array([best_overlaps(s, b, thresholds) for s, b in zip(scores, boxes, strict=True)])
    expected = [[slow.best_overlap(s, b, t) for t in thresholds] for s, b in zip(scores, boxes, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    accuracies = [slow.max_box_accuracy(scores, boxes, thresholds, delta) for delta in (0.3, 0.5, 0.7)]
    np.testing.assert_allclose(max_box_accuracy(found, (0.3, 0.5, 0.7)), accuracies, rtol=0, atol=1e-12)
    assert accuracies[0] > accuracies[1] > accuracies[2]


def test_regions_that_touch_at_a_corner_are_one():
    binary = np.zeros((4, 5), dtype=bool)
    binary[[0, 1, 3], [0, 1, 4]] = True
    assert sorted(map(tuple, boxes_around(binary).tolist())) == [(0, 0, 1, 1), (4, 3, 4, 3)]
    assert boxes_around(np.zeros((3, 3), dtype=bool)).shape == (0, 4)


def test_overlaps_count_both_corners(rng):
    corners = np.sort(rng.integers(0, SIDE, (2, 5, 2, 2)), axis=2).reshape(2, 5, 4)
    found = overlaps(corners[0], corners[1])
    expected = [[slow.overlap_of_boxes(a, b) for b in corners[1]] for a in corners[0]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert overlaps(np.array([[0, 0, 1, 1]]), np.array([[1, 1, 2, 2]])).item() == pytest.approx(1 / 7)


def test_no_box_overlaps_above_the_highest_score(scores, boxes):
    assert best_overlaps(scores[0], boxes[0], np.array([1.0])).tolist() == [0]
    assert best_overlaps(np.zeros((SIDE, SIDE)), boxes[0]).max() == 0


@pytest.mark.parametrize("tolerance", [0, 1, 2.5, 15])
def test_pointing(scores, masks, tolerance):
    expected = [slow.points_at(s, m, tolerance) for s, m in zip(scores, masks, strict=True)]
    assert pointing_hits(scores, masks, tolerance).tolist() == expected


def test_pointing_at_ties_and_with_nothing():
    mask = np.zeros((3, 4, 4), dtype=bool)
    mask[0, 0, 1] = mask[1, 2, 2] = mask[2, 0, 0] = True
    scores = np.zeros((3, 4, 4))
    scores[:2, 0, 1] = scores[:2, 2, 2] = 1
    assert pointing_hits(scores, mask, 0).tolist() == [True, False, False]
    assert pointing_hits(scores, mask, 5).tolist() == [True, True, False]


def test_energy(rng, masks):
    maps = rng.random((6, SIDE, SIDE)) + 0.3
    maps[4] = 0
    expected = [slow.energy(m, mask) for m, mask in zip(maps, masks, strict=True)]
    np.testing.assert_allclose(energy_inside(maps, masks), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(energy_inside(5 * maps, masks), expected, rtol=0, atol=1e-12)
    assert expected[4] == 0
    with pytest.raises(InputError, match="rectify"):
        energy_inside(maps - 1, masks)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=25))
@settings(max_examples=100, deadline=None)
def test_otsu_is_the_brute_force_search(values):
    scores = np.array(values, dtype=float) / 20
    found, expected = otsu(scores), slow.otsu(scores)
    if found != expected:  # two thresholds may be equally good
        within = [sum(p.size * p.var() for p in (scores[scores <= t], scores[scores > t])) for t in (found, expected)]
        assert within[0] == pytest.approx(within[1], abs=1e-12)


def test_otsu_parts_two_heaps_and_leaves_one_whole():
    assert otsu(np.array([0.1, 0.12, 0.11, 0.8, 0.9])) == 0.12
    assert otsu(np.full((3, 3), 0.4)) == 0.4


def test_jaccard(scores, masks):
    expected = [slow.jaccard(s > slow.otsu(s), m) for s, m in zip(scores, masks, strict=True)]
    np.testing.assert_allclose(jaccard_at_otsu(scores, masks), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(jaccard_at_otsu(masks.astype(float), masks), 1)
    assert (jaccard_at_otsu(np.zeros(masks.shape), masks) == 0).all()


@pytest.mark.parametrize(
    "metric",
    [pixel_counts, jaccard_at_otsu, lambda s, m: pointing_hits(s, m, 0)],
    ids=["counts", "jaccard", "pointing"],
)
def test_scores_and_masks_are_checked(metric, scores, masks):
    for wrong in (scores * 2, scores - 0.1, np.where(scores > 0.9, np.nan, scores)):
        with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
            metric(wrong, masks)
    with pytest.raises(InputError, match="bring both to the size"):
        metric(scores, masks[:, :-1])
    with pytest.raises(InputError, match="bring both to the size"):
        energy_inside(scores, masks[:, :-1])


def test_an_image_without_object_has_no_average_precision(scores, masks):
    masks[2] = False
    with pytest.raises(InputError, match="no pixel of an object"):
        average_precision(pixel_counts(scores, masks))


def test_the_centre_gaussian():
    found = centre_gaussian(5, 8, deviation=0.5)
    for row, column in np.ndindex(5, 8):
        y, x = (row + 0.5) / 5 - 0.5, (column + 0.5) / 8 - 0.5
        assert found[row, column] == pytest.approx(np.exp(-(x * x + y * y) / (2 * 0.5**2)), abs=1e-12)
    np.testing.assert_allclose(found, found[::-1, ::-1])
    assert centre_gaussian(7, 7).argmax() == 24


def test_stretched_goes_from_0_to_1_and_a_constant_map_becomes_0(rng):
    maps = rng.normal(size=(3, 4, 4))
    maps[1] = 5.0
    found = stretched(maps)
    assert found.min((1, 2)).tolist() == [0, 0, 0]
    assert found.max((1, 2)).tolist() == [1, 0, 1]
    np.testing.assert_allclose(found[0], (maps[0] - maps[0].min()) / (maps[0].max() - maps[0].min()))


def test_all_numbers_together_batch_by_batch(rng, masks, boxes):
    maps, labels = rng.random((6, SIDE, SIDE)), np.array([0, 0, 0, 0, 1, 1])
    for number, is_hit in enumerate([True, True, True, False, True, False]):
        maps[number][tuple(np.argwhere(masks[number] == is_hit)[0])] = 2
    located = Located()
    for part in (slice(0, 4), slice(4, 6)):
        located.add(maps[part], masks[part], boxes[part], labels[part])
    found, scores = located.numbers(), stretched(maps)
    hits = pointing_hits(scores, masks, 0)
    thresholds = np.linspace(0, 1, 101)
    accuracies = [slow.max_box_accuracy(scores, boxes, thresholds, delta) for delta in (0.3, 0.5, 0.7)]
    expected = {
        "pxap": slow.average_precision(scores, masks, 1000),
        "pxap_per_image": np.mean([slow.average_precision(s, m, 1000) for s, m in zip(scores, masks, strict=True)]),
        "energy": np.mean([slow.energy(m, mask) for m, mask in zip(maps, masks, strict=True)]),
        "jaccard": np.mean([slow.jaccard(s > slow.otsu(s), m) for s, m in zip(scores, masks, strict=True)]),
        "max_box_acc": np.mean(accuracies),
        **{f"max_box_acc_{name}": value for name, value in zip((30, 50, 70), accuracies, strict=True)},
        "pointing_0px": (hits[:4].mean() + hits[4:].mean()) / 2,
    }
    assert found["pointing_0px"] == (3 / 4 + 1 / 2) / 2
    assert found == {name: pytest.approx(value, abs=1e-10) for name, value in expected.items()}


def test_without_boxes_there_is_no_box_accuracy(rng, masks):
    located = Located()
    located.add(rng.random((6, SIDE, SIDE)), masks, [np.zeros((0, 4), dtype=int)] * 6, np.zeros(6, dtype=int))
    assert not any("box" in name for name in located.numbers())


@pytest.mark.parametrize(("side", "expected"), [(111, None), (112, 0.5)])
def test_15_pixels_are_counted_from_112_on(side, expected):
    maps, masks = np.zeros((2, side, side)), np.zeros((2, side, side), dtype=bool)
    maps[:, 50, 50] = 1
    masks[0, 50, 65] = masks[1, 50, 66] = True
    located = Located()
    located.add(maps, masks, [np.zeros((0, 4), dtype=int)] * 2, np.zeros(2, dtype=int))
    assert located.numbers().get("pointing_15px") == expected
    assert located.numbers()["pointing_0px"] == 0
