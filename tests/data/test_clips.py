"""Clips of several streams, divided by people and normalised."""

import numpy as np
import pytest
import torch

from heedful.data.clips import Clips, by_subject
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


def test_people_are_in_one_split():
    parts = by_subject(make_clips(), test=[2, 4], val=[3])
    assert [set(part.subjects.tolist()) for part in (parts.train, parts.val, parts.test)] == [{1}, {3}, {2, 4}]
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [15, 15, 30]


@pytest.mark.parametrize(("fraction", "num_val"), [(0.1, 3), (0.2, 6), (0.5, 15)])
def test_val_is_drawn_class_by_class_from_those_left(fraction, num_val):
    parts = by_subject(make_clips(), test=[2, 4], val_fraction=fraction)
    assert parts.val.labels.bincount().tolist() == [num_val // 3] * 3
    assert set(parts.train.subjects.tolist()) == {1, 3} >= set(parts.val.subjects.tolist())
    assert [len(part) for part in (parts.train, parts.test)] == [30 - num_val, 30]


def test_every_clip_is_in_one_split():
    count = NUM_PEOPLE * NUM_CLASSES * NUM_TIMES
    numbered = make_clips(streams={"number": torch.arange(float(count)).view(count, 1, 1)})
    parts = by_subject(numbered, test=[1])
    values = torch.cat([part.streams["number"].flatten() for part in (parts.train, parts.val, parts.test)])
    numbers = values * parts.deviation["number"] + parts.mean["number"]
    torch.testing.assert_close(numbers.sort().values, torch.arange(float(count)), atol=1e-4, rtol=0)


def test_the_seed_decides_what_is_drawn():
    def drawn(seed):
        return by_subject(make_clips(), test=[1], seed=seed).val.streams["skeleton"]

    assert torch.equal(drawn(3), drawn(3))
    assert drawn(3).shape == drawn(4).shape
    assert not torch.allclose(drawn(3), drawn(4))


def test_streams_are_normalised_by_the_training_split():
    clips = make_clips()
    parts = by_subject(clips, test=[4], val=[2])
    training = {1, 3}
    for name, values in clips.streams.items():
        for channel in range(values.shape[1]):
            seen = [values[clip, channel].flatten() for clip in range(60) if int(clips.subjects[clip]) in training]
            mean, deviation = np.mean(np.stack(seen)), np.std(np.stack(seen))
            assert parts.mean[name][channel].item() == pytest.approx(mean, abs=1e-5)
            assert parts.deviation[name][channel].item() == pytest.approx(deviation, rel=1e-5)
            for part, person in ((parts.val, 2), (parts.test, 4)):
                expected = (values[clips.subjects == person][:, channel] - mean) / deviation
                torch.testing.assert_close(part.streams[name][:, channel], expected, atol=1e-5, rtol=1e-5)
        trained = parts.train.streams[name].transpose(0, 1).flatten(1)
        torch.testing.assert_close(trained.mean(1), torch.zeros(len(trained)), atol=1e-5, rtol=0)
        torch.testing.assert_close(trained.std(1, correction=0), torch.ones(len(trained)), atol=1e-4, rtol=0)


def test_a_channel_without_variation_stays_finite():
    parts = by_subject(make_clips(streams={"depth": torch.full((60, 1, 4), 2.0)}), test=[1])
    assert (parts.train.streams["depth"] == 0).all()
    assert parts.deviation["depth"].item() == pytest.approx(1e-6)


REFUSED = {
    "nobody to test": ({"test": []}, r"test is empty: name the people .* \[1, 2, 3, 4\]"),
    "a stranger": ({"test": [9]}, r"test names subject 9, but made has the subjects \[1, 2, 3, 4\]"),
    "a stranger in val": ({"test": [1], "val": [0]}, "val names subject 0"),
    "one in both": ({"test": [1, 2], "val": [2]}, "subject 2 is in test and in val"),
    "nobody to train": ({"test": [1, 2], "val": [3, 4]}, "leave nobody to train on"),
    "fraction": ({"test": [1], "val_fraction": 1.0}, r"val_fraction is 1.0, but it must be in \(0, 1\)"),
    "seed": ({"test": [1], "seed": -1}, "seed is -1, but it must be a whole number"),
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
