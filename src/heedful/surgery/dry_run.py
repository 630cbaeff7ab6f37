"""What shapes a network's modules take and put out, found without computing: a forward pass on meta tensors."""

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from heedful.errors import InputError
from heedful.temporary import evaluation_mode, removing

SIDE = 224


class Call(NamedTuple):
    """What a module was given and what it put out: its first positional argument, and its result."""

    given: Any
    result: Any


def outputs(model: nn.Module, names: Collection[str], example: Any = None) -> dict[str, list[Any]]:
    """Return what each named module puts out in one forward pass; arguments and errors are those of `calls`."""
    found = calls(model, names, example)
    return {name: [call.result for call in of_module] for name, of_module in found.items()}


def calls(model: nn.Module, names: Collection[str], example: Any = None) -> dict[str, list[Call]]:
    """Return the calls of each named module in one forward pass, in order.

    Nothing is computed: parameters and input are meta tensors, which have a shape alone, or where the network makes
    tensors of its own, fake ones. A pass that fails after the last of the modules counts: a network made for images of
    another size is not refused for its linear layers. Hooks that the network has run too.

    Args:
        model: any module; run in evaluation mode.
        names: dotted names of its modules.
        example: input of the network; None: one image of 224 x 224 pixels, or of the size that timm gives.

    Raises:
        InputError: if the network cannot run on the example.
    """
    examples = [example] if example is not None else images_for(model)
    errors = []
    for tried in examples:
        for run in (_on_meta, _on_fake):
            found, error = _pass(model, names, functools.partial(run, model, tried))
            if error is None or (found and all(found.values())):
                return found
            errors.append(error)
    raise InputError(
        f"the network cannot run on {_described(examples[0])} ({type(errors[0]).__name__}: {errors[0]}): give "
        "example=, an input on which it runs, or the part that takes images, for example model.backbone"
    )


def images_for(model: nn.Module) -> list[Tensor]:
    """Return empty images on the meta device: with the channels of the network's first convolution, and with three.

    Raises:
        InputError: if the network has no convolution.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    side = config["input_size"][-1] if isinstance(config, dict) and "input_size" in config else SIDE
    widths = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not widths:
        raise InputError("the network has no convolution (nn.Conv2d): there is no place for attention on feature maps")
    return [torch.empty(1, channels, side, side, device="meta") for channels in dict.fromkeys([widths[0], 3])]


def _pass(
    model: nn.Module, names: Collection[str], run: Callable[[], None]
) -> tuple[dict[str, list[Call]], Exception | None]:
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, list[Call]] = {name: [] for name in names}
    hooks = [modules[name].register_forward_hook(functools.partial(_note, seen)) for name, seen in found.items()]
    with removing(hooks), evaluation_mode(model), torch.no_grad():
        try:
            run()
        except Exception as error:  # the network's own code, which may raise anything
            return found, error
    return found, None


def _note(seen: list[Call], _module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
    seen.append(Call(arguments[0] if arguments else None, result))


def _on_meta(model: nn.Module, example: Any) -> None:
    with _without_values(model), _WithoutNorms():
        model(*_mapped(lambda tensor: tensor.to("meta"), example))


class _WithoutNorms(TorchFunctionMode):
    """Batch norm keeps the shape, and on meta tensors takes longer than all the rest of a network."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if function is F.batch_norm else function(*args, **(kwargs or {}))


@contextmanager
def _without_values(model: nn.Module) -> Iterator[None]:
    # Not torch.func.functional_call, which leaves its tensors behind in a module that has two names (torch 2.15).
    holders: list[dict[str, Any]] = [holder for module in model.modules() for holder in _held(module)]
    values = [dict(holder) for holder in holders]
    try:
        for holder in holders:
            holder.update({name: None if tensor is None else tensor.to("meta") for name, tensor in holder.items()})
        yield
    finally:
        for holder, before in zip(holders, values, strict=True):
            holder.update(before)


def _held(module: nn.Module) -> tuple[Any, Any]:
    return module._parameters, module._buffers


def _on_fake(model: nn.Module, example: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    parameters = [*model.parameters(), *model.buffers()]
    device = parameters[0].device if parameters else torch.device("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(*_mapped(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device), example))


def _mapped(function: Callable[[Tensor], Tensor], example: Any) -> tuple[Any, ...]:
    """Return the positional arguments that the example stands for, with the function applied to every tensor."""
    from torch.utils._pytree import tree_map_only

    arguments = example if isinstance(example, tuple) else (example,)
    return tuple(tree_map_only(Tensor, function, arguments))


def _described(example: Any) -> str:
    return f"an input of shape {tuple(example.shape)}" if isinstance(example, Tensor) else "the example"
