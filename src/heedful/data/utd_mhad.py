"""UTD-MHAD (Chen, Jafari and Kehtarnavaz, 2015) from one .npz file → clips of three streams.

Eight people do 27 actions, up to four times each: 861 clips. A Kinect gives 20 joints 30 times a second and depth
images, a sensor on the wrist or the thigh gives acceleration and rotation 50 times a second. The usual protocol trains
on the subjects 1, 3, 5, 7 and tests on 2, 4, 6, 8.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heedful.data.clip_windows import resampled
from heedful.data.clips import Clips
from heedful.data.skeletons import origin
from heedful.errors import InputError, unknown

TEST_SUBJECTS = (2, 4, 6, 8)
CENTRE = "hip_center"

Arrays = dict[str, np.ndarray]


def read_utd_mhad(
    path: Path,
    *,
    streams: Collection[str] = ("skeleton", "inertial", "depth"),
    skeleton_frames: int = 32,
    inertial_frames: int = 128,
    every_frame: bool = True,
) -> Clips:
    """Return the clips of the file, as float32, not yet normalised.

    The streams: "skeleton" (N, 3, time, 20), metres from the centre of the hips; "inertial" (N, 6, time), acceleration
    in g and rotation in degrees a second, x, y, z each; "depth" (N, 1, 12, 60, 80), 0 for the background, else 1
    and more, the distance in steps of 16 mm. Those left out are not read.

    Args:
        path: holds, for N clips, `action` and `subject` (N,), from 1; `actions`, the 27 names; `joints`, the 20 names;
            `skeleton_q` int16 (all frames, 20, 3) with metres = (skeleton_q + [0, 0, 28000]) / 10000 and
            `skeleton_length` (N,), the frames of each clip, one after another; `inertial` (all times, 6) and
            `inertial_length`, likewise; `depth` uint8 (N, 12, 60, 80).
        streams: which to read.
        skeleton_frames: what each clip's 41 to 125 frames are resampled to.
        inertial_frames: what each clip's 107 to 326 times are resampled to.
        every_frame: the hips are the origin in every frame; else their place in the clip's first frame is.

    Raises:
        InputError: if a stream is unknown, or an array is missing or not as described.
    """
    readers: dict[str, Callable[[Arrays], Tensor]] = {
        "skeleton": lambda arrays: _skeleton(path, arrays, skeleton_frames, every_frame=every_frame),
        "inertial": lambda arrays: _inertial(path, arrays, inertial_frames),
        "depth": _depth,
    }
    for name in streams:
        if name not in readers:
            raise unknown("stream", name, readers, where=f"{path}: ")
    arrays = _arrays(path, streams)
    classes = tuple(map(str, arrays["actions"]))
    with path.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    return Clips(
        name=path.stem,
        streams={name: readers[name](arrays) for name in streams},
        labels=torch.from_numpy(arrays["action"].astype(np.int64) - 1),
        subjects=torch.from_numpy(arrays["subject"].astype(np.int64)),
        classes=classes,
        fingerprint=fingerprint,
        partners=_partners(list(map(str, arrays["joints"]))) if "skeleton" in streams else (),
    )


def _partners(joints: list[str]) -> tuple[int, ...]:
    """Return of each joint the number of that on the other side, by their names: left_hand and right_hand."""
    sides = {"left": "right", "right": "left"}
    others = ["_".join([sides.get(word, word) for word in joint.split("_")]) for joint in joints]
    return tuple(joints.index(other) if other in joints else number for number, other in enumerate(others))


NEEDS = {
    "skeleton": ("skeleton_q", "skeleton_length", "joints"),
    "inertial": ("inertial", "inertial_length"),
    "depth": ("depth",),
}


KINDS = {
    "action": ("iu", 1), "subject": ("iu", 1), "actions": ("U", 1), "joints": ("U", 1), "skeleton_q": ("iuf", 3),
    "skeleton_length": ("iu", 1), "inertial": ("iuf", 2), "inertial_length": ("iu", 1), "depth": ("u", 4),
}  # fmt: skip
"""Array -> the letters of numpy that its type may have, and its number of dimensions."""
WORDS = {"iu": "whole numbers", "u": "whole numbers from 0 on", "iuf": "numbers", "U": "text"}


def _arrays(path: Path, streams: Collection[str]) -> Arrays:
    """Return the arrays that the streams need, by name."""
    needed = ["action", "subject", "actions", *(name for stream in streams for name in NEEDS[stream])]
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in needed if name not in archive]
            if missing:
                raise InputError(f"{path} has no array {missing[0]!r}: it has {', '.join(archive.files)}")
            return {name: _checked(path, name, archive[name]) for name in needed}
    except InputError:
        raise
    except (AttributeError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not an .npz file that numpy can read ({error}): make it again") from error


def _checked(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Return an array that is what it must be; else an InputError says what it is."""
    letters, num_dimensions = KINDS[name]
    if values.dtype.kind not in letters or values.ndim != num_dimensions:
        raise InputError(
            f"{path}: {name} is {values.dtype} of shape {values.shape}, but must be {WORDS[letters]} in "
            f"{num_dimensions} dimensions"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path}: {name} has values that are not finite: mend them, or leave their clips out")
    return values


def _skeleton(path: Path, arrays: Arrays, num_frames: int, *, every_frame: bool) -> Tensor:
    joints = list(map(str, arrays["joints"]))
    if CENTRE not in joints:
        raise InputError(f"{path}: joints are {', '.join(joints)}, but {CENTRE!r}, the origin, must be one of them")
    # The hips become the origin, so the shift of z has no effect.
    metres = arrays["skeleton_q"] / 10000
    clips = _clips(path, arrays, "skeleton_length", metres, (len(joints), 3))
    places = torch.stack([resampled(clip, num_frames) for clip in clips]).permute(0, 3, 1, 2)
    return (places - origin(places, joints.index(CENTRE), every_frame=every_frame)).contiguous()


def _inertial(path: Path, arrays: Arrays, num_frames: int) -> Tensor:
    clips = _clips(path, arrays, "inertial_length", arrays["inertial"], (6,))
    return torch.stack([resampled(clip, num_frames) for clip in clips]).transpose(1, 2).contiguous()


def _depth(arrays: Arrays) -> Tensor:
    return torch.from_numpy(arrays["depth"]).unsqueeze(1).float()


def _clips(path: Path, arrays: Arrays, name: str, values: np.ndarray, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return the clips that lie in an array one after another."""
    lengths = arrays[name]
    if values.shape[1:] != shape:
        raise InputError(f"{path}: a frame beside {name} has shape {values.shape[1:]}, but must have {shape}")
    if lengths.min(initial=1) < 1 or lengths.sum() != len(values):
        raise InputError(
            f"{path}: {name} adds up to {lengths.sum()}, but there are {len(values)} frames, and each clip must "
            "have one or more"
        )
    return torch.split(torch.from_numpy(values).float(), lengths.tolist())
