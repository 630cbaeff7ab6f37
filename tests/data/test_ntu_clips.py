"""NTU RGB+D as clips: what is read for a batch, frames of videos, and what is missing."""

import numpy as np
import pytest
import torch
from PIL import Image

from heedful.data.ntu_clips import ACTIONS, PARTNERS, read_ntu_clips, video_stream
from heedful.data.ntu_rgbd import skeleton_stream
from heedful.errors import InputError
from tests.data.clips_made import write_ntu_rgbd

NAMES = ["S001C001P001R001A001", "S001C001P001R001A050", "S001C001P002R001A060"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_ntu_rgbd(tmp_path_factory.mktemp("ntu"), NAMES, video=True)


def test_clips_are_cut_from_their_files(root):
    clips = read_ntu_clips(root, ("video", "skeleton"))
    windows = torch.tensor([[0.5, 1.0], [0.0, 0.25]])
    made = clips.cut(torch.tensor([2, 0]), windows, {"skeleton": 6, "video": 2})
    assert list(made) == ["video", "skeleton"]
    for row, (name, window) in enumerate(zip([NAMES[2], NAMES[0]], windows.tolist(), strict=True)):
        skeleton = skeleton_stream(root / "nturgb+d_skeletons" / f"{name}.skeleton", 6, tuple(window))
        assert torch.equal(made["skeleton"][row], skeleton)
        assert torch.equal(made["video"][row], video_stream(root / "nturgb+d_rgb" / f"{name}_rgb", 2, tuple(window)))
    assert len(clips) == 3
    assert clips.labels.tolist() == [0, 49, 59]


@pytest.mark.parametrize(
    ("num_frames", "window", "expected"),
    [(4, (0.0, 1.0), [2, 7, 12, 17]), (2, (0.5, 1.0), [12, 17]), (1, (0.0, 1.0), [10]), (3, (0.95, 1.0), [19] * 3)],
)
def test_frames_are_those_at_the_middles_of_equal_parts(root, num_frames, window, expected):
    made = video_stream(root / "nturgb+d_rgb" / f"{NAMES[0]}_rgb", num_frames, window, size=8)
    assert made.shape == (3, num_frames, 8, 8)
    for frame, number in enumerate(expected):
        torch.testing.assert_close(made[:, frame], torch.full((3, 8, 8), 8 * number / 255))


def test_with_video_the_fingerprint_says_which_frames_there_are(tmp_path):
    root = write_ntu_rgbd(tmp_path / "ntu", NAMES[:2], frames=3, video=True)

    def fingerprints():
        return [read_ntu_clips(root, streams).fingerprint for streams in (("skeleton",), ("skeleton", "video"))]

    skeletons, both = fingerprints()
    assert skeletons != both
    assert fingerprints() == [skeletons, both]
    (root / "nturgb+d_rgb" / f"{NAMES[1]}_rgb" / "3.png").unlink()
    without_one = fingerprints()
    assert without_one[0] == skeletons
    assert without_one[1] not in (skeletons, both)


def test_of_a_frame_the_middle_square_is_taken(tmp_path):
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 4:12] = (0, 128, 255)
    Image.fromarray(pixels).save(tmp_path / "0001.png")
    made = video_stream(tmp_path, 1, size=8)
    torch.testing.assert_close(made[:, 0], torch.tensor([0, 128, 255]).view(3, 1, 1).expand(3, 8, 8) / 255)


def test_videos_whose_frames_are_missing_say_what_to_do(tmp_path, root):
    without = write_ntu_rgbd(tmp_path / "ntu", NAMES[:1], frames=2)
    with pytest.raises(InputError, match=r"stream 'video': .* has no folder nturgb"):
        read_ntu_clips(without, ("video",))
    video = without / "nturgb+d_rgb" / f"{NAMES[0]}_rgb.avi"
    video.parent.mkdir()
    video.touch()
    with pytest.raises(
        InputError, match=f"{NAMES[0]}_rgb.avi: videos are not decoded here; .* by: mkdir .*; ffmpeg -i"
    ):
        read_ntu_clips(without, ("skeleton", "video"))
    assert len(read_ntu_clips(without, ("skeleton",))) == 1
    video.with_suffix("").mkdir()
    clips = read_ntu_clips(without, ("video",))
    assert clips.clips[0].video == video.with_suffix("")
    with pytest.raises(InputError, match="holds no image, but must hold the frames of a video"):
        clips.cut(torch.tensor([0]), torch.tensor([[0.0, 1.0]]), {"video": 2})
    (video.with_suffix("") / "0001.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0001\.jpg cannot be read .*: extract it again"):
        clips.cut(torch.tensor([0]), torch.tensor([[0.0, 1.0]]), {"video": 2})


def test_sixty_actions_and_partners_on_the_other_side():
    assert len(set(ACTIONS)) == 60
    assert [PARTNERS[PARTNERS[joint]] for joint in range(25)] == list(range(25))
    assert [joint for joint in range(25) if PARTNERS[joint] == joint] == [0, 1, 2, 3, 20]
