"""The masks that a network itself lays over the places of an image, level by level and fused to one."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import unknown
from heedful.maps.record import unwrapped
from heedful.models.pay_attention import PayAttention
from heedful.surgery.masks import record
from heedful.surgery.stages import SMALLEST_SIDE
from heedful.temporary import evaluation_mode

FUSIONS = ("product", "mean")


def own_masks(
    model: nn.Module, images: Float[Tensor, "batch channels height width"]
) -> dict[str, Float[Tensor, "batch _ _"]]:
    """Return the weights of the places by level, early to deep, in evaluation mode; without gradients.

    Of a `PayAttention` these are the weights of its levels. Of other networks they are the masks of gates that weigh
    places, as those of CBAM and BAM do, of which the mean over channels is taken where each channel has its own; a
    gate that weighs channels alone, as that of SE, has none.

    Args:
        model: any network.
        images: as it takes them.
    """
    network = unwrapped(model)
    with evaluation_mode(network), torch.no_grad():
        if isinstance(network, PayAttention):
            return network.masks(images)
        with record(network) as kept:
            network(images)
    found = {name: kept[name] for name in kept.names()}
    return {name: mask.mean(1) for name, mask in found.items() if _weighs_places(mask, len(images))}


def fused(
    masks: Mapping[str, Float[np.ndarray, "images height width"]], how: str
) -> Float[np.ndarray, "images height width"]:
    """Return one mask of several levels: their geometric mean, their mean, or that of one level.

    A place must be weighty at every level to be so in the product.

    Args:
        masks: level -> masks, stretched to [0, 1] and brought to one size; one or more.
        how: "product", "mean", or the name of a level.

    Raises:
        InputError: if it is none of them.
    """
    check_fusion(how, masks)
    if how in masks:
        return masks[how]
    together = np.stack(list(masks.values()))
    return together.mean(0) if how == "mean" else together.prod(0) ** (1 / len(together))


def check_fusion(how: str, masks: Mapping[str, object]) -> None:
    """Raise an InputError unless masks of these levels can be fused so."""
    if how not in (*FUSIONS, *masks):
        raise unknown("fusion", how, [*FUSIONS, *masks])


def _weighs_places(mask: Tensor, num_images: int) -> bool:
    return mask.ndim == 4 and len(mask) == num_images and min(mask.shape[2:]) >= SMALLEST_SIDE
