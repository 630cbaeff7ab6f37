"""Maps averaged over changed copies of the images: mirrored ones, or ones with noise."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from heedful.errors import InputError
from heedful.maps.attention import Explained
from heedful.maps.classes import Top

NUM_COPIES = 16
Explain = Callable[[Tensor, Tensor | Top], Explained]
"""From images and classes to maps: `lambda images, classes: explained(model, images, layers=..., classes=classes)`."""


def flip_averaged(
    explain: Explain,
    images: Float[Tensor, "batch channels height width"],
    classes: Int[Tensor, "rows *classes"] | Top,
) -> Explained:
    """Return the mean of the images' maps and those of their mirror images, mirrored back.

    Args:
        explain: see `Explain`.
        images: as the model takes them.
        classes: see `attention_maps`; `top` chooses by the images as they are, whose scores are returned.
    """
    first = explain(images, classes)
    second = explain(images.flip(3), first.classes)
    maps = {layer: (found + second.maps[layer].flip(3)) / 2 for layer, found in first.maps.items()}
    return Explained(maps, first.classes, first.scores)


def noise_averaged(
    explain: Explain,
    images: Float[Tensor, "batch channels height width"],
    classes: Int[Tensor, "rows *classes"] | Top,
    *,
    num: int = NUM_COPIES,
    deviation: float = 0.15,
    seed: int = 0,
) -> Explained:
    """Return the mean of the maps of noisy copies of the images.

    Smilkov et al., "SmoothGrad", 2017, with maps in place of gradients.

    Args:
        explain: see `Explain`.
        images: as the model takes them.
        classes: see `attention_maps`; `top` chooses by the images without noise, whose scores are returned.
        num: copies, at least 1.
        deviation: of the normal noise, as a part of each image's range from its least to its greatest value, at least
            0; the paper recommends 0.1 to 0.2.
        seed: of the noise.

    Raises:
        InputError: if num or deviation is out of range.
    """
    if num < 1 or deviation < 0:
        raise InputError(f"num={num} must be at least 1, and deviation={deviation} at least 0")
    generator = torch.Generator(images.device).manual_seed(seed)
    amount = deviation * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    clean = explain(images, classes)
    sums = {layer: torch.zeros_like(found) for layer, found in clean.maps.items()}
    for _ in range(num):
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        for layer, found in explain(images + amount * noise, clean.classes).maps.items():
            sums[layer] += found
    return Explained({layer: total / num for layer, total in sums.items()}, clean.classes, clean.scores)
