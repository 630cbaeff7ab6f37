"""A file or folder of clips -> the streams that a network takes, in three splits, and measured."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from heedful.data.clip_windows import middle_windows
from heedful.data.clips import Clips, by_subject, moments
from heedful.data.ntu_clips import NtuClips, read_ntu_clips
from heedful.data.ntu_rgbd import divide_ntu_rgbd
from heedful.data.utd_mhad import TEST_SUBJECTS, read_utd_mhad
from heedful.errors import InputError, unknown

ClipSplit = Clips | NtuClips

NUM_FRAMES = {"skeleton": 32, "inertial": 128, "depth": 12, "video": 8}
"""Of what a network sees: skeletons as in HCN, video as in the code of MMTM's authors, depth as UTD-MHAD's file has."""
NUM_MEASURED = 256
"""Training clips, drawn at random, of which mean and deviation are taken where clips are files."""


@dataclass(frozen=True, eq=False)
class ClipData:
    """Clips in three splits, not normalised: `clip_batches` does that.

    Args:
        name: of the data set.
        classes: class names; a label is a place in this tuple.
        train: the clips to learn from.
        val: the clips to choose the best epoch by.
        test: the clips to report on, of other people than the others; of "cross-view" from another camera instead.
        shapes: stream -> shape of a clip as a network gets it: channels, frames, ...
        mean: stream -> of each channel, over training clips.
        deviation: likewise; at least 1e-6.
        fingerprint: hex digest of what decides the data.
    """

    name: str
    classes: tuple[str, ...]
    train: ClipSplit
    val: ClipSplit
    test: ClipSplit
    shapes: Mapping[str, tuple[int, ...]]
    mean: Mapping[str, tuple[float, ...]]
    deviation: Mapping[str, tuple[float, ...]]
    fingerprint: str

    @property
    def counts(self) -> dict[str, int]:
        """Number of clips in each split."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}


def load_clips(
    source: str | Path, *, streams: Collection[str], seed: int, split: str | None = None, val_fraction: float = 0.1
) -> ClipData:
    """Return clips, divided and measured: `divide_clips(read_clips(source, streams), ...)`."""
    return divide_clips(read_clips(source, streams), seed=seed, split=split, val_fraction=val_fraction)


def read_clips(source: str | Path, streams: Collection[str]) -> ClipSplit:
    """Return all clips of a source before they are divided, so that several seeds can share them.

    Args:
        source: the .npz file of UTD-MHAD (see `read_utd_mhad`), which is held in memory; or the folder of NTU RGB+D 60
            (see `list_ntu_rgbd`), of which only names are read.
        streams: "skeleton", "inertial" and "depth" of UTD-MHAD, "skeleton" and "video" of NTU RGB+D.

    Raises:
        InputError: if there is no such source or stream, or a file is not as described.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return read_ntu_clips(path, tuple(streams))
    if path.suffix.lower() != ".npz" or not path.is_file():
        raise InputError(
            f"{source} is no clips that are known here: give the .npz file of UTD-MHAD, or the folder of NTU RGB+D 60, "
            "with nturgb+d_skeletons/ in it"
        )
    # More frames than a network sees: parts of a clip are cut out of them.
    return read_utd_mhad(path, streams=streams, skeleton_frames=128, inertial_frames=256)


def divide_clips(clips: ClipSplit, *, seed: int, split: str | None = None, val_fraction: float = 0.1) -> ClipData:
    """Return the clips in three splits.

    UTD-MHAD: subjects 2, 4, 6 and 8 are for testing; a part of each class's clips of the others, which the seed draws,
    is for validation: with four people to learn from, to leave one of them out for it costs accuracy.
    NTU RGB+D: the two splits of its paper, with the people for validation that MMTM's code takes.

    Args:
        clips: as `read_clips` returns them.
        seed: at least 0.
        split: "cross-subject", the default, or for NTU RGB+D "cross-view".
        val_fraction: of UTD-MHAD, in (0, 1).

    Raises:
        InputError: if `split` is unknown, a number is out of range, or a split would be empty.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}, but it must be a whole number in [0, 2^63)")
    train, val, test = _divided(clips, seed, split or "cross-subject", val_fraction)
    for name, part in (("train", train), ("val", val), ("test", test)):
        if not len(part):
            raise InputError(f"{clips.name}: of {len(clips)} clips none is in split {name!r}: add clips of more people")
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    chosen = chosen if isinstance(train, Clips) else chosen[:NUM_MEASURED]
    seen = train.cut(chosen, middle_windows(len(chosen)), NUM_FRAMES)
    mean, deviation = moments(seen)
    return ClipData(
        name=clips.name,
        classes=clips.classes,
        train=train,
        val=val,
        test=test,
        shapes={name: tuple(values.shape[1:]) for name, values in seen.items()},
        mean=mean,
        deviation=deviation,
        fingerprint=clips.fingerprint,
    )


def part_to_test(clips: ClipSplit, split: str | None = None) -> ClipSplit:
    """Return the test split alone, whoever else is among the clips or not; arguments as for `divide_clips`.

    Raises:
        InputError: if no clip is for testing.
    """
    test: ClipSplit
    if isinstance(clips, NtuClips):
        test = replace(clips, clips=divide_ntu_rgbd(clips.clips, split or "cross-subject")[2])
    else:
        test = clips.at(torch.isin(clips.subjects, torch.tensor(TEST_SUBJECTS)).nonzero().flatten())
    if not len(test):
        raise InputError(f"{clips.name}: none of {len(clips)} clips is for testing: add clips of other people")
    return test


def _divided(clips: ClipSplit, seed: int, split: str, val_fraction: float) -> tuple[ClipSplit, ClipSplit, ClipSplit]:
    if isinstance(clips, NtuClips):
        train, val, test = divide_ntu_rgbd(clips.clips, split)
        return replace(clips, clips=train), replace(clips, clips=val), replace(clips, clips=test)
    if split != "cross-subject":
        raise unknown("benchmark", split, ["cross-subject"], where=f"{clips.name}: ")
    return by_subject(clips, test=TEST_SUBJECTS, val_fraction=val_fraction, seed=seed)
