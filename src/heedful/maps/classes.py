"""Which classes are mapped: given ones, those with the highest scores, or the most confusing."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from heedful.errors import InputError


@dataclass(frozen=True, eq=False)
class Top:
    """The k classes with the highest scores of each image; see `top`."""

    k: int
    but: Tensor | None = None


def top(k: int, but: Int[Tensor, "batch *labels"] | Bool[Tensor, "batch classes"] | None = None) -> Top:
    """Return a choice of classes: for each image the k that have the highest scores, the highest first.

    `top(1, but=labels)` is the most confusing class.

    Args:
        k: at least 1.
        but: classes that are left out: labels, (N,) or (N, J), or true for those to leave out, (N, classes).

    Raises:
        InputError: if k is less than 1.
    """
    if k < 1:
        raise InputError(f"top: k is {k}, but it must be at least 1")
    return Top(k, but)


def chosen(
    classes: Int[Tensor, "rows *classes"] | Top, scores: Float[Tensor, "batch classes"]
) -> Int[Tensor, "batch chosen"]:
    """Return the classes (N, K) that were asked for.

    Raises:
        InputError: if there are other than N rows, a class is out of range, or there are fewer than k to choose from.
    """
    num_images, num_classes = scores.shape
    given = classes.but if isinstance(classes, Top) else classes
    if given is not None and len(given) != num_images:
        raise InputError(f"classes has {len(given)} rows for {num_images} images: give one row for each image")
    if not isinstance(classes, Top):
        return _in_range(classes, num_images, num_classes).to(scores.device)
    scores = scores.detach()
    if classes.but is not None:
        scores = scores.masked_fill(_left_out(classes.but, num_images, num_classes).to(scores.device), -torch.inf)
    found, indices = scores.topk(min(classes.k, num_classes), dim=1)
    if classes.k > num_classes or (found == -torch.inf).any():
        raise InputError(f"top: k is {classes.k}, but an image has fewer classes to choose from, of {num_classes}")
    return indices


def _left_out(but: Tensor, num_images: int, num_classes: int) -> Tensor:
    if but.dtype == torch.bool:
        return but
    labels = _in_range(but, num_images, num_classes)
    return torch.zeros(num_images, num_classes, dtype=torch.bool, device=but.device).scatter(1, labels, True)


def _in_range(classes: Tensor, num_images: int, num_classes: int) -> Tensor:
    flat = classes.reshape(num_images, -1).long()
    flat = flat.clone() if flat.is_inference() else flat  # else it could not be saved for a backward pass
    wrong = flat[(flat < 0) | (flat >= num_classes)]
    if len(wrong):
        raise InputError(f"class {wrong[0].item()} is out of range: the scores are of classes 0 to {num_classes - 1}")
    return flat
