"""Attention driven by another image: where is, in these images, what that one shows?

[J] is Jetley, Lord, Lee and Torr, "Learn to pay attention", ICLR 2018, whose demonstration of co-segmentation this is:
the global vector of a query image takes the place of the images' own.
"""

import io
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.evaluate.randomisation import rank_correlation
from heedful.layers.pay_attention import AttentivePooling
from heedful.maps.processing import normalised
from heedful.maps.record import unwrapped
from heedful.models.pay_attention import PayAttention
from heedful.temporary import evaluation_mode

Masks = dict[str, Float[Tensor, "images _ _"]]
"""Level -> the weights of the places of each image."""


def query_masks(
    model: nn.Module,
    images: Float[Tensor, "images channels height width"],
    query: Float[Tensor, "1 query_channels query_height query_width"],
) -> Masks:
    """Return by level the weights of the images' places as another image's global vector chooses them.

    In evaluation mode, without gradients. With `pc` under a gate that weighs each place by itself, the vector shifts
    all places of an image alike: their order stays.

    Args:
        model: a `PayAttention` with a compatibility that heeds the global vector, such as "dp" or "additive".
        images: normalised.
        query: the image that drives the attention, likewise.

    Raises:
        InputError: if the network is no `PayAttention`, or its weights cannot depend on the global vector.
    """
    network = _heeding(model)
    with evaluation_mode(network), torch.no_grad():
        return network.masks(images, network.global_vector(query))


def query_numbers(own: Mapping[str, Tensor], driven: Mapping[str, Tensor]) -> dict[str, dict[str, list[float | None]]]:
    """Return how much the query changed the masks of each image, by level.

    Args:
        own: of the images, `PayAttention.masks`.
        driven: of the same images, `query_masks`.

    Returns:
        `rank_correlation`: Spearman's, of own and driven mask, in [-1, 1], or None where one of them is the same
        everywhere; `change`: mean absolute difference of the two, each stretched to [0, 1].
    """
    pairs = {level: (own[level].detach().double(), driven[level].detach().double()) for level in own}
    correlations = {level: rank_correlation(*pair) for level, pair in pairs.items()}
    changes = {level: _change(*pair).mean((1, 2)) for level, pair in pairs.items()}
    return {
        "rank_correlation": {
            level: [None if np.isnan(value) else float(value) for value in values]
            for level, values in correlations.items()
        },
        "change": {level: values.tolist() for level, values in changes.items()},
    }


def query_figure(
    query: UInt8[np.ndarray, "query_height query_width 3"],
    images: UInt8[np.ndarray, "images height width 3"],
    own: Mapping[str, Tensor],
    driven: Mapping[str, Tensor],
) -> bytes:
    """Draw the query, and beside it each image with its own and its driven masks and their difference, as PNG.

    Below driven masks stands ρ, the rank correlation with the own one. Differences go from black, 0, to bright, 1.

    Args:
        query: the pixels of the query image, as the network saw it.
        images: the pixels that the network saw, one or more.
        own: their masks by level.
        driven: their masks as the query drives them.

    Raises:
        InputError: if there is no image, not a mask for each, or the query has another size than the images.
    """
    from heedful.maps.sheet import Sheet, enlarged

    counts = {len(mask) for masks in (own, driven) for mask in masks.values()}
    if counts != {len(images)} or own.keys() != driven.keys() or not len(images):
        raise InputError(
            f"{len(images)} images, masks of {sorted(counts)}: give an own and a driven mask for each image"
        )
    if query.shape != images.shape[1:]:
        raise InputError(f"the query is {query.shape} and the images {images.shape[1:]}: give all of one size")
    correlations = query_numbers(own, driven)["rank_correlation"]
    drawn = Sheet(2 + 3 * len(own), len(images), images.shape[1] / images.shape[2])
    drawn.show(0, 0, enlarged(query), "query", "drives the masks")
    for row, image in enumerate(images):
        shown = [("image", "", enlarged(image))]
        for level in own:
            shown += _pictures(image, level, own[level][row], driven[level][row], correlations[level][row])
        for column, (name, text, picture) in enumerate(shown, start=1):
            drawn.show(row, column, picture, name, text)
    content = io.BytesIO()
    drawn.figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    return content.getvalue()


def _heeding(model: nn.Module) -> PayAttention:
    network = unwrapped(model)
    if not isinstance(network, PayAttention):
        raise InputError(
            f"a {type(network).__name__} has no global vector that another image's could replace: take a network with "
            "pay attention, such as the variant pay2-dp"
        )
    if not any(
        isinstance(pooling, AttentivePooling) and pooling.heeds_global for pooling in network.attention.values()
    ):
        raise InputError(
            "compatibility 'pc' with a softmax: ⟨u, l + g⟩ shifts all places of an image by the same ⟨u, g⟩, which a "
            "softmax does not see, so that no query can change a mask: take a network with 'dp' or 'additive'"
        )
    return network


def _change(own: Tensor, driven: Tensor) -> Tensor:
    return (normalised(own, "min-max") - normalised(driven, "min-max")).abs()


def _pictures(
    image: UInt8[np.ndarray, "height width 3"],
    level: str,
    own: Float[Tensor, "h w"],
    driven: Float[Tensor, "h w"],
    correlation: float | None,
) -> list[tuple[str, str, np.ndarray]]:
    """Return name, text and picture of an image's own mask, of its driven one, and of the change."""
    from matplotlib import colormaps

    from heedful.maps.overlay import COLOUR_MAP, overlay, upsample
    from heedful.maps.sheet import enlarged

    large = enlarged(image)
    both = normalised(torch.stack([own, driven]).detach().float(), "min-max").cpu().numpy()
    change = np.abs(both[0] - both[1])
    # Not divided by its maximum, as overlays are: where little has changed, little is to be seen.
    heat = colormaps[COLOUR_MAP](upsample(change, *large.shape[:2]), bytes=True)[..., :3]
    rank = "same everywhere" if correlation is None else f"driven, ρ {correlation:.2f}"
    return [
        (level, "own", overlay(large, both[0])),
        (level, rank, overlay(large, both[1])),
        ("change", f"mean {change.mean():.2f}", heat),
    ]
