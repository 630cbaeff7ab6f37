import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as transforms

from heedful import InputError
from heedful.evaluate.corruptions import AMOUNTS, CORRUPTIONS, LARGE, STRENGTHS, amount_of, corrupted


def pictures(count=5, size=32):
    """Smooth waves with an edge: something for each corruption to spoil."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    phases = torch.arange(3 * count).reshape(count, 3, 1, 1)
    waves = 128 + 90 * torch.sin(rows / 3 + phases) * torch.cos(columns / 4 - phases)
    waves[:, :, :, size // 2 :] += 30
    return waves.clamp(0, 255).to(torch.uint8)


@pytest.fixture
def images():
    return pictures()


def distance(first, second):
    return (first.float() - second.float()).square().mean().sqrt().item()


def as_jpeg(image, quality):
    content = io.BytesIO()
    transforms.to_pil_image(image).save(content, format="JPEG", quality=quality)
    return transforms.pil_to_tensor(Image.open(content))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_corruptions_are_torchvisions_and_pillows(images, strength):
    deviation = AMOUNTS["blur"][0][strength - 1]
    size = 2 * int(4 * deviation + 0.5) + 1
    expected = {
        "blur": transforms.gaussian_blur(images, [size, size], [deviation, deviation]),
        "jpeg": torch.stack([as_jpeg(image, AMOUNTS["jpeg"][0][strength - 1]) for image in images]),
        "contrast": transforms.adjust_contrast(images, AMOUNTS["contrast"][0][strength - 1]),
    }
    for name, images_expected in expected.items():
        assert torch.equal(corrupted(images, name, strength), images_expected)
    noisy = corrupted(images, "noise", strength, seed=3, first=7)
    for place, image in enumerate(images):
        torch.manual_seed(3 * 1_000_003 + 7 + place)
        expected_noise = transforms.gaussian_noise(image / 255, sigma=AMOUNTS["noise"][0][strength - 1])
        assert torch.equal(noisy[place], (255 * expected_noise).round().to(torch.uint8))


def test_blur_is_scipys_away_from_the_border(images):
    blurred = corrupted(images, "blur", 5)[0, 0].numpy().astype(int)
    expected = gaussian_filter(images[0, 0].numpy().astype(float), 1.0, truncate=4)
    assert np.abs(blurred - expected)[4:-4, 4:-4].max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [32, 128])
def test_noise_has_its_deviation_and_contrast_leaves_its_part(size):
    grey = torch.full((4, 3, size, size), 128, dtype=torch.uint8)
    for strength in (1, 3):
        noise = (corrupted(grey, "noise", strength).float() - 128) / 255
        assert noise.std().item() == pytest.approx(amount_of("noise", strength, size), rel=0.04)
        assert noise.mean().item() == pytest.approx(0, abs=0.005)
    images = pictures(size=size)
    left = corrupted(images, "contrast", 2).float().std() / images.float().std()
    assert left.item() == pytest.approx(amount_of("contrast", 2, size), rel=0.05)


@pytest.mark.parametrize("size", [32, 112])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_distortion_rises_with_the_strength(name, size):
    images = pictures(size=size)
    found = [corrupted(images, name, strength) for strength in STRENGTHS]
    distances = [distance(each, images) for each in found]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert len(set(distances)) == 5
    assert all(each.dtype == torch.uint8 and each.shape == images.shape for each in found)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_in_any_batch_and_again(images, name):
    state = torch.get_rng_state()
    whole = corrupted(images, name, 4, seed=2)
    parts = [corrupted(images[:2], name, 4, seed=2), corrupted(images[2:], name, 4, seed=2, first=2)]
    assert torch.equal(torch.cat(parts), whole)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(corrupted(channels_last, name, 4, seed=2), whole)
    assert torch.equal(corrupted(images, name, 4, seed=3), whole) == (name != "noise")
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_differs_between_images_and_grows_between_strengths():
    grey = torch.full((2, 3, 16, 16), 128, dtype=torch.uint8)
    weak, strong = (corrupted(grey, "noise", strength).float() - 128 for strength in (1, 5))
    assert torch.corrcoef(torch.stack([weak.flatten(), strong.flatten()]))[0, 1] > 0.99
    assert torch.corrcoef(torch.stack([weak[0].flatten(), weak[1].flatten()]))[0, 1].abs() < 0.15


def test_strengths_are_those_of_the_papers_code():
    assert [amount_of("noise", s, 32) for s in STRENGTHS] == [0.04, 0.06, 0.08, 0.09, 0.10]
    assert [amount_of("noise", s, 224) for s in STRENGTHS] == [0.08, 0.12, 0.18, 0.26, 0.38]
    assert [amount_of("blur", s, LARGE) for s in STRENGTHS] == [1, 2, 3, 4, 6]
    assert [amount_of("jpeg", s, LARGE - 1) for s in STRENGTHS] == [80, 65, 58, 50, 40]
    assert [amount_of("contrast", s, 64) for s in STRENGTHS] == [0.75, 0.5, 0.4, 0.3, 0.15]
    assert set(AMOUNTS) == set(CORRUPTIONS)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_small_images_can_be_corrupted(size):
    images = pictures(size=size)
    for name in CORRUPTIONS:
        assert corrupted(images, name, 5).shape == images.shape


def test_what_cannot_be_done(images):
    with pytest.raises(InputError, match="unknown corruption 'nois': did you mean noise"):
        corrupted(images, "nois", 1)
    for strength in (0, 6):
        with pytest.raises(InputError, match=f"strength is {strength}"):
            corrupted(images, "blur", strength)
