"""NTU RGB+D 60 as clips for a network: skeletons and the frames of videos, read when a batch needs them."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heedful.data.images import SUFFIXES, read_square, to_channels_first
from heedful.data.ntu_rgbd import NtuClip, list_ntu_rgbd, skeleton_stream
from heedful.errors import InputError, unknown

MISSING = "NTU_RGBD_samples_with_missing_skeletons.txt"
STREAMS = ("skeleton", "video")
VIDEO_SIZE = 112
"""Pixels, the side that torchvision's video networks were made for."""

PARTNERS = (0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 20, 23, 24, 21, 22)
"""Of each joint that on the other side of the body: arms 4 to 11, legs 12 to 19, tips of hands and thumbs 21 to 24."""

ACTIONS = (
    "drink water", "eat meal", "brush teeth", "brush hair", "drop", "pick up", "throw", "sit down", "stand up",
    "clap", "read", "write", "tear up paper", "put on jacket", "take off jacket", "put on a shoe", "take off a shoe",
    "put on glasses", "take off glasses", "put on a hat", "take off a hat", "cheer up", "wave hand",
    "kick something", "reach into pocket", "hop", "jump up", "phone call", "play with phone", "type on a keyboard",
    "point to something", "take a selfie", "check time", "rub two hands", "nod head", "shake head", "wipe face",
    "salute", "put palms together", "cross hands in front", "sneeze or cough", "stagger", "fall down", "touch head",
    "touch chest", "touch back", "touch neck", "vomit", "fan self", "punch or slap", "kick somebody", "push",
    "pat on back", "point finger at somebody", "hug", "give something", "touch pocket", "shake hands",
    "walk towards", "walk apart",
)  # fmt: skip
"""What happens, A001 to A060; from A050 on between two people."""


@dataclass(frozen=True, eq=False)
class NtuClips:
    """Clips on disk.

    Args:
        clips: their files.
        streams: "skeleton", "video" or both.
        fingerprint: hex digest of the names and sizes of all skeleton files; with video, also of the names of the
            videos and their numbers of frames.
    """

    clips: tuple[NtuClip, ...]
    streams: tuple[str, ...]
    fingerprint: str = ""
    name: str = "ntu_rgbd"
    classes: tuple[str, ...] = ACTIONS
    partners: tuple[int, ...] = PARTNERS

    def __len__(self) -> int:
        return len(self.clips)

    def at(self, chosen: Int64[Tensor, "chosen"]) -> "NtuClips":
        """Return the chosen clips, in that order."""
        return replace(self, clips=tuple(self.clips[number] for number in chosen.tolist()))

    @functools.cached_property
    def labels(self) -> Int64[Tensor, "count"]:
        """Class numbers, from 0, one per clip."""
        return torch.tensor([clip.label for clip in self.clips], dtype=torch.int64)

    def cut(
        self, chosen: Int64[Tensor, "chosen"], windows: Float[Tensor, "chosen 2"], num_frames: Mapping[str, int]
    ) -> dict[str, Float[Tensor, "chosen ..."]]:
        """Return parts of the chosen clips; see `heedful.data.clips.Clips.cut`.

        Raises:
            InputError: if a file of theirs cannot be read.
        """
        clips = [self.clips[number] for number in chosen.tolist()]
        return {
            name: torch.stack([
                _read(clip, name, num_frames[name], (begin, end))
                for clip, (begin, end) in zip(clips, windows.tolist(), strict=True)
            ])
            for name in self.streams
        }  # fmt: skip


def _read(clip: NtuClip, stream: str, num_frames: int, window: tuple[float, float]) -> Tensor:
    if stream == "skeleton":
        return skeleton_stream(clip.skeleton, num_frames, window)
    assert clip.video is not None
    return video_stream(clip.video, num_frames, window)


def read_ntu_clips(root: Path, streams: tuple[str, ...]) -> NtuClips:
    """Return all clips of NTU RGB+D 60, less those in the authors' list of missing skeletons, if `root` holds it.

    Args:
        root: see `list_ntu_rgbd`; the list is called NTU_RGBD_samples_with_missing_skeletons.txt.
        streams: "skeleton", "video" or both.

    Raises:
        InputError: if a stream is unknown, the files are not as published, or the frames of a video are missing.
    """
    for name in streams:
        if name not in STREAMS:
            raise unknown("stream", name, STREAMS, where=f"{root}: ")
    missing = root / MISSING
    clips = list_ntu_rgbd(root, missing=missing if missing.is_file() else None)
    if "video" in streams:
        _check_videos(root, clips)
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{clip.skeleton.name} {clip.skeleton.stat().st_size}\n".encode())
        if "video" in streams and clip.video is not None:
            digest.update(f"{clip.video.name} {len(_frames(clip.video))}\n".encode())
    return NtuClips(clips, streams, digest.hexdigest())


def _check_videos(root: Path, clips: tuple[NtuClip, ...]) -> None:
    for clip in clips:
        if clip.video is None:
            raise InputError(f"stream 'video': {root} has no folder nturgb+d_rgb with the videos, or their frames")
        if not clip.video.is_dir():
            raise InputError(
                f"{clip.video}: videos are not decoded here; extract the frames of each into a folder beside it, for "
                f"example by: mkdir {clip.video.stem}; ffmpeg -i {clip.video.name} {clip.video.stem}/%04d.jpg"
            )


def video_stream(
    folder: Path, num_frames: int = 8, window: tuple[float, float] = (0.0, 1.0), *, size: int = VIDEO_SIZE
) -> Float[Tensor, "3 frames size size"]:
    """Return frames of a video, RGB in [0, 1]: the middle square of each, scaled.

    Args:
        folder: one image for each frame, in the order of their names, of which shorter ones come first.
        num_frames: at least 1: those at the middles of as many equal parts of the window.
        window: where the part to take begins and ends, as fractions of the clip.
        size: of the square, in pixels.

    Raises:
        InputError: if the folder has no image, or one cannot be read.
    """
    files = _frames(folder)
    if not files:
        raise InputError(f"{folder} holds no image, but must hold the frames of a video: extract them again")
    files.sort(key=lambda path: (len(path.name), path.name))
    begin, end = window
    moments = [begin + (end - begin) * (number + 0.5) / num_frames for number in range(num_frames)]
    chosen = [files[min(int(moment * len(files)), len(files) - 1)] for moment in moments]
    frames = to_channels_first(np.stack([_frame(path, size) for path in chosen]))
    return frames.transpose(0, 1).float() / 255


def _frames(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]


def _frame(path: Path, size: int) -> np.ndarray:
    try:
        return read_square(path, size)
    # Pillow's readers raise almost anything on broken bytes.
    except Exception as error:
        raise InputError(f"frame {path} cannot be read ({error}): extract it again") from error
