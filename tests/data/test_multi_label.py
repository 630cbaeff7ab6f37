"""Images with several labels: their splits, and their way from an .npz file to a batch."""

import itertools

import numpy as np
import pytest
import torch

from heedful.data import DataSet, ImageArray, batches, load
from heedful.data.npz import read_npz
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.data.splits import Division, divide
from heedful.errors import InputError
from tests.data_made import many_squares

CLASSES = ("ant", "bee", "cat", "dog")


def make_labels(count=200, frequencies=(0.5, 0.3, 0.1, 0.02), seed=1):
    drawn = torch.rand(count, len(frequencies), generator=torch.Generator().manual_seed(seed))
    return (drawn < torch.tensor(frequencies)).long()


def split(labels, given=None, seed=0, **options):
    given = torch.full((len(labels),), TRAIN) if given is None else given
    return divide(labels, given, CLASSES[: labels.shape[1]], Division(seed, **options))


def test_drawn_splits_are_disjoint_complete_and_of_the_fractions():
    labels = make_labels()
    parts = split(labels, val_fraction=0.2, test_fraction=0.3)
    assert [len(part) for part in parts] == [100, 40, 60]
    assert torch.cat(parts).sort().values.tolist() == list(range(200))
    assert all(torch.equal(part, part.sort().values) for part in parts)


def test_a_seed_decides():
    labels = make_labels()
    for limit in (None, 100):
        first, same, other = (split(labels, seed=seed, limit=limit) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_class_has_an_image_to_train_on_however_rare():
    labels = torch.zeros(100, 4, dtype=torch.int64)
    labels[:, 0] = 1
    labels[7, 1] = labels[7, 2] = labels[60, 3] = 1
    for seed, options in itertools.product(range(20), ({}, {"limit": 20}, {"limit": 0.2})):
        train, _, _ = split(labels, seed=seed, val_fraction=0.4, test_fraction=0.4, **options)
        assert {7, 60} <= set(train.tolist())


def test_drawing_does_not_follow_the_order_of_the_images_or_their_labels():
    labels = torch.zeros(2000, 2, dtype=torch.int64)
    labels[:1000, 0] = labels[500:1500, 1] = 1
    for part in split(labels, test_fraction=0.4, val_fraction=0.2):
        assert abs(part.double().mean() - 999.5) < 100
        assert (labels[part].double().mean(dim=0) - 0.5).abs().max() < 0.07


def test_images_without_a_label_are_drawn_like_others():
    labels = make_labels()
    assert (labels.sum(dim=1) == 0).sum() > 30
    for part in split(labels, test_fraction=0.3, val_fraction=0.3):
        assert (labels[part].sum(dim=1) == 0).any()


def test_given_splits_are_kept_though_they_lack_a_class():
    labels = make_labels()
    labels[:50, 3] = 0
    given = torch.full((200,), TRAIN)
    given[:30], given[30:50] = TEST, VAL
    train, val, test = split(labels, given)
    assert (test.tolist(), val.tolist(), train.tolist()) == (list(range(30)), list(range(30, 50)), list(range(50, 200)))
    given[30:50] = TRAIN
    train, val, test = split(labels, given, val_fraction=0.1)
    assert (test.tolist(), len(val), len(train)) == (list(range(30)), 17, 153)


@pytest.mark.parametrize(("limit", "sizes"), [(100, [80, 20, 40]), (0.25, [32, 8, 40]), (500, [128, 32, 40])])
def test_a_limit_shrinks_training_and_given_validation_and_never_the_test(limit, sizes):
    labels = make_labels()
    given = torch.full((200,), TRAIN)
    given[:40], given[40:72] = TEST, VAL
    parts = split(labels, given, limit=limit)
    assert [len(part) for part in parts] == sizes
    assert set(parts[1].tolist()) <= set(range(40, 72))


def test_a_class_without_an_image_to_train_on_is_named():
    labels = make_labels()
    labels[:, 2] = 0
    with pytest.raises(InputError, match="class 'cat' has 0 images in the train split"):
        split(labels)
    labels[5, 2] = 1
    given = torch.full((200,), TRAIN)
    given[:20] = TEST
    with pytest.raises(InputError, match="class 'cat' has 0 images in the train split"):
        split(labels, given)


def test_too_few_images_are_refused():
    identity = torch.eye(4, dtype=torch.int64)
    with pytest.raises(InputError, match="4 images are too few to divide: 4 of them are kept"):
        split(identity)
    with pytest.raises(InputError, match="limit 3 leaves 3 training and 0 validation images, but 4 are needed"):
        split(identity.repeat(5, 1), limit=3)


def test_numbers_per_class_are_refused():
    for option in ("train_per_class", "test_per_class"):
        with pytest.raises(InputError, match="these images have several labels: use limit"):
            split(make_labels(), **{option: 5})


@pytest.mark.parametrize("with_test", [False, True])
def test_an_npz_file_with_several_labels_becomes_a_data_set(tmp_path, with_test):
    path = many_squares(tmp_path / "many.npz", with_test=with_test)
    arrays = np.load(path)
    pool = read_npz(path, image_size=None)
    assert torch.equal(pool.labels, torch.from_numpy(arrays["labels"]))
    data = load(str(path), seed=0)
    assert data.multi_label
    assert data.num_unlabelled == (arrays["labels"].sum(axis=1) == 0).sum() > 0
    shown = {image.tobytes(): label.tolist() for image, label in zip(arrays["images"], arrays["labels"], strict=True)}
    for part in (data.train, data.val, data.test):
        assert part.labels.shape == (len(part), 3)
        for image, label in zip(part.images, part.labels, strict=True):
            assert shown[image.permute(1, 2, 0).numpy().tobytes()] == label.tolist()


def test_with_one_label_for_each_image_nothing_is_unlabelled():
    data = load("digits", seed=0)
    assert not data.multi_label
    assert data.num_unlabelled == 0


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_hand_several_labels_through_with_their_images(seed):
    labels = make_labels(30, (0.5, 0.5, 0.5))
    images = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1).expand(30, 3, 4, 4).contiguous()
    split = ImageArray(images, labels)
    data = DataSet("a", CLASSES[:3], split, split, split, (0.0,) * 3, (1 / 255,) * 3, 4, (), "")
    augment = () if seed is None else ("flip", "shift")
    seen = []
    for batch, batch_labels in batches(split, data, 8, augment=augment, seed=seed):
        numbers = batch[:, 0, 0, 0].round().long()
        assert torch.equal(batch_labels, labels[numbers])
        seen += numbers.tolist()
    assert sorted(seen) == list(range(30))


WRONG = {
    "other than 0 and 1": ({"labels": np.full((60, 3), 2)}, "labels hold 2, but with a column for each class"),
    "negative": ({"labels": -np.eye(60, 3, dtype=int)}, "labels hold -1, but"),
    "float": ({"labels": np.ones((60, 3))}, "labels are float64, but must be integers"),
    "bool": ({"labels": np.ones((60, 3), dtype=bool)}, "labels are bool, but must be integers"),
    "too short": (
        {"labels": np.ones((59, 3), dtype=int)},
        r"labels have shape \(59, 3\), but must have .*\(60, c",
    ),
    "one column": ({"labels": np.ones((60, 1), dtype=int)}, r"labels have shape \(60, 1\), but"),
    "classes differ": ({"classes": np.array(["ant", "bee"])}, "labels have 3 columns, but there are 2 classes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused(tmp_path, case):
    changed, message = WRONG[case]
    path = many_squares(tmp_path / "many.npz")
    np.savez(path, **(dict(np.load(path)) | changed))
    with pytest.raises(InputError, match=message):
        read_npz(path, image_size=None)


def test_the_classes_must_be_named(tmp_path):
    path = many_squares(tmp_path / "many.npz")
    arrays = dict(np.load(path))
    del arrays["classes"]
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"labels have shape \(60, 3\), so that each column is a class: name them"):
        read_npz(path, image_size=None)
