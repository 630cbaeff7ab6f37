"""Clips by source: their splits, shapes and moments; what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from heedful.data.clip_data import NUM_FRAMES, divide_clips, load_clips, read_clips
from heedful.data.clip_windows import middle_windows
from heedful.data.ntu_rgbd import VAL_SUBJECTS
from heedful.errors import InputError
from tests.data.clips_made import write_ntu_rgbd, write_utd_mhad

REAL = Path(__file__).parents[3] / "shared" / "data" / "utd_mhad.npz"


@pytest.fixture(scope="module")
def mhad(tmp_path_factory):
    return write_utd_mhad(tmp_path_factory.mktemp("mhad") / "mhad.npz")


PEOPLE = (1, 2, 3, 5, 9, 40)
NAMES = [f"S001C00{camera}P{person:03}R001A0{action}" for camera in (1, 2) for person in PEOPLE for action in (13, 60)]


@pytest.fixture(scope="module")
def ntu(tmp_path_factory):
    return write_ntu_rgbd(tmp_path_factory.mktemp("ntu"), NAMES, frames=4)


def people(split):
    return set(split.subjects.tolist())


def test_utd_mhad_is_divided_by_person(mhad):
    data = load_clips(mhad, streams=("skeleton", "inertial"), seed=0)
    assert people(data.test) == {2, 4, 6, 8}
    assert people(data.train) | people(data.val) == {1, 3, 5, 7}
    assert data.counts == {"train": 14, "val": 2, "test": 16}
    assert data.classes == ("wave 1", "wave 2")
    assert data.shapes == {"skeleton": (3, 32, 5), "inertial": (6, 128)}
    assert data.name == "mhad"
    assert data.fingerprint == read_clips(mhad, ("depth",)).fingerprint != ""


def test_the_seed_draws_what_validates(mhad):
    pool = read_clips(mhad, ("inertial",))
    drawn = [divide_clips(pool, seed=seed, val_fraction=0.25).val for seed in range(6)]
    assert [val.labels.bincount().tolist() for val in drawn] == [[2, 2]] * 6
    again = divide_clips(pool, seed=2, val_fraction=0.25).val
    assert torch.equal(drawn[2].streams["inertial"], again.streams["inertial"])
    assert len({tuple(val.streams["inertial"][:, 0, 0].tolist()) for val in drawn}) > 3


def test_moments_are_those_of_the_training_clips_as_a_network_sees_them(mhad):
    data = load_clips(mhad, streams=("skeleton", "inertial", "depth"), seed=3)
    seen = data.train.cut(torch.arange(14), middle_windows(14), NUM_FRAMES)
    for name, values in seen.items():
        for channel in range(values.shape[1]):
            numbers = values[:, channel].double().numpy()
            assert data.mean[name][channel] == pytest.approx(numbers.mean(), abs=1e-4 * max(1, numbers.std()))
            assert data.deviation[name][channel] == pytest.approx(numbers.std(), rel=1e-3)
    assert not math.isclose(data.mean["depth"][0], load_clips(mhad, streams=["depth"], seed=1).mean["depth"][0])


def test_ntu_rgbd_across_people(ntu):
    data = load_clips(ntu, streams=("skeleton",), seed=0)
    subjects = [{clip.subject for clip in part.clips} for part in (data.train, data.val, data.test)]
    assert subjects == [{1}, {2, 5, 9} & set(VAL_SUBJECTS), {3, 40}]
    assert data.counts == {"train": 4, "val": 12, "test": 8}
    assert data.shapes == {"skeleton": (3, 32, 25, 2)}
    assert len(data.classes) == 60
    assert data.classes[data.train.labels[0]] == "tear up paper"
    assert data.train.labels.tolist() == [12, 59, 12, 59]


def test_ntu_rgbd_across_views(ntu):
    data = load_clips(ntu, streams=("skeleton",), seed=0, split="cross-view")
    assert {clip.camera for clip in data.test.clips} == {1}
    assert {clip.camera for part in (data.train, data.val) for clip in part.clips} == {2}
    assert {clip.subject for clip in data.train.clips} == {1, 3, 40}


def test_some_of_the_clips_are_clips(ntu):
    clips = read_clips(ntu, ("skeleton",))
    few = clips.at(torch.tensor([5, 0]))
    assert few.clips == (clips.clips[5], clips.clips[0])
    assert few.labels.tolist() == [clips.labels[5], clips.labels[0]]


def test_missing_skeletons_are_left_out_and_change_the_fingerprint(tmp_path):
    root = write_ntu_rgbd(tmp_path / "ntu", NAMES, frames=4)
    every = read_clips(root, ("skeleton",))
    (root / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text(f"2 samples\n\n{NAMES[0]}\n{NAMES[3]}\n")
    fewer = read_clips(root, ("skeleton",))
    assert (len(every), len(fewer)) == (24, 22)
    assert every.fingerprint != fewer.fingerprint


REFUSED = {
    "a folder of something else": ("", ("skeleton",), "holds no .skeleton files"),
    "no file": ("none.npz", ("skeleton",), "is no clips that are known here: give the .npz file of UTD-MHAD"),
    "another file": ("notes.txt", ("skeleton",), "is no clips that are known here"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_sources_are_refused(tmp_path, case):
    name, streams, message = REFUSED[case]
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match=message):
        read_clips(tmp_path / name, streams)


def test_streams_that_a_source_lacks_are_refused(mhad, ntu):
    with pytest.raises(InputError, match="unknown stream 'video'"):
        read_clips(mhad, ("skeleton", "video"))
    with pytest.raises(InputError, match="unknown stream 'depth': choose one of skeleton, video"):
        read_clips(ntu, ("skeleton", "depth"))


def test_divisions_that_cannot_be_are_refused(mhad, ntu, tmp_path):
    with pytest.raises(InputError, match="mhad: unknown benchmark 'cross-view'"):
        load_clips(mhad, streams=("inertial",), seed=0, split="cross-view")
    with pytest.raises(InputError, match="unknown benchmark 'random'"):
        load_clips(ntu, streams=("skeleton",), seed=0, split="random")
    with pytest.raises(InputError, match="seed is -1"):
        load_clips(mhad, streams=("inertial",), seed=-1)
    alone = write_ntu_rgbd(tmp_path / "alone", ["S001C001P001R001A001", "S001C001P003R001A001"], frames=4)
    with pytest.raises(InputError, match="ntu_rgbd: of 2 clips none is in split 'val'"):
        load_clips(alone, streams=("skeleton",), seed=0)


def nearest(data, stream):
    """Return the percentage of test clips whose nearest training clip, normalised, has their label."""
    parts = []
    for split in (data.train, data.test):
        cut = split.cut(torch.arange(len(split)), middle_windows(len(split), length=1.0), NUM_FRAMES)[stream]
        shape = (-1, *(1 for _ in cut.shape[2:]))
        parts.append((cut / torch.tensor(data.deviation[stream]).view(shape)).flatten(1))
    found = torch.cdist(parts[1], parts[0]).argmin(1)
    return 100 * (data.train.labels[found] == data.test.labels).double().mean().item()


@pytest.mark.skipif(not REAL.is_file(), reason="needs utd_mhad.npz in shared/, which is not in the project")
def test_the_real_file():
    data = load_clips(REAL, streams=("skeleton", "inertial"), seed=0)
    assert sum(data.counts.values()) == 861
    assert data.counts["test"] == 430
    assert data.shapes == {"skeleton": (3, 32, 20), "inertial": (6, 128)}
    # With all four people to train on: 82 and 67.
    assert nearest(data, "skeleton") > 75
    assert nearest(data, "inertial") > 55
    assert np.isfinite([*data.mean["skeleton"], *data.deviation["inertial"]]).all()
