"""Gradients of class scores by layers' activations, from one forward pass, and the maps that they give.

Where the scores are a linear map of a layer's means over places (global average pooling, then `nn.Linear`), the
gradient is known: W / Z, the same at every place. Elsewhere one backward pass for each class reaches the first of the
layers.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from heedful.errors import InputError
from heedful.maps.methods import BY_GRADIENTS
from heedful.maps.record import Recording, Reshape
from heedful.surgery.stages import SMALLEST_SIDE

HALF_SCALE = 1024
"""By what scores are multiplied where gradients are float16, which would underflow; the maps are divided by it."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Sums of class scores whose maps are wanted, K for each image.

    Args:
        scores: of all classes (N, C), with their graph.
        which: classes (N, K), or the weights of all classes in each sum, (N, K, C), of a floating-point type.
    """

    scores: Float[Tensor, "batch classes"]
    which: Int[Tensor, "batch chosen"] | Float[Tensor, "batch chosen classes"]

    def columns(self) -> tuple[Tensor, ...]:
        """Return the sums, K tensors (N,)."""
        if self.which.is_floating_point():
            return torch.einsum("nc,nkc->nk", self.scores, self.which.to(self.scores.dtype)).unbind(1)
        return self.scores.gather(1, self.which).unbind(1)

    def of_weights(self, weight: Tensor) -> Tensor:
        """Return by the weights (C, features) of a last linear map the gradients (N, K, features) of the sums."""
        if self.which.is_floating_point():
            return self.which.to(weight.dtype) @ weight
        if self.which.stride(0) == 0:  # the same classes for every image
            return weight[self.which[0]].expand(len(self.which), -1, -1)
        return weight[self.which]


def class_maps(
    recording: Recording,
    layers: Sequence[str],
    chosen: Chosen,
    method: str,
    *,
    reshape: Reshape | None = None,
    differentiable: bool = False,
    second_order: bool = True,
) -> dict[str, Float[Tensor, "batch chosen h w"]]:
    """Return the maps of recorded layers.

    Args:
        recording: of the forward pass that gave the scores.
        layers: whose maps.
        chosen: of what.
        method: a name in `BY_GRADIENTS`.
        reshape: from a layer's output to (N, C, h, w), if it is not so already.
        differentiable: whether the maps keep their graph.
        second_order: whether the gradients are then differentiated too; if not, activations and W are.
    """
    with torch.set_grad_enabled(differentiable), torch.autocast(chosen.scores.device.type, enabled=False):
        known = {} if reshape else {layer: known_gradients(recording, layer, chosen) for layer in layers}
        maps = {
            layer: BY_GRADIENTS[method](recording.outputs[layer], gradients)
            for layer, gradients in known.items()
            if gradients is not None
        }
        rest = [layer for layer in layers if layer not in maps]
        if rest and not chosen.scores.requires_grad:
            raise InputError(f"layer {rest[0]!r}: no gradient of the scores reaches it: the model switches it off")
        outputs = [recording.outputs[layer] for layer in rest]
        with torch.enable_grad():
            sums = [column.sum() for column in chosen.columns()] if rest else []
        found: dict[str, list[Tensor]] = {layer: [] for layer in rest}
        for total in sums:
            gradients = _gradients(total, outputs, create_graph=differentiable and second_order)
            for layer, output, gradient in zip(rest, outputs, gradients, strict=True):
                pair = [tensor if reshape is None else reshape(tensor) for tensor in (widened(output), gradient)]
                found[layer].append(BY_GRADIENTS[method](*pair))
        maps |= {layer: torch.stack(of_classes, dim=1) for layer, of_classes in found.items()}
    return {layer: maps[layer] for layer in layers}


def _gradients(total: Tensor, outputs: list[Tensor], *, create_graph: bool) -> list[Tensor]:
    scale = HALF_SCALE if any(output.dtype == torch.float16 for output in outputs) else 1
    ones = torch.full_like(total, scale)
    gradients = torch.autograd.grad(total, outputs, ones, retain_graph=True, create_graph=create_graph)
    return [widened(gradient) / scale for gradient in gradients]


def known_gradients(recording: Recording, layer: str, chosen: Chosen) -> Tensor | None:
    """Return W / Z for each sum, (N, K, C, 1, 1), if the scores are W · (means over places) + b; else None."""
    output = recording.outputs[layer]
    if output.ndim != 4 or output.dtype not in (torch.float32, torch.float64):
        return None
    means = output.detach().mean((2, 3))
    tolerance = 1000 * torch.finfo(means.dtype).eps * output.detach().abs().mean((2, 3)).max()
    for module, features, result, version in recording.linears:
        same = result is chosen.scores and result._version == version
        same = same and features.shape == means.shape and features.dtype == means.dtype
        # Equal values do not make equal slopes: a second ReLU changes no value that one has passed.
        if same and (features.detach() - means).abs().max() <= tolerance and _is_mean(features, output):
            return chosen.of_weights(module.weight / output.shape[2:].numel())[..., None, None]
    return None


def _is_mean(features: Tensor, output: Tensor) -> bool:
    """Tell by one backward pass through what lies between whether features are the output's means over places."""
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(features.sum(), output, retain_graph=True, allow_unused=True)
    one = 1000 * torch.finfo(output.dtype).eps
    return slope is not None and bool((slope * output.shape[2:].numel() - 1).abs().max() <= one)


def warn_if_coarse(layer: str, activations: Tensor, images: Tensor) -> None:
    """Warn of a map that has a single place, which shows nothing, and say what would help."""
    if activations.shape[-2:].numel() == 1:
        height, width = images.shape[-2:]
        warnings.warn(
            f"layer {layer!r} puts out 1 x 1 places for images of {height} x {width} pixels: a map needs at least "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE}, so give images of {SMALLEST_SIDE * height} x {SMALLEST_SIDE * width} "
            "pixels or an earlier layer",
            stacklevel=4,
        )


def widened(tensor: Tensor) -> Tensor:
    """Return it in float32 at least: maps are sums over many channels."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
