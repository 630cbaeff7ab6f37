"""UTD-MHAD: what is read from its file, what is refused, and how far a nearest neighbour gets on the real one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from heedful.data.clips import by_subject
from heedful.data.utd_mhad import TEST_SUBJECTS, read_utd_mhad
from heedful.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "utd_mhad.npz"
LENGTHS = [4, 9, 6]


def make_arrays():
    generator = np.random.default_rng(0)
    return {
        "action": np.array([2, 1, 2], dtype=np.uint8),
        "subject": np.array([1, 2, 3], dtype=np.uint8),
        "actions": np.array(["wave", "clap"]),
        "joints": np.array(["left_foot", "hip_center", "right_foot"]),
        "skeleton_q": generator.integers(-9000, 9000, (sum(LENGTHS), 3, 3)).astype(np.int16),
        "skeleton_length": np.array(LENGTHS, dtype=np.int32),
        "inertial": generator.normal(size=(2 * sum(LENGTHS), 6)),
        "inertial_length": 2 * np.array(LENGTHS, dtype=np.int32),
        "depth": generator.integers(0, 256, (3, 2, 4, 5), dtype=np.uint8),
    }


@pytest.fixture
def write(tmp_path):
    def written(**changed):
        path = tmp_path / "mhad.npz"
        np.savez(path, **{name: value for name, value in (make_arrays() | changed).items() if value is not None})
        return path

    return written


def read_at(series, num_frames):
    moments = (np.arange(num_frames) + 0.5) / num_frames * len(series) - 0.5
    return np.interp(moments, np.arange(len(series)), series)


@pytest.mark.parametrize("every_frame", [True, False])
def test_skeletons_are_metres_from_the_hips(write, every_frame):
    clips = read_utd_mhad(write(), streams=["skeleton"], skeleton_frames=5, every_frame=every_frame)
    assert clips.streams["skeleton"].shape == (3, 3, 5, 3)
    arrays, start = make_arrays(), 0
    for clip, length in enumerate(LENGTHS):
        for axis in range(3):
            metres = arrays["skeleton_q"][start : start + length, :, axis] / 10000 + (2.8 if axis == 2 else 0)
            hips = read_at(metres[:, 1], 5)
            for joint in range(3):
                expected = read_at(metres[:, joint], 5) - (hips if every_frame else hips[0])
                np.testing.assert_allclose(clips.streams["skeleton"][clip, axis, :, joint], expected, atol=1e-6)
        start += length


def test_inertial_and_depth(write):
    clips = read_utd_mhad(write(), inertial_frames=7)
    arrays, start = make_arrays(), 0
    assert clips.streams["inertial"].shape == (3, 6, 7)
    for clip, length in enumerate(LENGTHS):
        for channel in range(6):
            series = arrays["inertial"][start : start + 2 * length, channel]
            np.testing.assert_allclose(clips.streams["inertial"][clip, channel], read_at(series, 7), atol=1e-5)
        start += 2 * length
    assert clips.streams["depth"].shape == (3, 1, 2, 4, 5)
    np.testing.assert_array_equal(clips.streams["depth"][:, 0], arrays["depth"])
    assert {values.dtype for values in clips.streams.values()} == {torch.float32}


def test_labels_people_and_names(write):
    clips = read_utd_mhad(write())
    assert clips.labels.tolist() == [1, 0, 1]
    assert clips.subjects.tolist() == [1, 2, 3]
    assert clips.classes == ("wave", "clap")
    assert list(clips.streams) == ["skeleton", "inertial", "depth"]
    assert clips.name == "mhad"
    assert clips.partners == (2, 1, 0)
    assert read_utd_mhad(write(), streams=["depth"]).partners == ()
    depth = make_arrays()["depth"]
    depth[0, 0, 0, 0] ^= 1
    first = clips.fingerprint
    assert read_utd_mhad(write()).fingerprint == first != read_utd_mhad(write(depth=depth)).fingerprint


def test_streams_that_are_not_asked_for_are_not_needed(write):
    path = write(depth=None, skeleton_q=None)
    assert list(read_utd_mhad(path, streams=("inertial",)).streams) == ["inertial"]


WRONG = {
    "no array": ({"inertial": None}, "has no array 'inertial': it has .*skeleton_q"),
    "lengths do not add up": ({"skeleton_length": np.array([4, 9, 7])}, "skeleton_length adds up to 20, but .* 19"),
    "an empty clip": ({"skeleton_length": np.array([0, 13, 6])}, "each clip must have one or more"),
    "other joints": ({"joints": np.array(["head", "hip", "foot"])}, "'hip_center', the origin, must be one"),
    "more joints": ({"joints": np.array(["head", "hip_center"])}, r"shape \(3, 3\), but must have \(2, 3\)"),
    "five channels": ({"inertial": np.zeros((38, 5))}, r"beside inertial_length has shape \(5,\), but must .*\(6,\)"),
    "float depth": ({"depth": np.zeros((3, 2, 4, 5))}, "depth is float64 of shape .*must be whole numbers from 0 on"),
    "flat depth": ({"depth": np.zeros((3, 2, 4), np.uint8)}, r"depth is uint8 of shape \(3, 2, 4\), .* 4 dimensions"),
    "people by name": (
        {"subject": np.array(["a", "b", "c"])},
        "mhad.npz: subject is <U1 .* must be whole numbers in 1",
    ),
    "half a frame": (
        {"skeleton_length": np.array([4.5, 8.5, 6])},
        "skeleton_length is float64 .* must be whole",
    ),
    "one joint": ({"skeleton_q": np.zeros((19, 3))}, r"skeleton_q is float64 of shape \(19, 3\), .* in 3 dimensions"),
    "not a number": ({"inertial": np.full((38, 6), np.nan)}, "mhad.npz: inertial has values that are not finite"),
    "no end": ({"skeleton_q": np.full((19, 3, 3), np.inf)}, "mhad.npz: skeleton_q has values that are not finite"),
    "a clip more": ({"depth": np.zeros((4, 2, 4, 5), np.uint8)}, "stream 'depth' 4, labels 3"),
    "action 0": ({"action": np.array([0, 1, 2])}, "labels hold -1"),
    "action 3": ({"action": np.array([3, 1, 2])}, "labels hold 2"),
    "pickled": ({"actions": np.array(["wave", "clap"], dtype=object)}, r"is not an \.npz file that numpy can read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused(write, case):
    changed, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        read_utd_mhad(write(**changed))


def test_unknown_streams_are_refused(write):
    with pytest.raises(InputError, match=r"mhad\.npz: unknown stream 'skeletons': did you mean skeleton"):
        read_utd_mhad(write(), streams=["skeletons"])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "mhad.npz"
    with pytest.raises(InputError, match=r"that numpy can read .*No such file"):
        read_utd_mhad(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"is not an \.npz file"):
        read_utd_mhad(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"is not an \.npz file"):
        read_utd_mhad(path)


def nearest(train, test, stream):
    """Return the percentage of test clips whose nearest training clip has their label."""
    distances = torch.cdist(test.streams[stream].flatten(1), train.streams[stream].flatten(1))
    return 100 * (train.labels[distances.argmin(1)] == test.labels).double().mean().item()


@pytest.mark.skipif(not REAL.is_file(), reason="needs utd_mhad.npz in shared/, which is not in the project")
def test_the_real_file():
    clips = read_utd_mhad(REAL, streams=("skeleton", "inertial"))
    assert len(clips) == 861
    assert {name: tuple(values.shape[1:]) for name, values in clips.streams.items()} == {
        "skeleton": (3, 32, 20),
        "inertial": (6, 128),
    }
    is_test = torch.isin(clips.subjects, torch.tensor(TEST_SUBJECTS))
    # The file's own README has 81.9 and 67.2 with other ways of resampling and scaling.
    raw = clips.at((~is_test).nonzero().flatten()), clips.at(is_test.nonzero().flatten())
    assert nearest(*raw, "skeleton") == pytest.approx(81.9, abs=1)
    assert [len(part) for part in by_subject(clips, test=TEST_SUBJECTS)] == [377, 54, 430]
    assert [clips.partners[clips.partners[joint]] for joint in range(20)] == list(range(20))
    assert clips.partners[4] == 8
