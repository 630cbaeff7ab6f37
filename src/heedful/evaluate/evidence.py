"""What a network heeds and what it ignores, as arrays that the report draws: class maps and the masks of every gate."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.maps.attention import attention_maps
from heedful.maps.record import last_layer
from heedful.surgery.masks import record
from heedful.temporary import evaluation_mode

NUM_BINS = 100


def evidence(
    model: nn.Module, pictured: tuple[Tensor, Tensor], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, NDArray[Any]]:
    """Return Grad-CAM maps and masks on a few images, and the distribution of every gate's weights over all batches.

    Args:
        model: from normalised images to logits.
        pictured: the few images (M, C, H, W), normalised, and their labels (M,).
        batches: (images, labels) over which weights are counted.

    Returns:
        `labels`, `predictions` (M,), `probabilities` (M,) of the true class, `layer` (where the map was taken; empty if
        the network has no feature map of 4 x 4 places), `maps` (M, h, w) float16 for the true class, `gates`
        (names in the network's order), `kinds` ("spatial" where a mask has places, else "channel"), `histograms` int64
        (G, NUM_BINS) of the weights over [0, 1], and for each spatial gate `spatial/NAME` (M, h, w) float16, the mean
        over channels.
    """
    images, labels = pictured
    with evaluation_mode(model), record(model) as masks, torch.inference_mode():
        probabilities = model(images).float().softmax(1)
    layer, maps = _true_class_maps(model, images, labels)
    found: dict[str, NDArray[Any]] = {
        "labels": labels.cpu().numpy(),
        "predictions": probabilities.argmax(1).cpu().numpy(),
        "probabilities": probabilities.gather(1, labels[:, None])[:, 0].cpu().numpy(),
        "layer": np.array(layer),
        "maps": maps.cpu().numpy().astype(np.float16),
    }
    for name in masks.names():
        if _is_spatial(masks[name]):
            found[f"spatial/{name}"] = masks[name].mean(1).numpy().astype(np.float16)
    return found | weights_of_gates(model, batches)


def weights_of_gates(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> dict[str, NDArray[Any]]:
    """Return `gates`, `kinds` and `histograms`, see `evidence`; of a network that may take other inputs than images.

    Args:
        model: whose gates are counted.
        batches: (inputs, targets) over which weights are counted, one at least.
    """
    kinds: dict[str, str] = {}
    counts: dict[str, NDArray[Any]] = {}
    with evaluation_mode(model), record(model) as masks, torch.inference_mode():
        for inputs, _ in batches:
            masks.clear()
            model(inputs)
            kinds = kinds or {name: "spatial" if _is_spatial(masks[name]) else "channel" for name in masks.names()}
            for name in kinds:
                found = np.histogram(masks[name].clamp(0, 1).numpy(), bins=NUM_BINS, range=(0, 1))[0]
                counts[name] = counts[name] + found if name in counts else found
    histograms = np.array([counts[name] for name in kinds], dtype=np.int64).reshape(len(kinds), NUM_BINS)
    return {"gates": np.array(list(kinds)), "kinds": np.array(list(kinds.values())), "histograms": histograms}


def _true_class_maps(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
    try:
        layer = last_layer(model, images[:1])
    except InputError:
        return "", images.new_zeros(len(images), 1, 1)
    maps = attention_maps(model, images, layers=[layer], classes=labels)[layer][:, 0]
    return layer, maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)  # so that float16 holds any scale


def _is_spatial(mask: Tensor) -> bool:
    return mask.ndim == 4 and min(mask.shape[2:]) > 1
