"""NTU RGB+D 60 (Shahroudy et al., 2016) as it is published: 56,880 files of skeletons, and videos, read one at a time.

    nturgb+d_skeletons/S001C001P001R001A001.skeleton ...
    nturgb+d_rgb/S001C001P001R001A001_rgb.avi ...    or a folder of frames, S001C001P001R001A001_rgb/

A name says setup (1 to 17), camera (1 to 3), person (1 to 40), repetition (1, 2) and action (1 to 60).
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from heedful.data.clip_windows import windowed
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.data.skeletons import origin
from heedful.errors import InputError, unknown

SKELETONS, VIDEOS = "nturgb+d_skeletons", "nturgb+d_rgb"
NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
LARGEST = {"setup": 17, "camera": 3, "person": 40, "repetition": 2, "action": 60}

TRAIN_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
"""Section 3.2.1 of the paper, cross-subject: 40,320 clips; the other 20 people, 16,560 clips, are for testing."""
TRAIN_CAMERAS = (2, 3)
"""Section 3.2.2, cross-view: 37,920 clips; camera 1, 18,960 clips, is for testing."""
VAL_SUBJECTS = (2, 5, 9, 14)
"""Of the people to train on, those that the code of MFAS (2019), and with it MMTM's, validates on."""

NUM_BODIES, NUM_JOINTS = 2, 25
MIDDLE_OF_SPINE = 1


@dataclass(frozen=True)
class NtuClip:
    """One clip: what its name says, from 1, and its files; `video` is an .avi, a folder of frames, or None."""

    setup: int
    camera: int
    subject: int
    repetition: int
    action: int
    skeleton: Path
    video: Path | None = None

    @property
    def label(self) -> int:
        """The class number, from 0."""
        return self.action - 1


def parse_name(name: str, where: str) -> tuple[int, int, int, int, int]:
    """Return setup, camera, person, repetition and action.

    Args:
        name: such as S001C002P003R002A013.
        where: the file, and line, in which it was found, for the message.

    Raises:
        InputError: if it is no such name, or a number is not in NTU RGB+D 60.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise InputError(f"{where}: {name!r} is no name of a clip, as S001C002P003R002A013: rename it, or take it out")
    setup, camera, person, repetition, action = map(int, match.groups())
    numbers = (setup, camera, person, repetition, action)
    for (kind, largest), number in zip(LARGEST.items(), numbers, strict=True):
        if not 1 <= number <= largest:
            raise InputError(
                f"{where}: {name!r} has {kind} {number}, but in NTU RGB+D 60 it is 1 to {largest}: take it out "
                "(clips of NTU RGB+D 120 belong in a folder of their own)"
            )
    return setup, camera, person, repetition, action


def list_ntu_rgbd(root: Path, *, missing: Path | None = None) -> tuple[NtuClip, ...]:
    """Return the clips, sorted by name; no file of theirs is read.

    Args:
        root: holds nturgb+d_skeletons/ and perhaps nturgb+d_rgb/.
        missing: the authors' NTU_RGBD_samples_with_missing_skeletons.txt, with the names of 302 clips to leave out in
            training and testing; None: all are listed.

    Raises:
        InputError: if there are no skeletons, a name is not as described, or the videos are there but not of each clip.
    """
    left_out = frozenset(_listed(missing)) if missing else frozenset()
    files = sorted((root / SKELETONS).glob("*.skeleton"))
    if not files:
        raise InputError(
            f"{root / SKELETONS} holds no .skeleton files: unpack nturgbd_skeletons_s001_to_s017.zip there"
        )
    videos = _videos(root / VIDEOS)
    numbers = {path: parse_name(path.stem, str(path)) for path in files if path.stem not in left_out}
    unseen = [path.stem for path in numbers if videos and path.stem not in videos]
    if unseen:
        raise InputError(
            f"{root / VIDEOS} has no video of {len(unseen)} clips, first {unseen[0]}: add them, or take the folder away"
        )
    return tuple(NtuClip(*found, path, videos.get(path.stem)) for path, found in numbers.items())


def _listed(path: Path) -> Iterator[str]:
    """Yield the names in the list of missing skeletons; lines of several words are its heading."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): it must be text, the name of a clip in each line"
        ) from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) == 1:
            parse_name(words[0], f"{path}, line {number}")
            yield words[0]


def _videos(folder: Path) -> dict[str, Path]:
    """Return the videos by the names of their clips, or folders of their frames; none if there is no such folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    # Folders last: of a video that has one, its frames are taken.
    ordered = sorted(found, key=lambda path: (path.suffix != ".avi", path))
    return {path.name.partition(".")[0].removesuffix("_rgb"): path for path in ordered}


def divide_ntu_rgbd(
    clips: Iterable[NtuClip], benchmark: str, *, val_subjects: Collection[int] = VAL_SUBJECTS
) -> tuple[tuple[NtuClip, ...], tuple[NtuClip, ...], tuple[NtuClip, ...]]:
    """Return the clips for training, validation and testing.

    Args:
        clips: in any order, which is kept.
        benchmark: "cross-subject" or "cross-view", the two of the paper, which has no validation split.
        val_subjects: the clips of these people, of those to train on, are for validation.

    Raises:
        InputError: if the benchmark is unknown.
    """
    if benchmark not in ("cross-subject", "cross-view"):
        raise unknown("benchmark", benchmark, ("cross-subject", "cross-view"))
    parts: dict[int, list[NtuClip]] = {TRAIN: [], VAL: [], TEST: []}
    for clip in clips:
        by_subject = benchmark == "cross-subject"
        to_train = clip.subject in TRAIN_SUBJECTS if by_subject else clip.camera in TRAIN_CAMERAS
        to_val = clip.subject in val_subjects
        parts[TEST if not to_train else VAL if to_val else TRAIN].append(clip)
    return tuple(parts[TRAIN]), tuple(parts[VAL]), tuple(parts[TEST])


def skeleton_stream(
    path: Path, num_frames: int = 32, window: tuple[float, float] = (0.0, 1.0)
) -> Float[Tensor, "3 frames 25 2"]:
    """Return the skeletons of a clip, ready for a network: two people, around the first one, in so many frames.

    As in MMTM's code, the middle of the first person's spine is the origin of each frame, for both (the second's where
    the first is not seen). Who is not there stays 0; that code moves such a person to where the camera would be.

    Args:
        path: a .skeleton file.
        num_frames: at least 1.
        window: where the part to take begins and ends, as fractions of the clip (see `random_windows`).

    Raises:
        InputError: if the file is not as published.
    """
    bodies = read_skeleton(path).unsqueeze(0)
    is_there = (bodies != 0).any(dim=1, keepdim=True).any(dim=3, keepdim=True)
    leader = torch.where(is_there[..., :1], bodies[..., :1], bodies[..., 1:])
    centred = torch.where(is_there, bodies - origin(leader, MIDDLE_OF_SPINE), 0.0)
    return windowed(centred, torch.tensor([window]), num_frames)[0]


def read_skeleton(path: Path) -> Float[Tensor, "3 time 25 2"]:
    """Return the two people who move most, the one who moves more first, as the camera saw them.

    How much somebody moves is the variance over time of x, y and z, added up over the joints, as the authors' FAQ has
    it; they fill the place of a second who is not there with zeros. People are told apart by the numbers the Kinect
    gave them: somebody it lost and found again counts as another. Frames without a person are 0, and so is a
    coordinate that is not finite.

    Args:
        path: a .skeleton file: the number of frames; of each, the number of bodies; of each, a line of 10 numbers,
            the number of joints, 25, and a line of 12 numbers for each, the first three x, y and z in metres.

    Raises:
        InputError: if the file is cut, holds something else, or shows nobody.
    """
    bodies, num_frames = _bodies(path)
    if not bodies:
        raise InputError(
            f"{path} shows nobody in any of its {num_frames} frames: give NTU_RGBD_samples_with_missing_skeletons.txt "
            "as the list of missing skeletons, so that it is left out"
        )
    seen = [
        (torch.tensor(list(there)), torch.tensor(list(there.values())).nan_to_num(0, 0, 0)) for there in bodies.values()
    ]
    seen.sort(key=lambda body: -float(body[1].var(dim=0, correction=0).sum()))
    places = torch.zeros(3, num_frames, NUM_JOINTS, NUM_BODIES)
    for number, (frames, points) in enumerate(seen[:NUM_BODIES]):
        places[:, frames, :, number] = points.permute(2, 0, 1)
    return places


Points = list[list[float]]


def _bodies(path: Path) -> tuple[dict[str, dict[int, Points]], int]:
    """Return, for each person's number, frame → places of the joints; and the number of frames."""
    lines = _Lines(path)
    bodies: dict[str, dict[int, Points]] = {}
    num_frames = lines.count("the number of frames", 1, 100_000)
    for frame in range(num_frames):
        for _ in range(lines.count("the number of bodies", 0, 6)):
            who = lines.words("a body", 10)[0]
            lines.count("the number of joints", NUM_JOINTS, NUM_JOINTS)
            points = [lines.numbers("a joint", 12)[:3] for _ in range(NUM_JOINTS)]
            bodies.setdefault(who, {})[frame] = points
    lines.end()
    return bodies, num_frames


class _Lines:
    """The lines of a .skeleton file, one after another; each must hold what comes next."""

    def __init__(self, path: Path) -> None:
        try:
            self.lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}): unpack it again") from error
        self.path, self.number = path, 0

    def words(self, what: str, num_words: int) -> list[str]:
        """Return the next line's words, so many."""
        if self.number == len(self.lines):
            raise self.wrong(f"the file ends where {what} must follow: it was cut", at=max(self.number, 1))
        self.number += 1
        words = self.lines[self.number - 1].split()
        if len(words) != num_words:
            needed = f"{num_words} numbers" if num_words > 1 else "one number"
            raise self.wrong(f"{what} must be {needed}, but here are {len(words)}")
        return words

    def numbers(self, what: str, num_words: int) -> list[float]:
        """Return the next line's numbers, so many."""
        words = self.words(what, num_words)
        try:
            return list(map(float, words))
        except ValueError as error:
            raise self.wrong(f"{what} must be {num_words} numbers, but {error}") from None

    def count(self, what: str, least: int, most: int) -> int:
        """Return the whole number in the next line."""
        (word,) = self.words(what, 1)
        allowed = f"{least}" if least == most else f"a whole number, {least} to {most}"
        if not word.isdecimal() or not least <= int(word) <= most:
            raise self.wrong(f"{what} is {word}, but must be {allowed}")
        return int(word)

    def end(self) -> None:
        """Raise an InputError if something follows."""
        if any(line.strip() for line in self.lines[self.number :]):
            raise self.wrong("something follows the last frame", at=self.number + 1)

    def wrong(self, message: str, *, at: int | None = None) -> InputError:
        return InputError(f"{self.path}, line {at or self.number}: {message}; unpack the file again")
