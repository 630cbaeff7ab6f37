"""Class maps without gradients: from the activations alone, or from what the network says of images that they mask."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Scorer = Callable[[Tensor], Tensor]
"""Images (M, C, H, W) -> class scores (M, classes), before the softmax."""

MASKED_AT_ONCE = 64
"""Masked images a forward pass."""


def eigen_cam(
    activations: Float[Tensor, "batch channels h w"],
    classes: Int[Tensor, "batch classes"],
    images: Float[Tensor, "batch colours height width"],
    scorer: Scorer,
) -> Float[Tensor, "batch classes h w"]:
    """Return the activations' first principal component, not centred and rectified: the same map for every class.

    Muhammad and Yeasin, "Eigen-CAM", IJCNN 2020, section III. Of its two signs it has that with the larger sum.

    Args:
        activations: of the layer.
        classes: their number decides how often the map is given.
        images: not used, like scorer.
        scorer: see there.
    """
    places = activations.flatten(2).transpose(1, 2)
    left, values, _ = torch.linalg.svd(places, full_matrices=False)
    component = left[:, :, 0] * values[:, :1]
    signed = component * torch.where(component.sum(1, keepdim=True) < 0, -1, 1)
    maps = torch.relu(signed).reshape(-1, *activations.shape[2:])
    return maps[:, None].expand(-1, classes.shape[1], -1, -1)


def score_cam(
    activations: Float[Tensor, "batch channels h w"],
    classes: Int[Tensor, "batch classes"],
    images: Float[Tensor, "batch colours height width"],
    scorer: Scorer,
) -> Float[Tensor, "batch classes h w"]:
    """Return relu(Σ_k w_k A_k), w the softmax over channels of the score of the image masked by A_k.

    Wang et al., "Score-CAM", CVPR Workshops 2020, equations 6 to 8: the mask is A_k at the image's size, min-max
    normalised. The score of the baseline, a black image, is the same for every channel, so that the softmax cancels it.
    One forward pass for each image and channel: slow.

    Args:
        activations: of the layer.
        classes: whose maps.
        images: as the network took them.
        scorer: the network.
    """
    weights = torch.stack([_scores(*one, scorer) for one in zip(activations, classes, images, strict=True)])
    with torch.autocast(images.device.type, enabled=False):
        return torch.relu(torch.einsum("nkc,nchw->nkhw", weights.softmax(2), activations))


def _scores(activations: Tensor, classes: Tensor, image: Tensor, scorer: Scorer) -> Tensor:
    """Return the score (classes, channels) of one image masked by each channel."""
    low, high = activations.amin((1, 2), keepdim=True), activations.amax((1, 2), keepdim=True)
    masks = (activations - low) / torch.where(high > low, high - low, 1)
    scores = []
    for part in torch.split(masks, MASKED_AT_ONCE):
        enlarged = F.interpolate(part[:, None], image.shape[1:], mode="bilinear", align_corners=False)
        scores.append(scorer((image * enlarged).to(image.dtype))[:, classes].to(activations.dtype))
    return torch.cat(scores).T


GRADIENT_FREE: dict[str, Callable[[Tensor, Tensor, Tensor, Scorer], Tensor]] = {
    "eigen-cam": eigen_cam,
    "score-cam": score_cam,
}
"""Name -> function of (activations, classes, images, scorer)."""
