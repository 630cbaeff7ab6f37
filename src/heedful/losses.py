"""Losses on class maps: attention separation and consistency, and the two in training, ICASC.

[W] is Wang et al., "Sharpen Focus: Learning with Attention Separability and Consistency", ICCV 2019. Where it is silent
the choices here are argued in `docs/icasc.md`: maps are divided by their maximum, image by image; the mask is guidance,
through which no gradient goes; of each image a ratio is taken, and then the mean over the images.
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import InputError, unknown
from heedful.maps.gradients import Chosen, class_maps
from heedful.maps.methods import BY_GRADIENTS
from heedful.maps.processing import normalised, upsampled
from heedful.maps.record import last_layers, recorded, require_map

THRESHOLD = 0.55
"""σ of [W], section 4, as a part of the map's maximum."""

SHARPNESS = 100.0
"""ω of [W], section 4."""


def classification_loss(
    logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, "batch *labels"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy of class numbers (N,), or the multi-label soft margin loss of 0 and 1 (N, C): means."""
    if labels.ndim == 2:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # under autocast, bfloat16
        return F.multilabel_soft_margin_loss(logits, labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def separation_loss(
    target_map: Float[Tensor, "batch *rest h w"],
    confusing_map: Float[Tensor, "..."],
    mask: Float[Tensor, "..."],
    *,
    normalise: bool = True,
) -> Float[Tensor, ""]:
    """Return how much the maps of the true and the most confusing class overlap on the mask: L_AS, equation 3 of [W].

    `2 Σ min(A_T, A_C) M / Σ (A_T + A_C)` of each image, in [0, 1], then the mean over images. An image whose maps are
    both 0 everywhere counts as 0.

    Args:
        target_map: A_T (N, h, w), or (N, 1, h, w), at least 0.
        confusing_map: A_C, of the same shape.
        mask: M, of the same shape, in [0, 1]: see `soft_mask`.
        normalise: divide each map by its maximum first. Without it the loss falls when one map merely shrinks.

    Raises:
        InputError: if the shapes differ.
    """
    _require_same_shape(target_map=target_map, confusing_map=confusing_map, mask=mask)
    if normalise:
        target_map, confusing_map = normalised(target_map), normalised(confusing_map)
    overlap = (torch.minimum(target_map, confusing_map) * mask).flatten(1).sum(1)
    return _ratio(2 * overlap, (target_map + confusing_map).flatten(1).sum(1)).mean()


def consistency_loss(
    inner_map: Float[Tensor, "batch *rest h w"],
    mask: Float[Tensor, "..."],
    theta: float = 0.8,
    *,
    hinge: bool = False,
) -> Float[Tensor, ""]:
    """Return θ less the part of the inner layer's map that lies on the last layer's mask: L_AC of [W], equation 5.

    `θ - Σ A M / Σ A` of each image, in [θ - 1, θ], then the mean over images. An image whose map is 0 everywhere counts
    as 0.

    Args:
        inner_map: A (N, h, w), or (N, 1, h, w), at least 0.
        mask: M, of the same shape, in [0, 1].
        theta: θ; 0.8 in [W]. It is a constant in the loss and changes no gradient, but with hinge.
        hinge: ask for no more than θ: negative terms become 0. Not in [W].

    Raises:
        InputError: if the shapes differ.
    """
    _require_same_shape(inner_map=inner_map, mask=mask)
    total = inner_map.flatten(1).sum(1)
    terms = theta - _ratio((inner_map * mask).flatten(1).sum(1), total)
    terms = torch.relu(terms) if hinge else terms
    return torch.where(total > 0, terms, 0).mean()


def soft_mask(
    target_map: Float[Tensor, "batch *rest h w"],
    *,
    size: tuple[int, int] | None = None,
    threshold: float = THRESHOLD,
    sharpness: float = SHARPNESS,
    detach: bool = True,
) -> Float[Tensor, "batch *rest rows columns"]:
    """Return where the map is high, `sigmoid(ω (A - σ))`: equation 4 of [W], with A divided by its maximum.

    Args:
        target_map: A (N, h, w), or (N, 1, h, w), of the last layer, at least 0.
        size: rows and columns of the mask; None: the map's own. The map is enlarged (bilinear) before it is
            thresholded, so that the mask stays sharp.
        threshold: σ as a part of the maximum.
        sharpness: ω.
        detach: whether no gradient goes through the mask. With one, L_AC also falls when the mask grows.
    """
    scaled = normalised(target_map.detach() if detach else target_map)
    scaled = scaled if size is None else upsampled(scaled, size)
    return torch.sigmoid(sharpness * (scaled - threshold))


@dataclass(frozen=True)
class Weights:
    """By what the parts of ICASC are multiplied; [W], equation 6, has 1 for each.

    Args:
        inner: of L_AS at the inner layer.
        last: of L_AS at the last layer.
        consistency: of L_AC.
    """

    inner: float = 1.0
    last: float = 1.0
    consistency: float = 1.0


@dataclass(frozen=True, eq=False)
class Losses:
    """What ICASC says of a batch; the parts are not weighted.

    Args:
        total: to be minimised: classification and the weighted parts, as far as the ramp has brought them.
        classification: cross-entropy, or the multi-label soft margin.
        inner_separation: L_AS at the inner layer.
        last_separation: L_AS at the last layer.
        consistency: L_AC.
        logits: of the model (N, classes).
    """

    total: Float[Tensor, ""]
    classification: Float[Tensor, ""]
    inner_separation: Float[Tensor, ""]
    last_separation: Float[Tensor, ""]
    consistency: Float[Tensor, ""]
    logits: Float[Tensor, "batch classes"]


class ICASC:
    """Classification, attention separation at two layers, and attention consistency: equation 6 of [W].

    One forward pass of the model, in the mode that it has: batch norms count it once. In training mode their gradients
    mix the images of a batch, so that an image's map depends a little on the others. The last layer's map comes without
    a second derivative where the network ends in global average pooling and a linear map. Maps and losses are computed
    in float32 (or float64), outside autocast; the model's own pass is not.

    Args:
        model: from images to logits.
        inner: dotted name of the inner layer; [W]: the end of the last stage but one, after its ReLU. None: found on
            the first batch, see `heedful.maps.record.last_layers`, as is the last.
        last: of the last layer.
        method: of the maps, a name in `heedful.maps.methods.BY_GRADIENTS`: "channel" is [W]'s A_ch, "grad-cam" its
            ICASC_Grad-CAM.
        weights: of the parts.
        start_epoch: epochs, from 0, with the classification loss alone, before the first with attention.
        ramp: epochs over which the parts then rise in a straight line to their weights; 0: at once. `epoch` says where
            training is.
        first_order: take the weights of the inner layer's channels for constants: quicker, and the gradient is then not
            quite the loss's.

    Raises:
        InputError: if the method is unknown, one layer is named without the other or both are the same, or a number is
            negative.
    """

    def __init__(
        self,
        model: nn.Module,
        inner: str | None = None,
        last: str | None = None,
        method: str = "channel",
        weights: Weights = Weights(),  # frozen
        start_epoch: int = 0,
        ramp: int = 0,
        first_order: bool = False,
    ) -> None:
        if method not in BY_GRADIENTS:
            raise unknown("method", method, BY_GRADIENTS)
        if (inner is None) != (last is None):
            raise InputError(f"inner is {inner!r} and last is {last!r}: name both layers, or neither")
        if inner is not None and inner == last:
            raise InputError(f"inner and last are both {inner!r}: name two layers, the inner one before the last")
        if min(start_epoch, ramp, *dataclasses.astuple(weights)) < 0:
            raise InputError(f"start_epoch={start_epoch}, ramp={ramp} and {weights} must not be negative")
        self.model, self.inner, self.last, self.method = model, inner, last, method
        self.weights, self.start_epoch, self.ramp = weights, start_epoch, ramp
        self.first_order = first_order
        self.epoch = 0

    @property
    def strength(self) -> float:
        """What the weights are multiplied by in this epoch, from 0 before `start_epoch` to 1."""
        if self.epoch < self.start_epoch:
            return 0.0
        return min(1.0, (self.epoch - self.start_epoch + 1) / (self.ramp + 1))

    def __call__(
        self, images: Float[Tensor, "batch channels height width"], labels: Int[Tensor, "batch *classes"]
    ) -> Losses:
        """Return the losses of a batch.

        Args:
            images: as the model takes them.
            labels: the true classes (N,), or 0 and 1 for each class (N, classes). Of several true classes there is one
                map, that of the sum of their scores; the confusing class is the most probable that is not true. Images
                without a true class, or without another, count for the classification alone.

        Raises:
            InputError: if gradients are switched off, or a layer puts out no map of at least 4 x 4 places.
        """
        if self.strength == 0:
            logits = self.model(images)
            nothing = logits.new_zeros(())
            classification = classification_loss(logits, labels)
            return Losses(classification, classification, nothing, nothing, nothing, logits)
        if not torch.is_grad_enabled():
            raise InputError("ICASC: gradients are switched off here (no_grad or inference_mode); it is for training")
        inner, last = self._layers(images)
        with recorded(self.model, [inner, last], keep_graph=True) as recording:
            logits = self.model(images)
        for name, output in recording.outputs.items():
            require_map(name, output, images)
        classification = classification_loss(logits, labels)
        true = _multi_hot(labels, logits)
        usable = true.any(1) & ~true.all(1)
        maps = class_maps(
            recording, [inner, last], Chosen(logits, _true_and_confusing(true, logits)), self.method,
            differentiable=True, second_order=not self.first_order,
        )  # fmt: skip
        parts = self._parts(maps[inner][usable], maps[last][usable])
        weights = dataclasses.astuple(self.weights)
        attention = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        return Losses(classification + self.strength * attention, classification, *parts, logits)

    def _layers(self, images: Tensor) -> tuple[str, str]:
        if self.inner is None or self.last is None:
            self.inner, self.last = last_layers(self.model, images)
        return self.inner, self.last

    def _parts(self, inner: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return L_AS inner, L_AS last and L_AC from maps (N, 2, h, w) of the true and the confusing class."""
        if not len(inner):
            nothing = inner.sum()
            return nothing, nothing, nothing
        mask = soft_mask(last[:, 0])
        enlarged = soft_mask(last[:, 0], size=(inner.shape[2], inner.shape[3]))
        return (
            separation_loss(inner[:, 0], inner[:, 1], enlarged),
            separation_loss(last[:, 0], last[:, 1], mask),
            consistency_loss(inner[:, 0], enlarged),
        )


def _multi_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """Return which classes are true, bool (N, classes)."""
    if labels.ndim == 2:
        return labels > 0
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, labels[:, None], True)


def _true_and_confusing(true: Tensor, logits: Tensor) -> Tensor:
    """Return the weights (N, 2, classes) of all scores: the true classes', and the most probable other's."""
    confusing = logits.detach().masked_fill(true, -torch.inf).argmax(1, keepdim=True)
    return torch.stack([true, torch.zeros_like(true).scatter(1, confusing, True)], 1).to(torch.float32)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where the whole is 0."""
    return part / torch.where(whole > 0, whole, 1)


def _require_same_shape(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(f"the shapes differ: {listed}; bring maps and mask to one size (soft_mask has size=)")
