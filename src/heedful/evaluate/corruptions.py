"""Common corruptions of images at five strengths: noise, blur, JPEG, contrast.

[H] is Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019. The strengths are those of the authors' code, github.com/hendrycks/robustness: for images of less than LARGE
pixels those of CIFAR-10-C, made for 32, else those of ImageNet-C, made for 224. The operations are torchvision's,
JPEG is Pillow's. Where they depart from [H]:

- noise and blur are rounded to the nearest grey level; [H] rounds down.
- blur mirrors the image at its border; [H] repeats the border's pixels.
- contrast shrinks towards the mean grey of the image, so that colours fade too; [H] towards each channel's mean.

Noise, JPEG and contrast are of the 15 corruptions of [H], blur is of the extra ones. So a mean over these four is not
the mean corruption error of [H]; nor is it divided by AlexNet's.
"""

import io
from collections.abc import Callable

import torch
from jaxtyping import UInt8
from torch import Tensor

from heedful.errors import InputError, unknown

STRENGTHS = (1, 2, 3, 4, 5)
LARGE = 96
"""Pixels of the shorter side from which on an image takes ImageNet-C's strengths: near the geometric mean of 32 and
224."""

AMOUNTS = {
    "noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": ((0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)),
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
}
"""Corruption -> its amounts at strengths 1 to 5, of CIFAR-10-C and of ImageNet-C.

Noise: deviation, of pixels in [0, 1]; blur: deviation of the Gaussian in pixels; JPEG: quality; contrast: what is left.
"""

Image = UInt8[Tensor, "3 height width"]


def corrupted(
    images: UInt8[Tensor, "images 3 height width"], name: str, strength: int, *, seed: int = 0, first: int = 0
) -> UInt8[Tensor, "images 3 height width"]:
    """Return the images after a corruption, on the CPU.

    The noise of an image depends on the seed and on its place alone; at a greater strength it is the same, but more.

    Args:
        images: pixels from 0 to 255.
        name: a name in CORRUPTIONS.
        strength: from 1 to 5.
        seed: of the noise.
        first: place of the first of these images among all.

    Raises:
        InputError: if the name is unknown, or the strength is not from 1 to 5.
    """
    amount = amount_of(name, strength, min(images.shape[2:]))
    found = []
    with torch.random.fork_rng(devices=[]):
        # Contiguous: noise is drawn in the order in which pixels lie in memory.
        for place, image in enumerate(images.cpu().contiguous(), start=first):
            # torchvision's noise draws from torch's global generator, so that is seeded, for each image.
            torch.default_generator.manual_seed((seed * 1_000_003 + place) % 2**63)
            found.append(CORRUPTIONS[name](image, amount))
    return torch.stack(found)


def amount_of(name: str, strength: int, image_size: int) -> float:
    """Return the amount of a corruption in its own unit, see AMOUNTS.

    Args:
        name: of the corruption.
        strength: from 1 to 5.
        image_size: the shorter side in pixels.

    Raises:
        InputError: if the name is unknown, or the strength is not from 1 to 5.
    """
    if name not in AMOUNTS:
        raise unknown("corruption", name, AMOUNTS)
    if strength not in STRENGTHS:
        raise InputError(f"strength is {strength}, but it must be a whole number from 1 to {STRENGTHS[-1]}")
    return AMOUNTS[name][image_size >= LARGE][strength - 1]


def noise(image: Image, deviation: float) -> Image:
    """Return the image with Gaussian noise of that deviation, of pixels in [0, 1], drawn by torch's generator."""
    from torchvision.transforms.v2 import functional as transforms

    # In float: on uint8 torchvision rounds the noise towards 0, which leaves less of it.
    noisy = transforms.gaussian_noise(image / 255, sigma=deviation)
    return (noisy * 255).round().to(torch.uint8)


def blur(image: Image, deviation: float) -> Image:
    """Return the image under a Gaussian of that deviation, in pixels, cut off at four of them as [H] has it."""
    from torchvision.transforms.v2 import functional as transforms

    # The mirrored border cannot be wider than the image.
    radius = min(int(4 * deviation + 0.5), min(image.shape[1:]) - 1)
    return transforms.gaussian_blur(image, [2 * radius + 1] * 2, [deviation] * 2)


def jpeg(image: Image, quality: float) -> Image:
    """Return the image as JPEG of that quality, from 1 to 100, leaves it."""
    import numpy as np
    from PIL import Image as pillow

    content = io.BytesIO()
    pillow.fromarray(image.permute(1, 2, 0).numpy()).save(content, format="JPEG", quality=int(quality))
    return torch.from_numpy(np.array(pillow.open(content))).permute(2, 0, 1)


def contrast(image: Image, left: float) -> Image:
    """Return the image with that part of its contrast left, in [0, 1], around its mean grey."""
    from torchvision.transforms.v2 import functional as transforms

    return transforms.adjust_contrast(image, left)


CORRUPTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "jpeg": jpeg,
    "contrast": contrast,
}
