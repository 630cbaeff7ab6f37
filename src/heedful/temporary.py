"""What is done to a network for a while and undone, also after an exception: evaluation mode, hooks, attributes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of the model into evaluation mode, and on leaving each into the mode that it had."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter of the model require a gradient, and on leaving again those that did."""
    thawed = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in thawed:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)


@contextmanager
def removing(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks on leaving."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def exchanged(attributes: Sequence[tuple[nn.Module, str, Any]]) -> Iterator[None]:
    """Give attributes of modules another value, and on leaving the one that they had.

    A child module is covered, not removed: the order of the module's children and parameters stays.

    Args:
        attributes: module, name of an attribute that it has, value for the time of the context.
    """
    before = [(module, name, module.__dict__.get(name, _CHILD)) for module, name, _ in attributes]
    try:
        for module, name, value in attributes:
            module.__dict__[name] = value
        yield
    finally:
        for module, name, value in before:
            module.__dict__.pop(name, None)
            if value is not _CHILD:
                module.__dict__[name] = value


_CHILD = object()


def exchange(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute for good, also where a child module gives way to a plain value or the other way round."""
    delattr(module, name)
    setattr(module, name, value)
