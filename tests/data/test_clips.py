"""Clips of several streams, divided by people and normalised."""

import numpy as np
import pytest
import torch

from heedful.data.clip_windows import windowed
from heedful.data.clips import Clips, by_subject, moments
from heedful.errors import InputError

NUM_PEOPLE, NUM_CLASSES, NUM_TIMES = 4, 3, 5


def make_clips(**changed):
    """Return five clips of each of three classes by each of four people."""
    generator = torch.Generator().manual_seed(0)
    count = NUM_PEOPLE * NUM_CLASSES * NUM_TIMES
    number = torch.arange(count)
    arguments = {
        "name": "made",
        "streams": {
            "skeleton": 3 + 2 * torch.randn(count, 3, 4, 2, generator=generator),
            "inertial": torch.randn(count, 6, 7, generator=generator) * torch.arange(1.0, 7).view(6, 1),
        },
        "labels": number % NUM_CLASSES,
        "subjects": number // (NUM_CLASSES * NUM_TIMES) + 1,
        "classes": ("wave", "clap", "walk"),
        "fingerprint": "abc",
    }
    return Clips(**(arguments | changed))


def test_at_chooses_the_same_clips_of_all():
    clips = make_clips()
    chosen = torch.tensor([7, 0, 31])
    few = clips.at(chosen)
    assert len(few) == 3
    for row, number in enumerate(chosen.tolist()):
        assert all(torch.equal(few.streams[name][row], clips.streams[name][number]) for name in clips.streams)
        assert few.labels[row] == clips.labels[number]
        assert few.subjects[row] == clips.subjects[number]
    assert (few.name, few.classes, few.fingerprint) == (clips.name, clips.classes, clips.fingerprint)


WRONG = {
    "no stream": ({"streams": {}}, "streams is empty"),
    "short stream": (
        {"streams": {"skeleton": torch.zeros(60, 3, 4), "depth": torch.zeros(59, 1, 4)}},
        r"differ in their number of clips: stream 'skeleton' 60, stream 'depth' 59, labels 60, subjects 60",
    ),
    "few labels": ({"labels": torch.zeros(10, dtype=torch.int64)}, "labels 10"),
    "few subjects": ({"subjects": torch.ones(10, dtype=torch.int64)}, "subjects 10"),
    "label too high": ({"labels": torch.full((60,), 3)}, "labels hold 3, but with 3 classes they must be 0 to 2"),
    "label below 0": ({"labels": torch.full((60,), -1)}, "labels hold -1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    changed, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        make_clips(**changed)


def test_nobody_is_trained_and_tested_on():
    train, val, test = by_subject(make_clips(), test=[2, 4])
    assert set(test.subjects.tolist()) == {2, 4}
    assert set(train.subjects.tolist()) == {1, 3} >= set(val.subjects.tolist())
    assert len(test) == 30


@pytest.mark.parametrize(("fraction", "num_val"), [(0.01, 3), (0.1, 3), (0.2, 6), (0.5, 15)])
def test_val_is_drawn_class_by_class_from_those_left(fraction, num_val):
    train, val, _ = by_subject(make_clips(), test=[2, 4], val_fraction=fraction)
    assert val.labels.bincount().tolist() == [num_val // 3] * 3
    assert len(train) == 30 - num_val


def test_the_seed_decides_what_is_drawn():
    def drawn(seed):
        return by_subject(make_clips(), test=[1], seed=seed)[1].streams["skeleton"]

    assert torch.equal(drawn(3), drawn(3))
    assert drawn(3).shape == drawn(4).shape
    assert not torch.allclose(drawn(3), drawn(4))


def test_every_clip_is_in_one_split():
    count = NUM_PEOPLE * NUM_CLASSES * NUM_TIMES
    numbered = make_clips(streams={"number": torch.arange(float(count)).view(count, 1, 1)})
    parts = by_subject(numbered, test=[1])
    numbers = torch.cat([part.streams["number"].flatten() for part in parts])
    assert torch.equal(numbers.sort().values, torch.arange(float(count)))


def test_moments_are_per_channel_over_all_else():
    clips = make_clips()
    mean, deviation = moments(clips.streams)
    for name, values in clips.streams.items():
        for channel in range(values.shape[1]):
            seen = values[:, channel].numpy()
            assert mean[name][channel] == pytest.approx(np.mean(seen), abs=1e-5)
            assert deviation[name][channel] == pytest.approx(np.std(seen), rel=1e-5)


def test_a_channel_without_variation_has_a_deviation():
    mean, deviation = moments({"depth": torch.full((60, 1, 4), 2.0)})
    assert mean == {"depth": (2.0,)}
    assert deviation["depth"] == (pytest.approx(1e-6),)


def test_cut_takes_a_part_of_each_chosen_clip_in_all_streams():
    clips = make_clips()
    chosen, windows = torch.tensor([5, 0]), torch.tensor([[0.0, 0.5], [0.25, 1.0]])
    made = clips.cut(chosen, windows, {"skeleton": 3, "inertial": 9})
    assert made["skeleton"].shape == (2, 3, 3, 2)
    assert made["inertial"].shape == (2, 6, 9)
    for name, values in clips.streams.items():
        assert torch.equal(made[name], windowed(values[[5, 0]], windows, made[name].shape[2]))


REFUSED = {
    "nobody to test": ({"test": []}, r"test is empty: name people of the subjects \[1, 2, 3, 4\]"),
    "a stranger": ({"test": [9]}, r"test names subject 9, but made has the subjects \[1, 2, 3, 4\]"),
    "nobody to train": ({"test": [4, 1, 2, 3]}, r"test \[1, 2, 3, 4\] leaves nobody to train on"),
    "fraction": ({"test": [1], "val_fraction": 1.0}, r"val_fraction is 1.0, but it must be in \(0, 1\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_divisions_that_make_no_sense_are_refused(case):
    arguments, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        by_subject(make_clips(), **arguments)


def test_a_class_that_nobody_trains_on_is_refused():
    clips = make_clips()
    labels = clips.labels.where(clips.subjects == 1, clips.labels.clamp(max=1))
    with pytest.raises(InputError, match="class 'walk' has no training clip"):
        by_subject(make_clips(labels=labels), test=[1])
