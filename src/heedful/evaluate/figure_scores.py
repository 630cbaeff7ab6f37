"""What a network says of where the figure is: a score in [0, 1] for every pixel, from its masks and its class maps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from heedful.evaluate.baselines import centre_gaussian
from heedful.evaluate.located import stretched
from heedful.evaluate.own_masks import check_fusion, fused, own_masks
from heedful.maps.attention import attention_maps
from heedful.maps.gradients import Chosen, known_gradients
from heedful.maps.processing import upsampled
from heedful.maps.record import recorded, unwrapped
from heedful.temporary import evaluation_mode

CLASS_MAP, FUSED, MIDDLE = "grad-cam", "masks", "centre_gaussian"

Scores = dict[str, Float[np.ndarray, "images size size"]]
"""What a score is of -> the score of each image's pixels."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores of a network for images whose class may be known.

    Args:
        model: from normalised images to logits, on the device where to compute.
        layer: of the class maps, a dotted name.
        fuse: how masks of several levels become one, see `heedful.evaluate.own_masks.fused`.
        methods: of the class maps.
    """

    model: nn.Module
    layer: str
    fuse: str
    methods: tuple[str, ...] = (CLASS_MAP,)

    def levels(self, images: Float[Tensor, "images channels size size"]) -> Scores:
        """Return the network's own masks, level by level.

        Raises:
            InputError: if they cannot be fused as asked.
        """
        masks = own_masks(self.model, images)
        if masks:  # a network that has none may be the control of one that has the level asked for
            check_fusion(self.fuse, masks)
        return {name: _large(mask, images) for name, mask in masks.items()}

    def others(
        self, images: Float[Tensor, "images channels size size"], classes: Int64[Tensor, "images"], levels: Scores
    ) -> Scores:
        """Return the fused masks, if there are any, the class maps, and the centre Gaussian.

        Args:
            images: normalised.
            classes: whose maps; -1: of the class that the network predicts.
            levels: of the same images.
        """
        found = {FUSED: stretched(fused(levels, self.fuse))} if levels else {}
        which = torch.where(classes < 0, predicted(self.model, images), classes)
        for method in self.methods:
            maps = attention_maps(self.model, images, layers=[self.layer], classes=which, method=method)[self.layer]
            found[method] = _large(maps[:, 0], images)
        middle = stretched(centre_gaussian(images.shape[2], images.shape[3])[None])
        return {**found, MIDDLE: middle.repeat(len(images), 0)}


def predicted(model: nn.Module, images: Float[Tensor, "images channels _ _"]) -> Int64[Tensor, "images"]:
    """Return the class with the highest score of each image."""
    with evaluation_mode(model), torch.no_grad():
        return model(images).argmax(1)


def has_cam(model: nn.Module, images: Float[Tensor, "images channels _ _"], layer: str) -> bool:
    """Return whether CAM is defined: the class scores are a linear map of the layer's means over places."""
    network = unwrapped(model)
    with recorded(network, [layer]) as recording:
        scores = network(images)
        found = known_gradients(recording, layer, Chosen(scores, scores.argmax(1, keepdim=True)))
    return found is not None


def class_named(folder: str, classes: Sequence[str]) -> str | None:
    """Return the class that a folder is named after, whatever follows in digits and the like; None if there is none.

    `Horse100`, `horses` and `horse_side` are of `horse`; the longest class that fits is taken.

    Args:
        folder: name of the folder.
        classes: of the network.
    """
    name = folder.lower()
    fitting = [each for each in classes if re.fullmatch(rf"{re.escape(each.lower())}(e?s)?([\W\d_].*)?", name)]
    return max(fitting, key=len, default=None)


def _large(maps: Float[Tensor, "images _ _"], images: Tensor) -> Float[np.ndarray, "images size size"]:
    return stretched(upsampled(maps.float(), (images.shape[2], images.shape[3])).cpu().numpy())
