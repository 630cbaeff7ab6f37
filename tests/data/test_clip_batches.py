"""Batches of clips: every clip once, all streams cut and mirrored alike, normalised, decided by the seed alone."""

import dataclasses

import pytest
import torch

from heedful.data.clip_batches import clip_batches
from heedful.data.clip_data import divide_clips, load_clips, read_clips
from heedful.data.clip_windows import middle_windows, random_windows, windowed
from heedful.data.share import Share
from heedful.data.skeletons import mirrored, random_turns, turned
from heedful.errors import InputError
from tests.data.clips_made import write_ntu_rgbd, write_utd_mhad


@pytest.fixture(scope="module")
def mhad(tmp_path_factory):
    """Return data of 12 clips to train on."""
    clips = read_clips(
        write_utd_mhad(tmp_path_factory.mktemp("mhad") / "mhad.npz"), streams=("skeleton", "inertial", "depth")
    )
    return divide_clips(clips, seed=0, val_fraction=0.25)


@pytest.fixture(scope="module")
def ntu(tmp_path_factory):
    names = [f"S001C001P{person:03}R001A0{action}" for person in (1, 2, 3, 4) for action in (13, 60)]
    root = write_ntu_rgbd(tmp_path_factory.mktemp("ntu"), names, video=True)
    return load_clips(root, streams=("skeleton", "video"), seed=0)


def whole(batches):
    """Return an epoch's streams and labels, all batches one after another."""
    found = list(batches)
    streams = {name: torch.cat([inputs[name] for inputs, _ in found]) for name in found[0][0]}
    return streams, torch.cat([labels for _, labels in found])


def by_hand(split, data, name, order, windows):
    """Return a stream of clips in memory, cut but not normalised."""
    return windowed(split.streams[name][order], windows[order], data.shapes[name][1])


def normalise(values, data, name):
    made = torch.empty_like(values)
    for channel, (mean, deviation) in enumerate(zip(data.mean[name], data.deviation[name], strict=True)):
        made[:, channel] = (values[:, channel] - mean) / deviation
    return made


def without(data, *names):
    """Return the data without these streams."""
    parts = {
        part: dataclasses.replace(
            getattr(data, part), streams={k: v for k, v in getattr(data, part).streams.items() if k not in names}
        )
        for part in ("train", "val", "test")
    }
    return dataclasses.replace(data, shapes={k: v for k, v in data.shapes.items() if k not in names}, **parts)


def test_in_evaluation_the_middle_of_each_clip_comes_in_order(mhad):
    batches = clip_batches(mhad.test, mhad, 5)
    assert len(batches) == 4
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 1]
    streams, labels = whole(batches)
    assert torch.equal(labels, mhad.test.labels)
    for name in mhad.shapes:
        cut = by_hand(mhad.test, mhad, name, torch.arange(16), middle_windows(16))
        torch.testing.assert_close(streams[name], normalise(cut, mhad, name))
        assert streams[name].dtype == torch.float32
        assert tuple(streams[name].shape[1:]) == mhad.shapes[name]


def test_training_clips_are_normalised(mhad):
    streams, _ = whole(clip_batches(mhad.train, mhad, 4))
    for values in streams.values():
        channels = values.transpose(0, 1).flatten(1)
        torch.testing.assert_close(channels.mean(1), torch.zeros(len(channels)), atol=1e-3, rtol=0)
        torch.testing.assert_close(channels.std(1, correction=0), torch.ones(len(channels)), atol=1e-3, rtol=0)


def test_augmentation_is_that_of_its_parts(mhad):
    data = without(mhad, "inertial")
    streams, labels = whole(clip_batches(data.train, data, 4, augment=("turn", "flip", "window"), seed=7))
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(12, generator=generator)
    windows, angles = random_windows(12, generator), random_turns(12, generator)
    flipped = (torch.rand(12, generator=generator) < 0.5)[order]
    assert 0 < flipped.sum() < 12
    assert torch.equal(labels, data.train.labels[order])
    skeletons = turned(by_hand(data.train, data, "skeleton", order, windows), angles[order])
    skeletons[flipped] = mirrored(skeletons[flipped], data.train.partners)
    torch.testing.assert_close(streams["skeleton"], normalise(skeletons, data, "skeleton"))
    depth = by_hand(data.train, data, "depth", order, windows)
    depth[flipped] = depth[flipped].flip(-1)
    torch.testing.assert_close(streams["depth"], normalise(depth, data, "depth"))


@pytest.mark.parametrize(
    ("augment", "changed"),
    [((), set()), (("window",), {"skeleton", "depth", "inertial"}), (("turn",), {"skeleton"})],
)
def test_each_augmentation_changes_its_streams_alone(mhad, augment, changed):
    streams, labels = whole(clip_batches(mhad.train, mhad, 4, augment=augment, seed=1))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    plain, _ = whole(clip_batches(mhad.train, mhad, 4))
    assert torch.equal(labels, mhad.train.labels[order])
    assert {name for name in streams if not torch.allclose(streams[name], plain[name][order], atol=1e-4)} == changed


def test_an_epoch_follows_from_its_seed_alone(mhad):
    def epoch(seed, batch_size=4):
        return whole(clip_batches(mhad.train, mhad, batch_size, augment=("window", "turn"), seed=seed))[0]

    first = epoch(3)
    state = torch.get_rng_state()
    assert all(torch.equal(values, first[name]) for name, values in epoch(3).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.allclose(values, first[name]) for name, values in epoch(3, 6).items())
    assert not torch.allclose(epoch(4)["skeleton"], first["skeleton"])
    batches = clip_batches(mhad.train, mhad, 4, augment=("window",), seed=3)
    assert torch.equal(whole(batches)[0]["depth"], whole(batches)[0]["depth"])


def test_a_last_training_batch_of_one_is_left_out(mhad):
    assert [len(labels) for _, labels in clip_batches(mhad.train, mhad, 11, seed=0)] == [11]
    assert [len(labels) for _, labels in clip_batches(mhad.train, mhad, 11)] == [11, 1]
    assert [len(labels) for _, labels in clip_batches(mhad.train, mhad, 5, seed=0)] == [5, 5, 2]
    assert len(clip_batches(mhad.train, mhad, 1, seed=0)) == 12


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_are_read_cut_turned_and_mirrored(ntu, num_workers):
    batches = clip_batches(
        ntu.test, ntu, 3, augment=("window", "turn", "flip"), seed=2, num_workers=num_workers
    )  # fmt: skip
    streams, labels = whole(batches)
    generator = torch.Generator().manual_seed(2)
    order = torch.randperm(2, generator=generator)
    windows, angles = random_windows(2, generator), random_turns(2, generator)
    flipped = (torch.rand(2, generator=generator) < 0.5)[order]
    assert torch.equal(labels, torch.tensor([12, 59])[order])
    cut = ntu.test.cut(order, windows[order], {"skeleton": 32, "video": 8})
    skeletons = turned(cut["skeleton"], angles[order])
    skeletons[flipped] = mirrored(skeletons[flipped], ntu.test.partners)
    torch.testing.assert_close(streams["skeleton"], normalise(skeletons, ntu, "skeleton"))
    cut["video"][flipped] = cut["video"][flipped].flip(-1)
    torch.testing.assert_close(streams["video"], normalise(cut["video"], ntu, "video"))
    assert tuple(streams["video"].shape[1:]) == ntu.shapes["video"] == (3, 8, 112, 112)


@pytest.mark.parametrize("seed", [None, 5])
def test_processes_share_what_one_would_see(mhad, seed):
    augment = () if seed is None else ("window", "turn")
    shared = [clip_batches(mhad.train, mhad, 5, augment=augment, seed=seed, share=Share(k, 2)) for k in range(2)]
    streams, labels = whole(clip_batches(mhad.train, mhad, 5, augment=augment, seed=seed))
    found = [list(batches) for batches in shared]
    if seed is None:
        parts = [part for own in found for part in own]
    else:
        assert [[len(own[1]) for own in each] for each in found] == [[2, 2, 1], [3, 3, 1]]
        parts = [own for both in zip(*found, strict=True) for own in both]
    assert torch.equal(torch.cat([own for _, own in parts]), labels)
    for name in streams:
        torch.testing.assert_close(torch.cat([inputs[name] for inputs, _ in parts]), streams[name])


REFUSED = {
    "no clip a batch": ({"batch_size": 0}, "batch_size is 0, but it must be at least 1"),
    "unknown": ({"augment": ("windows",), "seed": 0}, "unknown augmentation of clips 'windows': did you mean window"),
    "too many processes": ({"batch_size": 2, "share": Share(0, 3)}, "batch_size is 2, but 3 processes share each"),
    "no seed": ({"augment": ("turn",)}, "augment is .*turn.*, but without a seed nothing is drawn"),
    "a mirrored sensor": ({"augment": ("flip",), "seed": 0}, "'flip': what an inertial sensor saw cannot be mirrored"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_batches_that_cannot_be_are_refused(mhad, case):
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        clip_batches(mhad.train, mhad, **{"batch_size": 4, **options})


def test_a_file_that_was_cut_is_named(tmp_path):
    names = [f"S001C001P00{person}R001A001" for person in (1, 2, 3)]
    root = write_ntu_rgbd(tmp_path / "ntu", names, frames=4)
    data = load_clips(root, streams=("skeleton",), seed=0)
    file = root / "nturgb+d_skeletons" / f"{names[2]}.skeleton"
    file.write_text("\n".join(file.read_text().splitlines()[:40]))
    with pytest.raises(InputError, match=f"{names[2]}.skeleton, line 40: the file ends where a joint must follow"):
        whole(clip_batches(data.test, data, 2))
