"""Images changed by at most ε in every pixel, so that a network errs: the attacks FGSM and PGD.

[G] is Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015; [M] is Madry et al., "Towards
Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018. Both follow the sign of the gradient of the
cross-entropy by the pixels. Where that gradient is 0 they stand still, and a network whose softmax has saturated looks
robust without being so: hence `Attacked.without_gradient`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import InputError
from heedful.evaluate.epsilons import check_epsilon
from heedful.maps.gradients import widened
from heedful.temporary import evaluation_mode, frozen

NUM_STEPS = 20
REACH = 2.5
"""All steps of PGD together, in ε: more than the 2 ε from one side of the ball to the other. From [M], for its curves
over ε."""

Images = Float[Tensor, "images channels height width"]


@dataclass(frozen=True, eq=False)
class Attacked:
    """Attacked images.

    Args:
        images: pixels in [0, 1].
        without_gradient: whether the gradient was 0 in every pixel of the image, at each step: that image was not
            attacked at all, and says nothing.
    """

    images: Images
    without_gradient: Bool[Tensor, "images"]


def fgsm(
    model: nn.Module,
    images: Images,
    labels: Int64[Tensor, "images"],
    epsilon: float,
    mean: Sequence[float],
    deviation: Sequence[float],
) -> Attacked:
    """Return the images one step of ε along the sign of the gradient: the fast gradient sign method, section 4 of [G].

    Args:
        model: from normalised images to logits; run in evaluation mode, its parameters frozen meanwhile.
        images: pixels in [0, 1], before normalisation.
        labels: the true classes.
        epsilon: greatest change of a pixel, in [0, 1]; 8/255 is eight of 255 grey levels.
        mean: per channel, in [0, 1], with which the model's images are normalised.
        deviation: likewise.

    Raises:
        InputError: if pixels or epsilon are outside [0, 1].
    """
    _check(images, epsilon)
    with evaluation_mode(model), frozen(model):
        gradient = _gradient(model, images, labels, mean, deviation)
    return Attacked((images + epsilon * gradient.sign()).clamp(0, 1), _is_zero(gradient))


def pgd(
    model: nn.Module,
    images: Images,
    labels: Int64[Tensor, "images"],
    epsilon: float,
    mean: Sequence[float],
    deviation: Sequence[float],
    *,
    steps: int = NUM_STEPS,
    step_size: float | None = None,
    generator: torch.Generator,
) -> Attacked:
    """Return the images after several steps along the sign, each put back into the ball: projected gradient descent.

    It starts at a random point of the ball, as section 4 of [M] has it, and takes the last point, whatever its loss.

    Args:
        model: as for `fgsm`.
        images: as for `fgsm`.
        labels: as for `fgsm`.
        epsilon: as for `fgsm`.
        mean: as for `fgsm`.
        deviation: as for `fgsm`.
        steps: at least 1.
        step_size: in the units of epsilon; None: REACH · epsilon / steps.
        generator: of the starts; on the CPU, so that they are the same wherever the images are.

    Raises:
        InputError: if pixels or epsilon are outside [0, 1], steps is less than 1, or step_size is not above 0.
    """
    _check(images, epsilon)
    check_steps(steps)
    if step_size is not None and not step_size > 0:
        raise InputError(f"step_size is {step_size}, but it must be above 0, for example {REACH} * epsilon / steps")
    size = REACH * epsilon / steps if step_size is None else step_size
    lowest, highest = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    attacked = (images + epsilon * _start(images, generator)).clamp(lowest, highest)
    without_gradient = torch.ones(len(images), dtype=torch.bool, device=images.device)
    with evaluation_mode(model), frozen(model):
        for _ in range(steps):
            gradient = _gradient(model, attacked, labels, mean, deviation)
            without_gradient &= _is_zero(gradient)
            attacked = (attacked + size * gradient.sign()).clamp(lowest, highest)
    return Attacked(attacked, without_gradient)


def normalised_pixels(images: Images, mean: Sequence[float], deviation: Sequence[float]) -> Images:
    """Return what a network sees of pixels in [0, 1]: (images − mean) / deviation, with the gradient."""
    centre, scale = (images.new_tensor(values).view(1, -1, 1, 1) for values in (mean, deviation))
    return (images - centre) / scale


def check_steps(steps: int) -> None:
    """Raise an InputError if PGD could not take so many steps."""
    if steps < 1:
        raise InputError(f"steps is {steps}, but PGD takes at least 1, for example {NUM_STEPS}")


def _check(images: Tensor, epsilon: float) -> None:
    check_epsilon(epsilon)
    low, high = (value.item() for value in images.aminmax())
    if low < 0 or high > 1:
        raise InputError(f"images are from {low:g} to {high:g}: give pixels in [0, 1], before they are normalised")


def _start(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each pixel a number in [-1, 1)."""
    return 2 * torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device) - 1


def _gradient(
    model: nn.Module, images: Tensor, labels: Tensor, mean: Sequence[float], deviation: Sequence[float]
) -> Tensor:
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        logits = widened(model(normalised_pixels(pixels, mean, deviation)))
        # The sum, not the mean: an image's small gradient must not underflow because the batch is large.
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return torch.autograd.grad(loss, pixels)[0]


def _is_zero(gradient: Tensor) -> Tensor:
    return (gradient.sign() == 0).flatten(1).all(1)  # that of NaN is 0 too
