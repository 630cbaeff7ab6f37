"""Whether a map shows what the network uses: its probability as pixels appear or disappear in the map's order.

[P] is Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018. Deletion
removes the most important pixels first: the sooner the probability falls, the smaller the area under the curve.
Insertion adds them to a blurred image: the larger, the better. Both put images before the network that are like none it
was trained on, so compare maps of one network, rather than networks.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import InputError
from heedful.maps.gradients import widened
from heedful.temporary import evaluation_mode

NUM_STEPS = 20
KERNEL_SIZE, KERNEL_DEVIATION = 11, 5.0
"""Of the blur, in pixels, from the code of [P] for images of 224; of much smaller ones it leaves less to be seen."""

Images = Float[Tensor, "images channels height width"]
Curves = Float[Tensor, "images points"]


def deletion(
    model: nn.Module,
    images: Images,
    maps: Float[Tensor, "maps rows columns"],
    classes: Int64[Tensor, "images"],
    *,
    num_steps: int = NUM_STEPS,
) -> Curves:
    """Return the probability of each image's class, from the whole image to grey as the map's highest pixels go first.

    Args:
        model: from normalised images to logits; run in evaluation mode.
        images: normalised, so that 0 is the mean colour of the training images: the grey.
        maps: at the size of the images; of equal values the first goes first, row by row.
        classes: of each image.
        num_steps: in which the pixels go; [P] has one for every 224 pixels.

    Returns:
        num_steps + 1 probabilities for each image, the first of the image as it is.

    Raises:
        InputError: if the maps have another size than the images, or num_steps is less than 1.
    """
    return _curve(model, images, torch.zeros_like(images), maps, classes, num_steps)


def insertion(
    model: nn.Module,
    images: Images,
    maps: Float[Tensor, "maps rows columns"],
    classes: Int64[Tensor, "images"],
    *,
    num_steps: int = NUM_STEPS,
) -> Curves:
    """Return the probability of each image's class, from the blurred image to the sharp one, highest pixels first.

    Arguments and errors are those of `deletion`; the blur is that of `blurred`.
    """
    return _curve(model, blurred(images), images, maps, classes, num_steps)


def area(curves: Curves) -> Float[Tensor, "images"]:
    """Return the area under each curve by the trapezoidal rule, over [0, 1]."""
    return (curves[:, :-1] + curves[:, 1:]).mean(1) / 2


def blurred(images: Images) -> Images:
    """Return the images under a Gaussian of KERNEL_DEVIATION, cut off at KERNEL_SIZE, their borders mirrored.

    Raises:
        InputError: if a side is not longer than half the kernel.
    """
    margin = KERNEL_SIZE // 2
    if min(images.shape[2:]) <= margin:
        height, width = images.shape[2:]
        raise InputError(f"images of {height} x {width} pixels are too small to blur: give sides of more than {margin}")
    places = torch.arange(-margin, margin + 1, dtype=images.dtype, device=images.device)
    weights = torch.softmax(-(places**2) / (2 * KERNEL_DEVIATION**2), 0)
    channels = images.shape[1]
    padded = F.pad(images, [margin] * 4, mode="reflect")
    across = F.conv2d(padded, weights.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(across, weights.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)


@torch.inference_mode()
def _curve(
    model: nn.Module, start: Tensor, end: Tensor, maps: Tensor, classes: Tensor, num_steps: int
) -> Float[Tensor, "images points"]:
    if maps.shape != (len(start), *start.shape[2:]):
        raise InputError(f"maps are {tuple(maps.shape)} for images {tuple(start.shape)}: enlarge them to their size")
    if num_steps < 1:
        raise InputError(f"num_steps is {num_steps}, but it must be at least 1, for example {NUM_STEPS}")
    ranks = _ranks(maps)[:, None]
    points = []
    with evaluation_mode(model):
        for step in range(num_steps + 1):
            num_changed = round(step / num_steps * maps[0].numel())
            shown = torch.where(ranks < num_changed, end, start)
            points.append(widened(model(shown)).softmax(1).gather(1, classes[:, None])[:, 0])
    return torch.stack(points, 1)


def _ranks(maps: Tensor) -> Tensor:
    """Return the place of each pixel in the order of the map, 0 for the highest."""
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(1).reshape(maps.shape)
