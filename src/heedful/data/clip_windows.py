"""Clips in time: the part of a clip that a network sees, and any number of frames made of it.

Li et al., "Co-occurrence feature learning from skeleton data for action recognition with hierarchical aggregation"
(HCN, 2018), train on a part of the clip, of 0.5 to 1 of its length, at random, test on the middle 0.9 of it, and
interpolate to 32 frames. Vaezi Joze et al., "MMTM" (2020), do the same by the code of Pérez-Rúa et al., "MFAS" (2019),
that theirs loads: of skeletons it keeps 64 frames at least, and of videos it takes the middle, and 8 frames.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heedful.errors import InputError


def resampled(clip: Float[Tensor, "time *places"], num_frames: int) -> Float[Tensor, "frames *places"]:
    """Return a clip of any length with so many frames, interpolated linearly.

    Frames are intervals: the new ones are read at the middles of as many equal parts of the clip (`align_corners` of
    torch off). Li et al., "Co-occurrence feature learning" (2018), interpolate to 32 frames without saying which; the
    public code for HCN and that for MFAS, on which MMTM's rests, do it so.

    Args:
        clip: time first.
        num_frames: at least 1.

    Raises:
        InputError: if the clip has no frame, or no frame is asked for.
    """
    if not len(clip) or num_frames < 1:
        raise InputError(f"a clip of {len(clip)} frames cannot have {num_frames}: both must be at least 1")
    rows = clip.flatten(1) if clip.ndim > 1 else clip.unsqueeze(1)
    made = F.interpolate(rows.T.unsqueeze(0), size=num_frames, mode="linear", align_corners=False)
    return made[0].T.reshape(num_frames, *clip.shape[1:])


def random_windows(count: int, generator: torch.Generator, *, smallest: float = 0.5) -> Float[Tensor, "count 2"]:
    """Return a part of each clip, at random: where it begins and ends, as fractions of the clip.

    All streams of a clip are to be cut alike, hence fractions and not frames.

    Args:
        count: number of clips.
        generator: decides them; they lie on its device.
        smallest: the part's length is drawn between this and 1, then its place; in (0, 1]. The default is HCN's.

    Raises:
        InputError: if `smallest` is out of range.
    """
    _check_share("smallest", smallest)
    drawn = torch.rand(2, count, generator=generator, device=generator.device)
    length = smallest + (1 - smallest) * drawn[0]
    begin = (1 - length) * drawn[1]
    return torch.stack([begin, begin + length], dim=1)


def middle_windows(count: int, *, length: float = 0.9) -> Float[Tensor, "count 2"]:
    """Return the middle of each clip, as `random_windows` does: for validation and testing.

    Args:
        count: number of clips.
        length: as a fraction of the clip, in (0, 1]; the default is HCN's.

    Raises:
        InputError: if `length` is out of range.
    """
    _check_share("length", length)
    return torch.tensor([0.5 - length / 2, 0.5 + length / 2]).repeat(count, 1)


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise InputError(f"{name} is {value}, but it must be in (0, 1], for example 0.5")


def windowed(
    values: Float[Tensor, "batch channels time *places"], windows: Float[Tensor, "batch 2"], num_frames: int
) -> Float[Tensor, "batch channels frames *places"]:
    """Return a part of each clip with so many frames, interpolated linearly (the whole clip: see `resampled`).

    At the ends of a window the frames beside it still count; papers' code cuts whole frames first.

    Args:
        values: a stream of any kind.
        windows: where each clip's part begins and ends, as fractions of the clip.
        num_frames: at least 1.

    Raises:
        InputError: if no frame is asked for.
    """
    if num_frames < 1:
        raise InputError(f"num_frames is {num_frames}, but it must be at least 1")
    last = values.shape[2] - 1
    begin, end = (windows[:, :1] * (last + 1), windows[:, 1:] * (last + 1))
    middles = (torch.arange(num_frames, device=values.device) + 0.5) / num_frames
    moments = (begin + (end - begin) * middles - 0.5).clamp(0, last)
    before = moments.floor().long()
    clips = torch.arange(len(values), device=values.device).unsqueeze(1)
    frames = values.movedim(2, 1)
    nearness = (moments - before).view(*moments.shape, *(1 for _ in frames.shape[2:])).to(values.dtype)
    return torch.lerp(frames[clips, before], frames[clips, (before + 1).clamp(max=last)], nearness).movedim(1, 2)
