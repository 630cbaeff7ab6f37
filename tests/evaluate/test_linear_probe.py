"""A linear SVM on features, compared with scikit-learn's called step by step; and what is drawn for it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from heedful import InputError
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.evaluate import linear_svm as module
from heedful.evaluate.linear_probe import Featured, Right, accuracies, probe, training_images
from heedful.evaluate.linear_svm import GRID, linear_svm

CLASSES = ("cat", "dog", "eel")


def clouds(per_class=12, distance=1.0, seed=0, dimension=6):
    """Return features of three classes around three points, of quite different scales, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    rows = rng.normal(size=(len(labels), dimension))
    rows[np.arange(len(labels)), labels] += distance
    return rows * 10.0 ** np.arange(-2, dimension - 2) + 5, labels


def data_of(rows, labels, given_parts=None, classes=CLASSES):
    features = torch.from_numpy(rows).float()
    parts = torch.zeros(len(labels), dtype=torch.int64) if given_parts is None else torch.as_tensor(given_parts)
    return Featured("clouds", classes, features, torch.from_numpy(labels), parts)


def standardised(rows, by):
    mean, deviation = by.mean(0), by.std(0)
    scaled = (rows - mean) / np.where(deviation == 0, 1, deviation)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def slow_svm(rows, labels, seed, num_folds):
    """Return C and a function from rows to class numbers."""
    means = []
    for c in GRID:
        scores = []
        for train, test in StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(rows, labels):
            machine = LinearSVC(C=c, max_iter=100_000, random_state=seed)
            machine.fit(standardised(rows[train], rows[train]), labels[train])
            right = machine.predict(standardised(rows[test], rows[train])) == labels[test]
            scores.append(right.mean())
        means.append(np.mean(scores))
    best = LinearSVC(C=GRID[int(np.argmax(means))], max_iter=100_000, random_state=seed)
    best.fit(standardised(rows, rows), labels)
    return best.C, lambda others: best.predict(standardised(others, rows))


@pytest.mark.parametrize(("per_class", "num_folds"), [(12, 5), (3, 3), (2, 2)])
@pytest.mark.parametrize("seed", [0, 3])
def test_the_machine_is_that_of_scikit_learn_called_by_hand(per_class, num_folds, seed):
    rows, labels = clouds(per_class, seed=seed)
    rows[:, 4] = 7.0  # a feature that never changes
    others, _ = clouds(40, seed=seed + 1)
    found = linear_svm(rows, labels, CLASSES, seed=seed)
    c, predicted = slow_svm(rows, labels, seed, num_folds)
    assert (found.c, found.num_folds, found.converged) == (c, num_folds, True)
    np.testing.assert_array_equal(found.predicted(others), predicted(others))


def test_different_c_are_chosen():
    chosen = {linear_svm(*clouds(12, distance, 2), CLASSES, seed=0).c for distance in (0.5, 1.0, 5.0)}
    assert len(chosen) > 1


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100), st.floats(0.1, 10), st.floats(-10, 10))
def test_the_scale_of_a_feature_does_not_matter(seed, scale, shift):
    rows, labels = clouds(seed=seed)
    others, _ = clouds(20, seed=seed + 1)
    factors = np.array([scale, 1, 1 / scale, 1, scale**2, 1])
    plain = linear_svm(rows, labels, CLASSES, seed=0)
    moved = linear_svm(rows * factors + shift, labels, CLASSES, seed=0)
    # Rounding may turn a decision that hangs in the balance.
    assert (plain.predicted(others) == moved.predicted(others * factors + shift)).mean() > 0.95


def test_a_machine_that_does_not_converge_says_so_and_warns_of_nothing(monkeypatch):
    monkeypatch.setattr(module, "MAX_ITERATIONS", 1)
    assert not linear_svm(*clouds(dimension=60, per_class=4), CLASSES, seed=0).converged


def test_classes_that_lie_apart_are_told_apart_and_noise_is_not():
    apart = probe(data_of(*clouds(20, distance=60.0, dimension=3)), train_per_class=5, num_seeds=2)
    assert apart["accuracy"] == apart["accuracy_per_class_mean"] == 100
    noise = probe(data_of(*clouds(100, distance=0.0)), train_per_class=50, num_seeds=2)
    assert 20 < noise["accuracy"] < 47  # chance is 33, of 150 test images, whose deviation is 4


def test_over_seeds_the_images_the_folds_and_the_mean_change():
    data = data_of(*clouds(12))
    found = probe(data, train_per_class=5, num_seeds=5)
    expected, chosen = [], []
    for seed in range(5):
        train = training_images(data, 5, seed)
        machine = linear_svm(*data.rows(train), CLASSES, seed=seed)
        rows, labels = data.rows(~train)
        expected.append(100 * accuracy_score(labels, machine.predicted(rows)))
        chosen.append(machine.c)
    assert found["accuracies"] == pytest.approx(expected)
    assert found["c"] == chosen
    assert len(set(expected)) > 1
    assert found["accuracy"] == pytest.approx(np.mean(expected))
    assert found["deviation"] == pytest.approx(np.std(expected, ddof=1))
    assert (found["num_train"], found["num_test"], found["num_folds"]) == (15, 21, 5)
    assert (found["split"], found["dimension"], found["converged"]) == ("drawn", 6, [True] * 5)
    once = probe(data, train_per_class=5, num_seeds=1)
    assert (once["accuracies"], once["deviation"]) == (found["accuracies"][:1], None)
    assert probe(data, train_per_class=5, num_seeds=1) == once


@given(st.lists(st.integers(3, 9), min_size=2, max_size=3), st.integers(2, 3), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_so_many_of_each_class_are_drawn_of_those_outside_the_test_split(counts, number, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = np.arange(len(labels)) % 7 == 6
    data = data_of(np.zeros((len(labels), 1)), labels, np.where(parts, TEST, TRAIN), CLASSES[: len(counts)])
    train = training_images(data, number, seed)
    assert not (train.numpy() & parts).any()
    free = np.bincount(labels[~parts], minlength=len(counts))
    assert train.sum() == np.minimum(free, number).sum()
    assert (data.labels[train].bincount(minlength=len(counts)).numpy() == np.minimum(free, number)).all()


def test_a_given_test_split_is_kept_and_all_else_learnt_from_once():
    rows, labels = clouds(12)
    parts = np.tile([TRAIN, VAL, TEST, TRAIN], 9)
    found = probe(data_of(rows, labels, parts), num_seeds=5)
    rows32 = torch.from_numpy(rows).float().double().numpy()
    _, predicted = slow_svm(rows32[parts != TEST], labels[parts != TEST], 0, 5)
    expected = 100 * accuracy_score(labels[parts == TEST], predicted(rows32[parts == TEST]))
    assert found["accuracy"] == pytest.approx(expected)
    assert found["deviation"] is None
    assert found["train_per_class"] is None
    assert (found["num_train"], found["num_test"], len(found["accuracies"])) == (27, 9, 1)
    drawn = probe(data_of(rows, labels, parts), train_per_class=4, num_seeds=2)
    assert (drawn["num_train"], drawn["num_test"], len(drawn["accuracies"])) == (12, 9, 2)
    assert drawn["split"] == found["split"] == "given"


@pytest.mark.parametrize(("per_class", "number"), [(70, 30), (11, 5), (4, 2), (3, 2)])
def test_thirty_or_half_of_the_smallest_class_are_drawn_if_nothing_is_said(per_class, number):
    found = probe(data_of(*clouds(per_class, distance=9.0)), num_seeds=1)
    assert found["train_per_class"] == number
    assert found["num_train"] == 3 * number


def test_accuracies_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    draws, per_image, per_class, recalls = [], [], [], []
    for _ in range(3):
        labels = rng.choice(3, 50, p=[0.6, 0.3, 0.1])
        predicted = np.where(rng.random(50) < 0.5, labels, rng.integers(0, 3, 50))
        draws.append(Right(predicted == labels, labels))
        per_image.append(100 * accuracy_score(labels, predicted))
        per_class.append(100 * balanced_accuracy_score(labels, predicted))
        recalls.append(100 * recall_score(labels, predicted, average=None))
    found = accuracies(draws, [*CLASSES, "not there"])
    assert found["accuracies"] == pytest.approx(per_image)
    assert found["accuracy_per_class_mean"] == pytest.approx(np.mean(per_class))
    assert found["class_accuracies"] == pytest.approx(dict(zip(CLASSES, np.mean(recalls, 0), strict=True)))
    assert found["most_common_class"] == pytest.approx(100 * (draws[0].labels == 0).mean())


def test_too_few_images_are_refused():
    rows, labels = clouds(5)
    with pytest.raises(InputError, match=r"num_seeds is 0, but it must be at least 1"):
        probe(data_of(rows, labels), num_seeds=0)
    with pytest.raises(InputError, match=r"train_per_class is 1, but the choice of C needs 2 at least"):
        probe(data_of(rows, labels), train_per_class=1)
    with pytest.raises(
        InputError, match=r"'cat' of clouds has 5 images .* but 5 are to be drawn .* one or more are for"
    ):
        probe(data_of(rows, labels), train_per_class=5)
    parts = np.tile([TRAIN, TRAIN, TRAIN, TRAIN, TEST], 3)
    with pytest.raises(InputError, match=r"'cat' of clouds has 4 images .* but 5 are to be drawn for training: lower"):
        probe(data_of(rows, labels, parts), train_per_class=5)
    assert probe(data_of(rows, labels, parts), train_per_class=4, num_seeds=1)["num_train"] == 12
    with pytest.raises(InputError, match=r"class 'not there' has 0 training images, but needs two"):
        probe(data_of(rows, labels, parts, (*CLASSES, "not there")))
    with pytest.raises(InputError, match=r"class 'eel' has 1 training images, but needs two for the cross-validation"):
        linear_svm(rows[:-4], labels[:-4], CLASSES, seed=0)
    with pytest.raises(InputError, match=r"'not there' of clouds has 0 images outside a given test split"):
        probe(data_of(rows, labels, classes=(*CLASSES, "not there")))
    with pytest.raises(InputError, match=r"one class, cat, but an SVM tells two or more apart"):
        probe(data_of(rows[:5], labels[:5], classes=("cat",)))


def test_features_that_are_no_numbers_are_refused():
    rows, labels = clouds()
    rows[3, 2] = np.nan
    with pytest.raises(InputError, match="features are not all finite"):
        linear_svm(rows, labels, CLASSES, seed=0)
