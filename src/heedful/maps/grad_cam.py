"""Class-specific maps from recorded activations and gradients: Grad-CAM (Selvaraju et al., ICCV 2017)."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.maps.record import recorded


def grad_cam(
    activations: Float[Tensor, "batch channels h w"], gradients: Float[Tensor, "batch channels h w"]
) -> Float[Tensor, "batch h w"]:
    """Return relu(Σ_k w_k A_k), with w_k the mean over places of the gradient of the class score by A_k.

    Equation 1 of Wang et al. 2019, "Sharpen Focus"; at least 0, not normalised.

    Args:
        activations: output A of a layer.
        gradients: gradient of each image's class score (before the softmax) by A.
    """
    weights = gradients.mean((2, 3), keepdim=True)
    return torch.relu((weights * activations).sum(1))


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"grad-cam": grad_cam}
"""Name -> function of (activations, gradients)."""


def attention_maps(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    *,
    layers: Sequence[str],
    classes: Int[Tensor, "rows ..."],
    method: str = "grad-cam",
) -> dict[str, Float[Tensor, "batch classes h w"]]:
    """Return the map of every layer, image and class, from one forward pass of the model in evaluation mode.

    The model comes back as it was: mode, hooks, `requires_grad`, `.grad`, running statistics.

    Args:
        model: from images to logits (N, number of classes).
        images: as the model takes them, normalised.
        layers: dotted names of modules, e.g. `["layer3"]`.
        classes: for each image one class, (N,), or several, (N, K).
        method: a name in `METHODS`.

    Returns:
        For each layer a tensor (N, K, h, w) at the layer's resolution, detached, at least 0, not normalised.

    Raises:
        InputError: for an unknown layer or method, or classes whose number of rows is not the number of images.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if len(classes) != len(images):
        raise InputError(f"classes has {len(classes)} rows for {len(images)} images: give one row for each image")
    maps: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with recorded(model, layers) as activations:
        scores = model(images)
        if missing := [layer for layer in layers if layer not in activations]:
            raise InputError(f"layer {missing[0]!r} was not reached in the forward pass: choose another layer")
        # a clone, since what was made in inference mode cannot be saved for the backward pass
        for column in classes.reshape(len(images), -1).clone().unbind(1):
            chosen = scores.gather(1, column[:, None]).sum()
            gradients = torch.autograd.grad(chosen, [activations[layer] for layer in layers], retain_graph=True)
            for layer, gradient in zip(layers, gradients, strict=True):
                maps[layer].append(METHODS[method](activations[layer], gradient).detach())
    return {layer: torch.stack(found, dim=1) for layer, found in maps.items()}
