"""Record what layers of a network put out, so that maps can be computed from it: the one place with forward hooks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.temporary import evaluation_mode, removing

SMALLEST_SIDE = 4


@contextmanager
def recorded(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within the context, a forward pass of the model in evaluation mode fills the dict that this yields.

    No gradient is carried below the first of the layers to be reached: the trunk before it runs without a graph, its
    output becomes a leaf, and the graph starts there. Works under `no_grad` and `inference_mode`, and with frozen
    parameters. On leaving, also by an exception, hooks, training mode and gradient mode are as they were.

    Args:
        model: any module.
        layers: dotted names of modules whose output is one tensor (N, C, H, W).

    Raises:
        InputError: if a name is not among the model's modules, or a layer's output is no feature map.
    """
    modules = dict(model.named_modules())
    for layer in layers:
        if layer not in modules:
            raise unknown("layer", layer, [name for name in modules if name])
    activations: dict[str, Tensor] = {}

    def keep(layer: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise InputError(f"layer {layer!r} does not put out a feature map (N, C, H, W): choose another layer")
        if not activations:
            torch.set_grad_enabled(True)
            output = output.detach().requires_grad_()
        activations[layer] = output
        return output.clone()  # what follows may write into its input, as an in-place ReLU does

    hooks = [modules[name].register_forward_hook(lambda _m, _i, out, name=name: keep(name, out)) for name in layers]
    # no_grad restores the mode that `keep` changes; outside of inference mode, since its tensors can have no gradient
    with removing(hooks), evaluation_mode(model), torch.inference_mode(False), torch.no_grad():
        yield activations


def last_layer(model: nn.Module, images: Tensor) -> str:
    """Return the name of the module that finishes last with a feature map of at least 4 x 4 places.

    For networks that end in pooling and a linear map this is the last stage, where class maps are usually taken, unless
    the images are so small that a map from there would show nothing: then it is an earlier one.

    Args:
        model: any module.
        images: one or more images (N, C, H, W) to run it on.

    Raises:
        InputError: if no module puts out such a feature map.
    """
    finished: list[str] = []

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= SMALLEST_SIDE:
            finished.append(name)

    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: note(name, out))
        for name, module in model.named_modules()
        if name
    ]
    with removing(hooks), evaluation_mode(model), torch.no_grad():
        model(images)
    if not finished:
        raise InputError("no module of this network puts out a feature map (N, C, H, W) of at least 4 x 4 places")
    return finished[-1]
