"""What a network says of images before it names classes: the input of its last linear map."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.maps.record import undisturbed
from heedful.temporary import removing


def features(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Float32[Tensor, "images dimension"]:
    """Return for each image what goes into the network's last linear map, in evaluation mode, on the CPU.

    Of several such maps, as `PayAttention` with the head "indep" has one a level, the inputs stand one behind the
    other; of a map that is a convolution, it is the mean of the input over the places.

    Args:
        model: from images to logits.
        batches: (images, labels), on the model's device, that can be iterated over more than once; labels are unused.

    Raises:
        InputError: if the network has no linear map.
    """
    images, _ = next(iter(batches))
    maps = [model.get_submodule(name) for name in last_maps(model, images[:1])]
    seen: list[Tensor] = []
    hooks = [module.register_forward_pre_hook(lambda _m, inputs: seen.append(_vector(inputs[0]))) for module in maps]
    rows = []
    with removing(hooks), undisturbed(model):
        for images, _ in batches:
            seen.clear()
            model(images)
            rows.append(torch.cat(seen, 1).float().cpu())
    return torch.cat(rows)


def last_maps(model: nn.Module, images: Float[Tensor, "batch channels height width"]) -> list[str]:
    """Return the names of the linear maps that the network ends in, in the order in which they are called.

    They are the linear maps of one vector an image, and the convolutions, that are met first on the ways back from the
    output: mostly a single one.

    Args:
        model: any module that puts out one tensor.
        images: one or more to run it on.

    Raises:
        InputError: if there is none.
    """
    called: dict[Any, str] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        fits = inputs[0].ndim == (2 if isinstance(module, nn.Linear) else 4)
        if fits and output.grad_fn is not None:
            called[output.grad_fn] = name

    # Subclasses too, such as timm's; as the first of its hooks, `note` sees what the module itself put out.
    hooks = [
        module.register_forward_hook(lambda module, x, y, name=name: note(name, module, x, y), prepend=True)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    with removing(hooks), undisturbed(model), torch.enable_grad():
        output = model(images.detach().requires_grad_().clone())
    met = _first_met(output.grad_fn, called)
    if not met:
        raise InputError("the network has no linear map and no convolution, before which features could be taken")
    return [name for name in dict.fromkeys(called.values()) if name in met]


def _first_met(last: Any, called: Mapping[Any, str]) -> set[str]:
    """Return which of these nodes of the autograd graph are met first, on any way back from the last one."""
    met, visited, waiting = set(), set(), [last]
    while waiting:
        node = waiting.pop()
        if node in called:
            met.add(called[node])
        elif node is not None and node not in visited:
            visited.add(node)
            waiting += [before for before, _ in node.next_functions]
    return met


def _vector(values: Tensor) -> Tensor:
    return values.mean((2, 3)) if values.ndim == 4 else values
