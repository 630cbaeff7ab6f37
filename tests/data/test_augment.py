"""Batch augmentation against slow references, image by image and pixel by pixel, from the same drawn numbers."""

import math

import pytest
import torch

from heedful.data import AUGMENTATIONS, crop, flip, shift
from heedful.data.augment import check_names
from heedful.errors import InputError


def make_images(count=6, channels=3, height=10, width=13):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_shift(image, down, right, fill):
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for channel in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y - down, x - right
                if fill == "edge":
                    from_y, from_x = min(max(from_y, 0), height - 1), min(max(from_x, 0), width - 1)
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[channel, y, x] = image[channel, from_y, from_x]
    return out


@pytest.mark.parametrize("fill", ["edge", "zero"])
@pytest.mark.parametrize("fraction", [0.0, 1 / 8, 0.3])
def test_shift_equals_the_slow_reference(fill, fraction):
    images = make_images()
    generator = seeded()
    reach_down, reach_right = int(fraction * 10), int(fraction * 13)
    down = torch.randint(-reach_down, reach_down + 1, (6, 1), generator=generator).flatten().tolist()
    right = torch.randint(-reach_right, reach_right + 1, (6, 1), generator=generator).flatten().tolist()
    expected = torch.stack([slow_shift(*item, fill) for item in zip(images, down, right, strict=True)])
    torch.testing.assert_close(shift(images, seeded(), fraction, fill), expected, rtol=0, atol=0)


def test_shift_covers_every_offset_equally_and_no_other():
    count, height, width = 8000, 16, 24
    images = torch.zeros(count, 1, height, width, dtype=torch.uint8)
    images[:, :, 8, 12] = 1
    places = shift(images, seeded(), fill="zero").view(count, -1).argmax(dim=1)
    for offsets, reach in ((places // width - 8, 2), (places % width - 12, 3)):
        values, counts = offsets.unique(return_counts=True)
        assert values.tolist() == list(range(-reach, reach + 1))
        expected = count / (2 * reach + 1)
        assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    down, right = places // width - 8, places % width - 12
    assert abs(torch.corrcoef(torch.stack([down, right]).double())[0, 1]) < 0.05


def test_edge_fill_invents_no_value_and_zero_fill_is_zero():
    images = make_images().clamp(min=1)
    for image, moved in zip(images, shift(images, seeded(), 0.3), strict=True):
        assert set(moved.unique().tolist()) <= set(image.unique().tolist())
    moved = shift(images, seeded(), 0.3, "zero")
    assert (moved == 0).any()
    for image, zero_filled in zip(images, moved, strict=True):
        kept = zero_filled[:, (zero_filled[0] > 0).any(dim=1)][:, :, (zero_filled[0] > 0).any(dim=0)]
        assert any(
            torch.equal(kept, image[:, y : y + kept.shape[1], x : x + kept.shape[2]])
            for y in range(10 - kept.shape[1] + 1)
            for x in range(13 - kept.shape[2] + 1)
        )


def test_shift_refuses_an_unknown_fill():
    with pytest.raises(InputError, match="unknown fill 'edges': did you mean edge"):
        shift(make_images(), seeded(), fill="edges")


def test_flip_equals_the_slow_reference():
    images = make_images(count=40)
    mirrored = torch.rand(40, generator=seeded()) < 0.5
    assert 0 < mirrored.sum() < 40
    pairs = zip(images, mirrored.tolist(), strict=True)
    expected = torch.stack([torch.tensor(image.numpy()[:, :, ::-1].copy()) if m else image for image, m in pairs])
    torch.testing.assert_close(flip(images, seeded()), expected, rtol=0, atol=0)


def test_flip_mirrors_half():
    images = torch.arange(2, dtype=torch.uint8).expand(10_000, 1, 1, 2)
    assert abs((flip(images, seeded())[:, 0, 0, 0] == 1).float().mean() - 0.5) < 0.02


def slow_crop(image, side, centre_x, centre_y):
    """Sample the window bilinearly: pixel i of n covers [i, i + 1), its centre is at i + 1/2."""
    channels, height, width = image.shape
    out = torch.zeros(channels, height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            at_y = ((centre_y + side * (2 * (y + 0.5) / height - 1)) + 1) / 2 * height - 0.5
            at_x = ((centre_x + side * (2 * (x + 0.5) / width - 1)) + 1) / 2 * width - 0.5
            low_y, low_x = math.floor(at_y), math.floor(at_x)
            for near_y in (low_y, low_y + 1):
                for near_x in (low_x, low_x + 1):
                    weight = (1 - abs(at_y - near_y)) * (1 - abs(at_x - near_x))
                    clamped = image[:, min(max(near_y, 0), height - 1), min(max(near_x, 0), width - 1)]
                    out[:, y, x] += weight * clamped
    return out


def test_crop_equals_the_slow_reference():
    images = make_images()
    generator = seeded()
    side = 0.6 + 0.4 * torch.rand(6, 1, generator=generator)
    centre = (1 - side) * (2 * torch.rand(6, 2, generator=generator) - 1)
    drawn = zip(images, side.flatten().tolist(), centre.tolist(), strict=True)
    expected = torch.stack([slow_crop(image, s, *place) for image, s, place in drawn])
    # Half a step from rounding to uint8, and float32's own error.
    assert (crop(images, seeded()).double() - expected).abs().max() <= 0.5 + 1e-3


def test_crop_of_the_whole_image_changes_nothing():
    images = make_images()
    assert torch.equal(crop(images, seeded(), smallest=1.0), images)


def test_crop_windows_stay_inside_and_reach_the_corners():
    ramp = torch.linspace(0, 255, 256).round().to(torch.uint8).expand(2000, 1, 4, 256)
    cropped = crop(ramp, seeded(), smallest=0.5)[:, 0, 0].float()
    left, right = cropped[:, 0] / 255, cropped[:, -1] / 255
    assert (right - left).min() >= 0.5 - 0.01
    assert (right - left).max() >= 0.98
    assert left.max() > 0.45
    assert right.min() < 0.55


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_is_a_function_of_images_and_seed(name):
    images = make_images(count=32, height=16, width=16)
    before = images.clone()
    augment = AUGMENTATIONS[name]
    first = augment(images, seeded(3))
    assert first.dtype == torch.uint8
    assert torch.equal(first, augment(images, seeded(3)))
    assert not torch.equal(first, augment(images, seeded(4)))
    assert torch.equal(images, before)


def test_shift_zero_fills_with_zero_and_shift_with_the_edge():
    white = torch.full((64, 3, 16, 16), 255, dtype=torch.uint8)
    assert (AUGMENTATIONS["shift-zero"](white, seeded()) == 0).any()
    assert (AUGMENTATIONS["shift"](white, seeded()) == 255).all()


def test_unknown_names_are_refused():
    check_names(("flip", "crop"))
    with pytest.raises(InputError, match="unknown augmentation 'flipp': did you mean flip"):
        check_names(("crop", "flipp"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_works_on_the_images_device(name):
    images = make_images(count=32, height=16, width=16).cuda()
    augmented = [AUGMENTATIONS[name](images, torch.Generator("cuda").manual_seed(seed)) for seed in (0, 0, 1)]
    assert augmented[0].device == images.device
    assert torch.equal(augmented[0], augmented[1])
    assert not torch.equal(augmented[0], augmented[2])
