"""Class maps as functions of a layer's activations and the gradients of the class scores by them.

In all of them activations A are (N, C, h, w), gradients g (N, ..., C, h, w), one for each class score (before the
softmax), and maps (N, ..., h, w), not normalised. Gradients that are the same at every place may be (N, ..., C, 1, 1).
Sums and means are over places, Z is their number. Half precision is for the caller to avoid: maps are sums over
channels.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Activations = Float[Tensor, "batch channels h w"]
Gradients = Float[Tensor, "batch *classes channels gradient_h gradient_w"]
Maps = Float[Tensor, "batch *classes h w"]


def cam(activations: Activations, gradients: Gradients) -> Maps:
    """Return Σ_k W_k A_k, for networks that end in global average pooling and a linear map with weights W.

    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2; not rectified, as
    there. Elsewhere W_k is Σ g_k.
    """
    return _weighted(activations, _mean(gradients) * _places(activations))


def grad_cam(activations: Activations, gradients: Gradients) -> Maps:
    """Return relu(Σ_k w_k A_k), w_k the mean of g_k.

    Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2; Wang et al. 2019, "Sharpen Focus", equation 1.
    """
    return torch.relu(_weighted(activations, _mean(gradients)))


def grad_cam_plus_plus(activations: Activations, gradients: Gradients) -> Maps:
    """Return relu(Σ_k w_k A_k), w_k = Σ relu(g_k) / (2 + g_k ΣA_k).

    Chattopadhay et al., "Grad-CAM++", WACV 2018, equations 5 and 19: α = g² / (2 g² + g³ ΣA), in which g² cancels, so
    that no small number need be added. The factor exp(score) of its derivatives is left out: it is one number for a
    map.
    """
    sums = _beside(activations.sum((-2, -1), keepdim=True), gradients)
    below = 2 + gradients * sums
    weights = torch.relu(gradients) / torch.where(below == 0, 1, below)
    return torch.relu(_weighted(activations, _mean(weights) * _places(activations)))


def channel(activations: Activations, gradients: Gradients) -> Maps:
    """Return relu(Σ_k w_k A_k), w_k the mean of relu(g_k): A_ch of Wang et al. 2019, "Sharpen Focus", equation 2."""
    return torch.relu(_weighted(activations, _mean(torch.relu(gradients))))


def xgrad_cam(activations: Activations, gradients: Gradients) -> Maps:
    """Return relu(Σ_k w_k A_k), w_k = Σ g_k A_k / ΣA_k, or 0 where ΣA_k is 0.

    Fu et al., "Axiom-based Grad-CAM", BMVC 2020, equation 8.
    """
    beside = _beside(activations, gradients)
    sums = _beside(activations.sum((-2, -1)), gradients[..., 0, 0])
    if gradients.shape[-2:] == (1, 1):  # Σ g A / ΣA is then g
        return torch.relu(_weighted(activations, torch.where(sums == 0, 0, gradients[..., 0, 0])))
    weights = (gradients * beside).sum((-2, -1)) / torch.where(sums == 0, torch.inf, sums)
    return torch.relu(_weighted(activations, weights))


def layer_cam(activations: Activations, gradients: Gradients) -> Maps:
    """Return relu(Σ_k relu(g_k) A_k), place by place.

    Jiang et al., "LayerCAM", IEEE Transactions on Image Processing 2021, equations 6 to 8.
    """
    return torch.relu(_multiplied(activations, torch.relu(gradients)))


def hires_cam(activations: Activations, gradients: Gradients) -> Maps:
    """Return relu(Σ_k g_k A_k), place by place.

    Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020, equation 7; there it is not rectified.
    """
    return torch.relu(_multiplied(activations, gradients))


BY_GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cam": cam,
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "channel": channel,
    "xgrad-cam": xgrad_cam,
    "layer-cam": layer_cam,
    "hires-cam": hires_cam,
}
"""Name -> function of (activations, gradients)."""


def _mean(values: Tensor) -> Tensor:
    """Return the mean over places, without a pass over numbers that are the same at every place."""
    return values[..., 0, 0] if values.shape[-2:] == (1, 1) else values.mean((-2, -1))


def _places(activations: Tensor) -> int:
    return activations.shape[-2:].numel()


def _beside(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the activations with an axis of length 1 for each axis of classes."""
    between = gradients.ndim - activations.ndim
    return activations.reshape(len(activations), *[1] * between, *activations.shape[1:])


def _weighted(activations: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("n...c,nchw->n...hw", weights, activations)


def _multiplied(activations: Tensor, factors: Tensor) -> Tensor:
    if factors.shape[-2:] == (1, 1):
        return _weighted(activations, factors[..., 0, 0])
    return (factors * _beside(activations, factors)).sum(-3)
