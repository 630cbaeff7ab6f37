"""Clips in time: any number of frames, and parts of clips, against interpolation frame by frame."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from heedful.data.clip_windows import middle_windows, random_windows, resampled, windowed
from heedful.errors import InputError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def read_at(series, begin, end, num_frames):
    """Return one series of numbers at the middles of equal parts of a window: slow, one frame after another."""
    length, made = len(series), []
    for frame in range(num_frames):
        moment = (begin + (end - begin) * (frame + 0.5) / num_frames) * length - 0.5
        made.append(np.interp(moment, np.arange(length), series))
    return made


@pytest.mark.parametrize("length", [1, 2, 7, 50])
@pytest.mark.parametrize("num_frames", [1, 5, 32])
def test_resampled_is_interpolation(length, num_frames):
    clip = torch.randn(length, 4, 3)
    made = resampled(clip, num_frames)
    assert made.shape == (num_frames, 4, 3)
    for joint in range(4):
        for axis in range(3):
            expected = read_at(clip[:, joint, axis].numpy(), 0, 1, num_frames)
            np.testing.assert_allclose(made[:, joint, axis], expected, atol=1e-5)


def test_resampled_keeps_what_has_the_length_already():
    clip = torch.randn(9, 6)
    torch.testing.assert_close(resampled(clip, 9), clip)
    torch.testing.assert_close(resampled(clip[:, 0], 9), clip[:, 0])


@pytest.mark.parametrize(("length", "num_frames"), [(0, 4), (4, 0), (4, -1)])
def test_no_frames_are_refused(length, num_frames):
    with pytest.raises(InputError, match=f"a clip of {length} frames cannot have {num_frames}"):
        resampled(torch.zeros(length, 2), num_frames)


@pytest.mark.parametrize("places", [(), (5,), (3, 2)])
def test_windowed_is_interpolation_within_the_window(places):
    values = torch.randn(3, 2, 11, *places)
    windows = torch.tensor([[0.0, 1.0], [0.2, 0.7], [0.93, 1.0]])
    made = windowed(values, windows, 6)
    assert made.shape == (3, 2, 6, *places)
    series, found = values.movedim(2, -1).flatten(1, -2), made.movedim(2, -1).flatten(1, -2)
    for clip, (begin, end) in enumerate(windows.tolist()):
        for number, frames in enumerate(series[clip].numpy()):
            np.testing.assert_allclose(found[clip, number], read_at(frames, begin, end, 6), atol=1e-5)


def test_windowed_of_the_whole_clip_is_torchs_interpolation():
    values = torch.randn(2, 3, 20)
    whole = torch.tensor([[0.0, 1.0]] * 2)
    for num_frames in (8, 20, 33):
        expected = F.interpolate(values, size=num_frames, mode="linear", align_corners=False)
        torch.testing.assert_close(windowed(values, whole, num_frames), expected)


def test_windowed_passes_gradients_on():
    values = torch.randn(2, 1, 8, requires_grad=True)
    windowed(values, torch.tensor([[0.0, 1.0], [0.0, 0.5]]), 8).sum().backward()
    assert (values.grad[0] == 1).all()
    # Half the clip, and the frame beside it.
    assert (values.grad[1, 0] > 0).tolist() == [True] * 5 + [False] * 3


def test_streams_of_one_clip_are_cut_alike():
    windows = random_windows(1, generator())
    quick, slow = (torch.linspace(0, 1, length).view(1, 1, length) for length in (1000, 100))
    torch.testing.assert_close(windowed(quick, windows, 10), windowed(slow, windows, 10), atol=0.01, rtol=0)


def test_random_windows_lie_in_the_clip_and_are_as_long_as_asked():
    windows = random_windows(4000, generator(), smallest=0.3)
    length = windows[:, 1] - windows[:, 0]
    assert windows.min() >= 0
    assert windows.max() <= 1 + 1e-6
    assert 0.3 - 1e-6 <= length.min() < 0.31
    assert 0.99 < length.max() <= 1 + 1e-6
    assert length.mean() == pytest.approx(0.65, abs=0.02)
    # The place is drawn after the length: a window is in the middle on average, whatever its length.
    assert windows.mean() == pytest.approx(0.5, abs=0.01)


def test_random_windows_depend_on_the_generator_alone():
    first = random_windows(5, generator(1))
    assert torch.equal(first, random_windows(5, generator(1)))
    assert not torch.equal(first, random_windows(5, generator(2)))
    assert (random_windows(5, generator(), smallest=1.0) == torch.tensor([0.0, 1.0])).all()


def test_middle_windows():
    torch.testing.assert_close(middle_windows(2), torch.tensor([[0.05, 0.95]] * 2))
    assert (middle_windows(3, length=1.0) == torch.tensor([0.0, 1.0])).all()


@pytest.mark.parametrize("wrong", [0.0, -0.5, 1.5])
def test_shares_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=rf"smallest is {wrong}, but it must be in \(0, 1\]"):
        random_windows(2, generator(), smallest=wrong)
    with pytest.raises(InputError, match=rf"length is {wrong}, but it must be in \(0, 1\]"):
        middle_windows(2, length=wrong)


def test_windowed_refuses_no_frames():
    with pytest.raises(InputError, match="num_frames is 0, but it must be at least 1"):
        windowed(torch.zeros(1, 1, 4), middle_windows(1), 0)
