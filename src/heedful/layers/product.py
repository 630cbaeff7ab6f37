"""The product of a feature map and its mask, with which every attention layer ends."""

from torch import Tensor


def weighted(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x * mask`.

    Args:
        x: feature maps (N, C, H, W).
        mask: weights that broadcast to it, e.g. (N, C, 1, 1) or (N, 1, H, W).
    """
    return x * mask
