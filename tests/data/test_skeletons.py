"""Skeletons: origin, size and turning, against loops and scipy's rotations."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from heedful.data.skeletons import bone_length, mirrored, origin, random_turns, rotations, turned
from heedful.errors import InputError


def make_skeletons(num_clips, *persons, num_frames=5):
    return torch.randn(num_clips, 3, num_frames, 4, *persons, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("every_frame", [True, False])
def test_origin_is_subtracted_from_every_joint(every_frame):
    skeletons = make_skeletons(2)
    made = skeletons - origin(skeletons, 1, every_frame=every_frame)
    for clip in range(2):
        for frame in range(5):
            centre = skeletons[clip, :, frame if every_frame else 0, 1]
            for joint in range(4):
                torch.testing.assert_close(made[clip, :, frame, joint], skeletons[clip, :, frame, joint] - centre)


def test_each_person_has_an_origin():
    skeletons = make_skeletons(1, 2)
    for person in range(2):
        alone = skeletons[..., person]
        assert torch.equal(origin(skeletons, 3)[..., person], origin(alone, 3))


def test_walking_is_seen_from_the_first_frame_alone():
    walk = make_skeletons(1, num_frames=1) + torch.arange(5.0).view(1, 1, 5, 1)
    assert (walk - origin(walk, 2)).diff(dim=2).abs().max() < 1e-5
    torch.testing.assert_close((walk - origin(walk, 2, every_frame=False)).diff(dim=2), torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize("persons", [(), (1,), (3,)])
def test_bone_length_is_the_mean_distance(persons):
    skeletons = make_skeletons(2, *persons)
    lengths = bone_length(skeletons, 0, 3)
    assert lengths.shape == (2, 1, 1, 1, *persons)
    one_by_one = skeletons.reshape(2, 3, 5, 4, -1).movedim(-1, 1).flatten(0, 1)
    for number, clip in enumerate(one_by_one.numpy()):
        distances = [math.dist(clip[:, frame, 0], clip[:, frame, 3]) for frame in range(5)]
        assert lengths.flatten()[number].item() == pytest.approx(np.mean(distances), rel=1e-5)


def test_people_of_all_sizes_become_equally_large():
    skeletons = make_skeletons(1)
    giant = 7 * skeletons
    torch.testing.assert_close(giant / bone_length(giant, 1, 2), skeletons / bone_length(skeletons, 1, 2))


@pytest.mark.parametrize("joint", [-1, 4])
def test_unknown_joints_are_refused(joint):
    message = f"joint is {joint}, but with 4 joints the last is number 3"
    with pytest.raises(InputError, match=message):
        origin(make_skeletons(1), joint)
    with pytest.raises(InputError, match=message):
        bone_length(make_skeletons(1), 0, joint)


def test_rotations_are_scipys():
    angles = torch.randn(6, 3, dtype=torch.float64)
    expected = Rotation.from_euler("xyz", angles.numpy()).as_matrix()
    np.testing.assert_allclose(rotations(angles), expected, atol=1e-12)


def test_turned_turns_all_frames_and_persons_of_a_clip_alike():
    skeletons = make_skeletons(3, 2).double()
    angles = torch.randn(3, 3)
    made = turned(skeletons, angles)
    for clip in range(3):
        rotation = Rotation.from_euler("xyz", angles[clip].numpy())
        for person in range(2):
            for frame in range(5):
                expected = rotation.apply(skeletons[clip, :, frame, :, person].T.numpy()).T
                np.testing.assert_allclose(made[clip, :, frame, :, person], expected, atol=1e-6)


def test_turned_keeps_distances_and_an_angle_of_zero_keeps_everything():
    skeletons = make_skeletons(4)
    made = turned(skeletons, random_turns(4, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(bone_length(made, 0, 1), bone_length(skeletons, 0, 1))
    assert (made - skeletons).abs().amax(dim=(1, 2, 3)).min() > 0.01
    assert torch.equal(turned(skeletons, torch.zeros(4, 3)), skeletons)


def test_random_turns_fill_the_range_and_follow_the_seed():
    angles = random_turns(3000, torch.Generator().manual_seed(0), largest=0.3)
    assert angles.shape == (3000, 3)
    assert (angles.amin(0) + 0.3).abs().max() < 0.01
    assert (angles.amax(0) - 0.3).abs().max() < 0.01
    assert angles.mean(0).abs().max() < 0.02
    assert torch.equal(angles, random_turns(3000, torch.Generator().manual_seed(0)))
    assert not torch.equal(angles, random_turns(3000, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("wrong", [-0.1, 4.0])
def test_angles_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=rf"largest is {wrong}, but it must be an angle in \[0, π\]"):
        random_turns(1, torch.Generator(), largest=wrong)


@pytest.mark.parametrize("persons", [(), (2,)])
def test_a_mirror_turns_x_round_and_exchanges_the_sides(persons):
    skeletons = make_skeletons(2, *persons)
    made = mirrored(skeletons, (0, 2, 1, 3))
    for joint, other in ((0, 0), (1, 2), (2, 1), (3, 3)):
        for axis, sign in enumerate((-1, 1, 1)):
            assert torch.equal(made[:, axis, :, joint], sign * skeletons[:, axis, :, other])
    assert torch.equal(mirrored(made, (0, 2, 1, 3)), skeletons)


@pytest.mark.parametrize("partners", [(0, 1, 2), (0, 1, 1, 3), (1, 2, 3, 4), ()])
def test_partners_that_are_not_those_of_the_joints_are_refused(partners):
    with pytest.raises(InputError, match="each of the 4 joints, from 0, must be there once"):
        mirrored(make_skeletons(1), partners)
