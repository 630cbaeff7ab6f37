"""NTU RGB+D: files made in its layout, read as they were written; cut and wrong ones, with their line."""

import numpy as np
import pytest
import torch

from heedful.data.clip_windows import windowed
from heedful.data.ntu_rgbd import (
    TRAIN_SUBJECTS,
    VAL_SUBJECTS,
    NtuClip,
    divide_ntu_rgbd,
    list_ntu_rgbd,
    parse_name,
    read_skeleton,
    skeleton_stream,
)
from heedful.errors import InputError

NAME = "S001C002P003R002A013"


def make_points(seed, scale=1.0):
    """Return the places of 25 joints, in metres, around (0, 0, 3)."""
    return np.random.default_rng(seed).normal(size=(25, 3)) * scale + [0, 0, 3]


def as_text(frames):
    """Return the text of a file: frames are mappings of a person's number to the places of the joints."""
    lines = [f"{len(frames)}"]
    for bodies in frames:
        lines.append(f"{len(bodies)}")
        for who, points in bodies.items():
            lines += [f"{who} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            lines += [f"{x:.7f} {y:.7f} {z:.7f} 277.4 191.8 1036.2 519.2 -0.21 0.03 0.97 0.02 2" for x, y, z in points]
    return "\n".join(lines) + "\n"


def read(path):
    """Return what is read with the persons first, for the comparisons."""
    return read_skeleton(path).movedim(3, 0)


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / f"{NAME}.skeleton"
        path.write_text(text)
        return path

    return written


def test_one_person_is_read_frame_by_frame(write):
    frames = [{72057594037931368: make_points(frame)} for frame in range(4)]
    bodies = read(write(as_text(frames)))
    assert read_skeleton(write(as_text(frames))).shape == (3, 4, 25, 2)
    for frame, (points,) in enumerate(map(dict.values, frames)):
        np.testing.assert_allclose(bodies[0, :, frame].T, points, atol=1e-6)
    assert (bodies[1] == 0).all()


def motion(places):
    """Return the variance over time of each coordinate of each joint, added up."""
    return sum(np.var([points[joint][axis] for points in places]) for joint in range(25) for axis in range(3))


def test_of_three_people_the_two_who_move_most_are_kept(write):
    # The numbers differ in their last digits alone, which a float would lose.
    scales = {72057594037931101: 0.1, 72057594037931102: 0.5, 72057594037931103: 0.3}
    frames = [{who: make_points([frame, who], scale) for who, scale in scales.items()} for frame in range(5)]
    bodies = read(write(as_text(frames)))
    ordered = sorted(scales, key=lambda who: -motion([frame[who] for frame in frames]))
    assert ordered == [72057594037931102, 72057594037931103, 72057594037931101]
    for body, who in zip(bodies, ordered[:2], strict=True):
        for frame in range(5):
            np.testing.assert_allclose(body[:, frame].T, frames[frame][who], atol=1e-6)


def test_somebody_who_comes_and_goes_keeps_his_place(write):
    first, second = make_points(1), make_points(2)
    moved = first + np.linspace(0, 1, 25)[:, None]
    frames = [{}, {5: second, 4: first}, {4: moved}, {4: first, 5: second}]
    bodies = read(write(as_text(frames)))
    np.testing.assert_allclose(bodies[0, :, 1:].permute(1, 2, 0), [first, moved, first], atol=1e-6)
    np.testing.assert_allclose(bodies[1, :, [1, 3]].permute(1, 2, 0), [second, second], atol=1e-6)
    assert (bodies[:, :, 0] == 0).all()
    assert (bodies[1, :, 2] == 0).all()


def test_what_is_not_finite_becomes_zero(write):
    points = make_points(0)
    points[3, 1], points[4, 0] = np.nan, np.inf
    bodies = read(write(as_text([{1: points}, {1: make_points(1)}])))
    assert bodies.isfinite().all()
    assert bodies[0, 1, 0, 3] == bodies[0, 0, 0, 4] == 0
    np.testing.assert_allclose(bodies[0, :, 0, 5], points[5], atol=1e-6)


def test_the_stream_is_around_the_first_persons_spine(write):
    one, other = make_points(1), make_points(2)
    still = {9: other}
    frames = [{8: one} | still, {8: one + 0.5} | still, still, {8: one}]
    path = write(as_text(frames))
    bodies = read(path)
    expected = torch.zeros(2, 3, 4, 25)
    for frame, leader in enumerate([one, one + 0.5, other, one]):
        for body in range(2):
            if (bodies[body, :, frame] != 0).any():
                expected[body, :, frame] = bodies[body, :, frame] - torch.tensor(leader[1]).unsqueeze(1)
    torch.testing.assert_close(skeleton_stream(path, num_frames=4).movedim(3, 0), expected, atol=1e-6, rtol=1e-5)
    assert (expected[0, :, 2] == 0).all()
    assert (expected[1, :, 3] == 0).all()


def test_the_stream_has_the_frames_of_the_window(write):
    path = write(as_text([{1: make_points(frame), 2: make_points(frame + 9)} for frame in range(9)]))
    whole = skeleton_stream(path, num_frames=9)
    part = skeleton_stream(path, num_frames=6, window=(0.25, 0.75))
    assert skeleton_stream(path).shape == (3, 32, 25, 2)
    expected = windowed(whole.unsqueeze(0), torch.tensor([[0.25, 0.75]]), 6)[0]
    torch.testing.assert_close(part, expected)
    assert (part[:, :, 1, 0].abs() < 1e-6).all()
    assert (part[:, :, :, 1].abs() > 0).all()


TEXT = as_text([{1: make_points(0)}, {1: make_points(1)}])
LINES = TEXT.splitlines()


@pytest.mark.parametrize("kept", range(len(LINES)))
def test_a_file_cut_between_lines_is_refused(write, kept):
    with pytest.raises(InputError, match=rf"\.skeleton, line {max(kept, 1)}: the file ends where .* must follow"):
        read_skeleton(write("\n".join(LINES[:kept])))


def test_a_file_cut_within_a_line_is_refused(write):
    with pytest.raises(InputError, match="line 17: a joint must be 12 numbers, but here are 11"):
        read_skeleton(write("\n".join([*LINES[:16], LINES[16].rsplit(" ", 1)[0]])))


WRONG = {
    "no frames": (1, "0", "the number of frames is 0, but must be a whole number, 1 to"),
    "a fraction of frames": (1, "2.0", "the number of frames is 2.0"),
    "words": (1, "two", "the number of frames is two, but must be a whole number"),
    "too many bodies": (2, "7", "the number of bodies is 7, but must be a whole number, 0 to 6"),
    "bodies below 0": (2, "-1", "the number of bodies is -1"),
    "a short body": (3, "1 0 1 1 1 1 0 0.02 0.05", "a body must be 10 numbers, but here are 9"),
    "other joints": (4, "20", "the number of joints is 20, but must be 25"),
    "a joint's word": (9, "0.1 0.2 x 0 0 0 0 0 0 0 0 2", "a joint must be 12 numbers, but could not convert .* 'x'"),
    "a long joint": (9, "0 " * 13, "a joint must be 12 numbers, but here are 13"),
    "an empty line": (9, "", "a joint must be 12 numbers, but here are 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_line_is_refused(write, case):
    number, line, message = WRONG[case]
    lines = [*LINES[: number - 1], line, *LINES[number:]]
    with pytest.raises(InputError, match=f"{NAME}.skeleton, line {number}: {message}"):
        read_skeleton(write("\n".join(lines)))


def test_what_follows_the_last_frame_is_refused(write):
    assert read_skeleton(write(TEXT + "\n\n")).shape == (3, 2, 25, 2)
    with pytest.raises(InputError, match=f"line {len(LINES) + 1}: something follows the last frame"):
        read_skeleton(write(TEXT + "1\n"))


def test_a_file_that_shows_nobody_is_refused(write):
    with pytest.raises(InputError, match=r"shows nobody in any of its 3 frames.*missing_skeletons\.txt"):
        read_skeleton(write("3\n0\n0\n0\n"))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_skeleton(tmp_path / "none.skeleton")
    (tmp_path / "bytes.skeleton").write_bytes(bytes([1, 255, 3]))
    with pytest.raises(InputError, match="cannot be read"):
        read_skeleton(tmp_path / "bytes.skeleton")


def test_names_are_parsed():
    assert parse_name(NAME, "here") == (1, 2, 3, 2, 13)
    assert parse_name("S017C003P040R002A060", "here") == (17, 3, 40, 2, 60)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("S001C002P003R002", "here: 'S001C002P003R002' is no name of a clip"),
        ("S001C002P003R002A013_rgb", "is no name of a clip"),
        ("s001c002p003r002a013", "is no name of a clip"),
        ("S018C001P001R001A001", "has setup 18, but in NTU RGB.D 60 it is 1 to 17"),
        ("S001C004P001R001A001", "has camera 4"),
        ("S001C001P041R001A001", "has person 41"),
        ("S001C001P001R003A001", "has repetition 3"),
        ("S001C001P001R001A061", "has action 61"),
        ("S001C001P001R001A000", "has action 0"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        parse_name(name, "here")


NAMES = ["S001C001P001R001A001", "S001C002P003R002A013", "S002C003P002R001A060"]
HEADING = "302 of the captured samples have missing skeletons.\nPlease ignore these files.\n\n"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "ntu" / "nturgb+d_skeletons"
    folder.mkdir(parents=True)
    for name in reversed(NAMES):
        (folder / f"{name}.skeleton").write_text("not read when listed")
    return tmp_path / "ntu"


def test_clips_are_listed_with_what_their_names_say(root):
    clips = list_ntu_rgbd(root)
    assert [clip.skeleton.stem for clip in clips] == NAMES
    assert [clip.video for clip in clips] == [None] * 3
    last = clips[-1]
    assert (last.setup, last.camera, last.subject, last.repetition, last.action) == (2, 3, 2, 1, 60)
    assert last.label == 59
    assert last.skeleton.is_file()


def test_missing_skeletons_are_left_out(root, tmp_path):
    missing = tmp_path / "missing.txt"
    missing.write_text(f"{HEADING}{NAMES[1]}\nS017C003P020R001A059\n")
    assert [clip.skeleton.stem for clip in list_ntu_rgbd(root, missing=missing)] == [NAMES[0], NAMES[2]]
    missing.write_text(f"{HEADING}{NAMES[1]}\nS017C003P020R001\n")
    with pytest.raises(InputError, match=r"missing\.txt, line 5: 'S017C003P020R001' is no name of a clip"):
        list_ntu_rgbd(root, missing=missing)
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        list_ntu_rgbd(root, missing=tmp_path / "none.txt")


def test_videos_and_folders_of_frames_are_found(root):
    videos = root / "nturgb+d_rgb"
    (videos / f"{NAMES[0]}_rgb").mkdir(parents=True)
    (videos / f"{NAMES[1]}_rgb.avi").touch()
    (videos / f"{NAMES[2]}.avi").touch()
    found = [clip.video.name for clip in list_ntu_rgbd(root)]
    assert found == [f"{NAMES[0]}_rgb", f"{NAMES[1]}_rgb.avi", f"{NAMES[2]}.avi"]
    (videos / f"{NAMES[2]}.avi").unlink()
    with pytest.raises(InputError, match=f"has no video of 1 clips, first {NAMES[2]}"):
        list_ntu_rgbd(root)


def test_folders_of_another_kind_are_refused(root, tmp_path):
    with pytest.raises(InputError, match=r"holds no \.skeleton files"):
        list_ntu_rgbd(tmp_path)
    (root / "nturgb+d_skeletons" / "copy.skeleton").touch()
    with pytest.raises(InputError, match=r"copy\.skeleton: 'copy' is no name of a clip"):
        list_ntu_rgbd(root)


def make_clips(tmp_path):
    return tuple(
        NtuClip(1, camera, subject, 1, 5, tmp_path / f"{camera}-{subject}")
        for camera in (1, 2, 3)
        for subject in range(1, 41)
    )


def test_cross_subject(tmp_path):
    clips = make_clips(tmp_path)
    train, val, test = divide_ntu_rgbd(clips, "cross-subject")
    assert {clip.subject for clip in test} == set(range(1, 41)) - set(TRAIN_SUBJECTS)
    assert {clip.subject for clip in val} == {2, 5, 9, 14}
    assert {clip.subject for clip in train} == set(TRAIN_SUBJECTS) - set(VAL_SUBJECTS)
    assert [len(part) for part in (train, val, test)] == [16 * 3, 4 * 3, 20 * 3]
    assert {clip.camera for clip in test} == {1, 2, 3}
    assert sorted([*train, *val, *test], key=clips.index) == list(clips)


def test_cross_view(tmp_path):
    train, val, test = divide_ntu_rgbd(make_clips(tmp_path), "cross-view", val_subjects=(7,))
    assert {clip.camera for clip in test} == {1}
    assert {clip.camera for clip in train} == {clip.camera for clip in val} == {2, 3}
    assert {clip.subject for clip in val} == {7}
    assert [len(part) for part in (train, val, test)] == [39 * 2, 2, 40]


def test_other_benchmarks_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown benchmark 'xsub'"):
        divide_ntu_rgbd(make_clips(tmp_path), "xsub")
