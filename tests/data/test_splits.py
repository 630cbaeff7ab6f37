"""Splits: disjoint, complete, stratified, seeded; given ones kept."""

import pytest
import torch

from heedful.data.pool import TEST, TRAIN, VAL
from heedful.data.splits import Division, divide
from heedful.errors import InputError

COUNTS = (100, 53, 10, 3)
CLASSES = ("ant", "bee", "cat", "dog")


def make_labels(counts=COUNTS, seed=0):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def given_first(labels, key, per_class):
    """Give the first images of each class to a split."""
    given = torch.full_like(labels, TRAIN)
    for label in labels.unique():
        given[(labels == label).nonzero().flatten()[:per_class]] = key
    return given


def split(labels, given=None, seed=0, **kwargs):
    given = torch.full_like(labels, TRAIN) if given is None else given
    return divide(labels, given, CLASSES[: int(labels.max()) + 1], Division(seed, **kwargs))


def by_class(labels, part):
    return labels[part].bincount(minlength=4).tolist()


def test_drawn_splits_are_disjoint_complete_and_stratified():
    labels = make_labels()
    parts = split(labels)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(labels)))
    assert [by_class(labels, part) for part in parts] == [[80, 43, 8, 1], [10, 5, 1, 1], [10, 5, 1, 1]]
    assert all(torch.equal(part, part.sort().values) for part in parts)


def test_fractions_have_their_effect():
    labels = make_labels()
    parts = split(labels, val_fraction=0.3, test_fraction=0.2)
    assert [by_class(labels, part) for part in parts] == [[50, 26, 5, 1], [30, 16, 3, 1], [20, 11, 2, 1]]


def test_a_seed_decides():
    labels = make_labels((100, 60, 6))
    for limit in (None, 100):
        first, same, other = (split(labels, seed=seed, limit=limit) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(first[:2], other[:2], strict=True))


def test_drawing_does_not_follow_the_order_of_the_images():
    labels = torch.zeros(1000, dtype=torch.int64).index_fill(0, torch.arange(500, 1000), 1)
    train, val, test = split(labels)
    for part in (train, val, test):
        assert abs(part.double().mean() - 499.5) < 100


def test_of_a_given_test_split_validation_is_drawn_from_the_rest():
    labels = make_labels()
    given = given_first(labels, TEST, per_class=1)
    train, val, test = split(labels, given)
    assert torch.equal(test, (given == TEST).nonzero().flatten())
    assert by_class(labels, val) == [10, 5, 1, 1]
    assert torch.cat([train, val, test]).sort().values.tolist() == list(range(len(labels)))


def test_all_given_splits_are_kept():
    labels = make_labels()
    given = given_first(labels, TEST, per_class=2)
    given[given_first(labels, VAL, per_class=1) == VAL] = VAL
    for seed in (0, 1):
        parts = split(labels, given, seed)
        assert all(
            torch.equal(part, (given == key).nonzero().flatten())
            for part, key in zip(parts, (TRAIN, VAL, TEST), strict=True)
        )


@pytest.mark.parametrize(("limit", "expected"), [(83, 83), (0.5, 83), (1.0, 166), (1, None), (1000, 166), (166, 166)])
def test_limit_is_exact_and_stratified(limit, expected):
    labels = make_labels()
    if expected is None:
        with pytest.raises(InputError, match="limit 1 leaves 1 of 166 images and none of class 'bee', which has 53"):
            split(labels, limit=limit)
        return
    if expected < 166:
        labels = make_labels((100, 60, 6))
        labels = labels[:166]
    parts = split(labels, limit=limit)
    chosen = torch.cat(parts)
    assert len(chosen) == len(chosen.unique()) == expected
    share = expected / 166
    counts = torch.tensor(by_class(labels, chosen)) - share * torch.tensor(by_class(labels, slice(None)))
    assert counts.abs().max() < 1


def test_a_given_test_split_is_never_limited():
    labels = make_labels((100, 100))
    given = given_first(labels, TEST, per_class=40)
    train, val, test = split(labels, given, limit=30, val_fraction=0.2)
    assert [len(part) for part in (train, val, test)] == [24, 6, 80]
    train, val, test = split(labels, given, limit=0.25, val_fraction=0.2)
    assert [len(part) for part in (train, val, test)] == [24, 6, 80]


def test_a_given_validation_split_is_limited_with_the_training_images():
    labels = make_labels((100, 100))
    given = given_first(labels, TEST, per_class=40)
    given[given_first(labels, VAL, per_class=20) == VAL] = VAL
    for seed in range(5):
        train, val, test = split(labels, given, seed, limit=0.5)
        assert [by_class(labels, part)[:2] for part in (train, val, test)] == [[30, 30], [10, 10], [20, 20]]
        assert set(val.tolist()) < set((given == VAL).nonzero().flatten().tolist())


def test_a_class_too_small_to_divide_is_named_and_counted():
    with pytest.raises(InputError, match="class 'bee' has too few images: 2 to be divided into train and val and test"):
        split(make_labels((30, 2)))
    labels = make_labels((30, 2))
    with pytest.raises(InputError, match="class 'bee' has too few images: 1 to be divided into train and val, "):
        split(labels, given_first(labels, TEST, per_class=1))


@pytest.mark.parametrize(("key", "name"), [(TEST, "test"), (VAL, "val")])
def test_a_class_missing_from_a_given_split_is_named(key, name):
    labels = make_labels((30, 30))
    given = given_first(labels, TEST, per_class=5)
    given[given_first(labels, VAL, per_class=2) == VAL] = VAL
    given[(labels == 1) & (given == key)] = TRAIN
    with pytest.raises(InputError, match=f"class 'bee' has 0 images in the {name} split"):
        split(labels, given)


def test_a_class_without_any_image_is_named():
    labels = torch.tensor([0, 0, 0, 2, 2, 2])
    with pytest.raises(InputError, match="class 'bee' has too few images: 0"):
        split(labels)


def test_a_limit_that_leaves_a_class_too_small_says_so():
    with pytest.raises(InputError, match=r"class 'ant' has too few images: 1 .* raise the limit"):
        split(make_labels((30, 30)), limit=2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"val_fraction": 0.0}, r"val_fraction is 0.0, but it must be in \(0, 1\)"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"test_fraction": float("nan")}, "test_fraction is nan"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"limit": 0}, "limit is 0, but"),
        ({"limit": -5}, "limit is -5, but"),
        ({"limit": 0.0}, "limit is 0.0, but"),
        ({"limit": 1.5}, "limit is 1.5, but"),
        ({"train_per_class": 0}, "train_per_class is 0, but it must be at least 1"),
        ({"test_per_class": -3}, "test_per_class is -3, but"),
        ({"limit": 50, "train_per_class": 5}, "limit 50 and train_per_class 5 both say how many"),
        ({"seed": -1}, "seed is -1, but"),
        ({"seed": 2**63}, "seed is 9223372036854775808, but"),
    ],
)
def test_numbers_out_of_range_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        Division(**({"seed": 0} | kwargs))


def test_a_number_of_images_of_each_class_is_drawn_exactly():
    labels = make_labels((100, 53, 45))
    parts = split(labels, train_per_class=30, test_per_class=5, val_fraction=0.2)
    assert [by_class(labels, part)[:3] for part in parts] == [[30] * 3, [6] * 3, [5] * 3]
    chosen = torch.cat(parts)
    assert len(chosen.unique()) == len(chosen)
    same, other = (split(labels, seed=seed, train_per_class=30, test_per_class=5, val_fraction=0.2) for seed in (0, 1))
    for ours, again, different in zip(parts, same, other, strict=True):
        assert torch.equal(ours, again)
        assert not torch.equal(ours, different)


def test_each_number_per_class_works_alone():
    labels = make_labels((100, 53, 45))
    assert [by_class(labels, part)[:3] for part in split(labels, test_per_class=7)] == [
        [83, 41, 33], [10, 5, 5], [7, 7, 7]
    ]  # fmt: skip
    assert [by_class(labels, part)[:3] for part in split(labels, train_per_class=20)] == [
        [20, 20, 20], [2, 2, 2], [10, 5, 5]
    ]  # fmt: skip


def test_beside_training_images_a_small_class_gives_what_it_has_left_for_the_test():
    labels = make_labels((200, 80, 67))
    parts = split(labels, train_per_class=60, test_per_class=25)
    assert [by_class(labels, part)[:3] for part in parts] == [[60] * 3, [6] * 3, [25, 14, 1]]


def test_numbers_per_class_keep_given_splits():
    labels = make_labels((40, 40))
    given = given_first(labels, TEST, per_class=11)
    train, val, test = split(labels, given, train_per_class=20)
    assert torch.equal(test, (given == TEST).nonzero().flatten())
    assert (by_class(labels, train)[:2], by_class(labels, val)[:2]) == ([20, 20], [2, 2])
    with pytest.raises(InputError, match="test_per_class is 5, but the data come with a test split"):
        split(labels, given, test_per_class=5)
    given[given_first(labels, VAL, per_class=15) == VAL] = VAL
    train, val, test = split(labels, given, train_per_class=20)
    assert torch.equal(val, (given == VAL).nonzero().flatten())
    assert by_class(labels, train)[:2] == [20, 20]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train_per_class": 60}, "class 'bee' has too few images: 66, but 60 for train, 6 for val, 1 for test are"),
        ({"test_per_class": 60}, "class 'bee' has too few images: 66, but 1 for train, 7 for val, 60 for test are"),
        ({"train_per_class": 70, "test_per_class": 25}, "66, but 70 for train, 7 for val, 1 for test .* lower"),
    ],
)
def test_a_class_with_too_few_images_for_the_numbers_asked_is_named(kwargs, message):
    with pytest.raises(InputError, match=message):
        split(make_labels((100, 66)), **kwargs)
