"""Class-specific maps of any network: several layers and classes from one forward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.maps.classes import Top, chosen
from heedful.maps.gradient_free import GRADIENT_FREE
from heedful.maps.gradients import Chosen, class_maps, warn_if_coarse, widened
from heedful.maps.methods import BY_GRADIENTS
from heedful.maps.record import Recording, Reshape, recorded, undisturbed, unwrapped

METHODS = (*BY_GRADIENTS, *GRADIENT_FREE)
"""Names of the methods; `docs/maps.md` says when to use which."""


@dataclass(frozen=True, eq=False)
class Explained:
    """Maps with what they are of.

    Args:
        maps: layer -> (N, K, h, w).
        classes: the class of each map, (N, K).
        scores: of all classes (N, classes): the logits, or what `score` made of them.
    """

    maps: dict[str, Float[Tensor, "batch chosen h w"]]
    classes: Int[Tensor, "batch chosen"]
    scores: Float[Tensor, "batch classes"]


def attention_maps(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    *,
    layers: Sequence[str | nn.Module],
    classes: Int[Tensor, "rows *classes"] | Top | None = None,
    method: str = "grad-cam",
    score: Callable[[Any], Tensor] | None = None,
    reshape: Reshape | None = None,
    differentiable: bool = False,
) -> dict[str, Float[Tensor, "batch chosen h w"]]:
    """Return the map of every layer, image and class, from one forward pass of the model in evaluation mode.

    The model comes back as it was: mode, hooks, `requires_grad`, `.grad`, running statistics. What `torch.compile` made
    of it runs eagerly meanwhile; of `DataParallel` and `DistributedDataParallel` the network within is taken.

    Args:
        model: from images to logits (N, number of classes).
        images: as the model takes them, normalised.
        layers: modules, or their dotted names, e.g. `["layer3", "layer4"]`.
        classes: for each image one class, (N,), or several, (N, K), or `top(k)`; None: all of them.
        method: a name in `METHODS`.
        score: from what the model puts out to the numbers (N, classes) to explain, for models that do not put out
            logits: the mean logit of a region in segmentation, a box's score, the similarity to another embedding.
        reshape: from a layer's output to (N, C, h, w), for transformers; it is applied to the gradient too.
        differentiable: keep the graph, for a loss on the maps: gradients of the maps are exact, of second order
            included. The model then stays in the mode that it has (batch norms in training mode mix the images'
            gradients, and count the pass), and its trunk keeps its graph.

    Returns:
        For each layer, under the name that it has in the model, a tensor (N, K, h, w) at the layer's resolution,
        float32 or float64, not normalised; detached unless `differentiable`.

    Raises:
        InputError: for an unknown layer or method, a layer that puts out no feature map, is called twice or not at all,
            classes out of range or not one row for each image, images with NaN or infinite values, or `differentiable`
            where gradients are switched off or the method has none.
    """
    return explained(
        model,
        images,
        layers=layers,
        classes=classes,
        method=method,
        score=score,
        reshape=reshape,
        differentiable=differentiable,
    ).maps


def explained(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    *,
    layers: Sequence[str | nn.Module],
    classes: Int[Tensor, "rows *classes"] | Top | None = None,
    method: str = "grad-cam",
    score: Callable[[Any], Tensor] | None = None,
    reshape: Reshape | None = None,
    differentiable: bool = False,
) -> Explained:
    """Return the maps with their classes and the scores, from the same pass; arguments and errors: `attention_maps`."""
    _check(images, method, differentiable)
    network = unwrapped(model)
    names = list(dict.fromkeys(_name(network, layer) for layer in layers))
    with recorded(network, names, keep_graph=differentiable) as recording:
        # A clone, since what was made in inference mode can have no part in a backward pass.
        images = images.clone() if images.is_inference() else images
        output = network(images)
        scores = _scores(output if score is None else score(output), len(images))
        which = chosen(_every_class(scores) if classes is None else classes, scores)
        for name in names:
            _check_layer(name, recording, reshape)
            warn_if_coarse(name, _grid(recording.outputs[name], reshape), images)
        if method in BY_GRADIENTS:
            wanted = Chosen(scores, which)
            maps = class_maps(recording, names, wanted, method, reshape=reshape, differentiable=differentiable)
    if method in GRADIENT_FREE:
        activations = {name: _grid(recording.outputs[name].detach(), reshape) for name in names}
        maps = _gradient_free(network, images, activations, which, method, score)
    return Explained(maps, which, scores if differentiable else scores.detach())


def _check(images: Tensor, method: str, differentiable: bool) -> None:
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if not len(images):
        raise InputError("there is no image to explain")
    finite = images.isfinite().flatten(1).all(1)
    if not finite.all():
        raise InputError(f"image {int((~finite).int().argmax())} holds NaN or infinite values: mend it or leave it out")
    if differentiable and method in GRADIENT_FREE:
        raise InputError(f"differentiable: {method} has no gradient; choose one of {', '.join(BY_GRADIENTS)}")
    if differentiable and not torch.is_grad_enabled():
        raise InputError("differentiable: gradients are switched off here (no_grad or inference_mode)")


def _name(network: nn.Module, layer: str | nn.Module) -> str:
    if isinstance(layer, str):
        return layer
    names = [name for name, module in network.named_modules() if module is layer]
    if not names or not names[0]:
        raise InputError(f"layers: the {type(layer).__name__} that was given is no module within the model")
    return names[0]


def _scores(scores: Any, num_images: int) -> Tensor:
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != num_images:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"the class scores are {found}, but must be a tensor ({num_images}, classes): give score=")
    return scores


def _every_class(scores: Tensor) -> Tensor:
    return torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)


def _check_layer(name: str, recording: Recording, reshape: Reshape | None) -> None:
    if name not in recording.outputs:
        raise InputError(f"layer {name!r} was not reached in the forward pass: choose another layer")
    shape = tuple(_grid(recording.outputs[name], reshape).shape)
    if len(shape) != 4:
        repair = "choose another layer, or give reshape="
        raise InputError(f"layer {name!r} puts out {shape}, which is no feature map (N, C, H, W): {repair}")


def _grid(output: Tensor, reshape: Reshape | None) -> Tensor:
    return output if reshape is None else reshape(output)


def _gradient_free(
    network: nn.Module,
    images: Tensor,
    activations: dict[str, Tensor],
    classes: Tensor,
    method: str,
    score: Callable[[Any], Tensor] | None,
) -> dict[str, Tensor]:
    def scorer(masked: Tensor) -> Tensor:
        output = network(masked)
        return output if score is None else score(output)

    with undisturbed(network):
        return {
            name: GRADIENT_FREE[method](widened(found), classes, images, scorer) for name, found in activations.items()
        }
