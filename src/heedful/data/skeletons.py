"""Skeletons, places of joints in time: where they stand, how large they are, how they are turned and mirrored.

They lie as HCN takes them: (clips, x y z, time, joints), and where a clip shows several persons, they come last.

Vaezi Joze et al., "MMTM" (2020), by the code of Pérez-Rúa et al., "MFAS" (2019), that theirs loads, take joint 2 of 25,
the middle of the spine, of the first person as the origin of every frame; they neither scale nor turn. Shahroudy et
al., "NTU RGB+D" (2016), divide by the distance between two joints of the spine. Random turns are from later work; 0.3
radians, 17 degrees, is a usual bound there. How clips are cut in time: `heedful.data.clip_windows`.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from heedful.errors import InputError


def origin(
    skeletons: Float[Tensor, "batch 3 time joints *persons"], joint: int, *, every_frame: bool = True
) -> Float[Tensor, "batch 3 frames 1 *persons"]:
    """Return where a joint is; it lies at (0, 0, 0) once this is subtracted from the skeletons.

    Args:
        skeletons: coordinates x, y and z.
        joint: its number, from 0.
        every_frame: follow the joint, as MMTM's code does, so that walking leaves no trace; else its place in the
            first frame.

    Raises:
        InputError: if there is no such joint.
    """
    _check_joints(skeletons, joint)
    frames = slice(None) if every_frame else slice(0, 1)
    return skeletons[:, :, frames, joint : joint + 1]


def bone_length(
    skeletons: Float[Tensor, "batch 3 time joints *persons"], first: int, second: int
) -> Float[Tensor, "batch 1 1 1 *persons"]:
    """Return the distance between two joints, its mean over time: dividing by it makes all people equally large.

    Args:
        skeletons: coordinates x, y and z.
        first: a joint's number, from 0.
        second: another's.

    Raises:
        InputError: if there is no such joint.
    """
    _check_joints(skeletons, first, second)
    bone = skeletons[:, :, :, first] - skeletons[:, :, :, second]
    lengths = torch.linalg.vector_norm(bone, dim=1, keepdim=True)
    return lengths.mean(dim=2, keepdim=True).unsqueeze(3)


def _check_joints(skeletons: Tensor, *joints: int) -> None:
    for joint in joints:
        if not 0 <= joint < skeletons.shape[3]:
            raise InputError(
                f"joint is {joint}, but with {skeletons.shape[3]} joints the last is number "
                f"{skeletons.shape[3] - 1}, the first 0"
            )


def random_turns(count: int, generator: torch.Generator, *, largest: float = 0.3) -> Float[Tensor, "count 3"]:
    """Return angles about x, y and z for each clip, at random, each between -largest and largest.

    Args:
        count: number of clips.
        generator: decides them; they lie on its device.
        largest: in radians, 0 to π.

    Raises:
        InputError: if `largest` is out of range.
    """
    if not 0 <= largest <= math.pi:
        raise InputError(f"largest is {largest}, but it must be an angle in [0, π], in radians, for example 0.3")
    return largest * (2 * torch.rand(count, 3, generator=generator, device=generator.device) - 1)


def turned(
    skeletons: Float[Tensor, "batch 3 time joints *persons"], angles: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch 3 time joints *persons"]:
    """Return the skeletons, each clip turned about the origin as a whole, all its persons alike.

    Args:
        skeletons: coordinates x, y and z, in one unit: turn before the coordinates are normalised one by one.
        angles: see `rotations`.
    """
    return torch.einsum("bij,bj...->bi...", rotations(angles).to(skeletons.dtype), skeletons)


def mirrored(
    skeletons: Float[Tensor, "batch 3 time joints *persons"], partners: Sequence[int]
) -> Float[Tensor, "batch 3 time joints *persons"]:
    """Return the skeletons as a mirror shows them: x turned round, and left and right joints exchanged.

    Args:
        skeletons: coordinates x, y and z, x to the side, from an origin in the middle of the body.
        partners: of each joint the number of that on the other side; its own in the middle.

    Raises:
        InputError: if there are not as many partners as joints, or two joints have one partner.
    """
    if sorted(partners) != list(range(skeletons.shape[3])):
        raise InputError(
            f"partners is {list(partners)}, but each of the {skeletons.shape[3]} joints, from 0, must be there once"
        )
    sides = torch.tensor([-1.0, 1.0, 1.0], dtype=skeletons.dtype, device=skeletons.device)
    chosen = torch.tensor(list(partners), device=skeletons.device)
    return skeletons.index_select(3, chosen) * sides.view(3, *(1 for _ in skeletons.shape[2:]))


def rotations(angles: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    """Return the matrices that turn about the fixed axes x, then y, then z.

    Args:
        angles: in radians, about x, y and z; from y to z, from z to x, from x to y.
    """
    made = torch.eye(3, dtype=angles.dtype, device=angles.device).expand(len(angles), 3, 3)
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        cosine, sine = angles[:, axis].cos(), angles[:, axis].sin()
        about = torch.eye(3, dtype=angles.dtype, device=angles.device).repeat(len(angles), 1, 1)
        about[:, one, one], about[:, other, other] = cosine, cosine
        about[:, one, other], about[:, other, one] = -sine, sine
        made = about @ made
    return made
