"""Batch norm (Ioffe and Szegedy, ICML 2015) of logits, of which there may be a single one per channel."""

import torch.nn.functional as F
from torch import Tensor, nn

from heedful.layers.synchronised import is_synchronised


def normalized(norm: nn.Module, logits: Tensor) -> Tensor:
    """Return the batch norm of the logits; where each channel has one number, with the running statistics.

    One number has no variance: in training, torch refuses a batch of one pooled image. Layers that pool to one number
    per channel then use the running statistics, and leave them as they are.

    Args:
        norm: the batch norm, or what it was turned into (an identity by fusion, a synchronised batch norm).
        logits: (N, C) or (N, C, H, W).
    """
    # A synchronised one counts over all processes, which must all call it: it is left to decide for itself.
    if (
        isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
        and norm.training
        and not is_synchronised()
        and logits.numel() == logits.shape[1]
    ):
        return F.batch_norm(logits, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(logits)
