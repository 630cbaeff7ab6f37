"""A module's own forward as a graph in which its children are single nodes, by torch.fx; nothing runs."""

import inspect
from typing import Any

import torch
from torch import fx, nn

ADDITIONS = ("add", "iadd", "add_", "__add__", "__iadd__")
PASS_THROUGH = ("Identity", "DropPath", "StochasticDepth", "Dropout", "Dropout2d", "DropBlock2d", "DropBlockFast2d")
"""Classes of modules that do not change a map's meaning; by name, since timm and torchvision have their own."""
_SAME_PLACES = (
    "relu",
    "relu_",
    "gelu",
    "silu",
    "leaky_relu",
    "mul",
    "mul_",
    "imul",
    "__mul__",
    "dropout",
    "contiguous",
)
"""Functions that work place by place, so that a map behind one is the map before it."""


class _Outside(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def graph_of(module: nn.Module) -> fx.Graph | None:
    """Return the graph of the module's own forward, or None where it depends on the values of its input."""
    attributes, kind = dict(module.__dict__), type(module)
    try:
        # Without decorators: those that check the types of arguments (jaxtyping, beartype) refuse what tracing passes.
        module.__class__ = type(kind.__name__, (kind,), {"forward": inspect.unwrap(kind.forward)})
        return _Outside().trace(module)
    except Exception:  # anything may happen to a forward that is given proxies instead of tensors
        return None
    finally:
        module.__class__ = kind
        module.__dict__.clear()
        module.__dict__.update(attributes)  # a forward that keeps its results must not keep proxies


def graphs_of(model: nn.Module) -> dict[str, tuple[nn.Module, fx.Graph | None]]:
    """Return the graph of every module of the network that has children, by name; modules built alike share one."""
    graphs: dict[tuple[Any, ...], fx.Graph | None] = {}
    found = {}
    for name, module in model.named_modules():
        if module._modules and not isinstance(module, nn.ModuleList):
            signature = _signature(module)
            if signature not in graphs:
                graphs[signature] = graph_of(module)
            found[name] = module, graphs[signature]
    return found


def _signature(module: nn.Module) -> tuple[Any, ...]:
    """Return what two modules share only if their forwards have the same graph."""
    attributes = [
        (name, value if isinstance(value, (bool, int, float, str, type(None))) else id(value))
        for name, value in module.__dict__.items()
        if not name.startswith("_")
    ]
    children = [(name, child if child is None else _signature(child)) for name, child in module._modules.items()]
    return type(module), *attributes, *module._parameters, *module._buffers, *children


def is_addition(node: fx.Node) -> bool:
    """Return whether the node adds two nodes."""
    operands = [argument for argument in node.args if isinstance(argument, fx.Node)]
    return _name(node) in ADDITIONS and len(operands) == 2


def is_concatenation(node: fx.Node) -> bool:
    """Return whether the node concatenates."""
    return node.op == "call_function" and node.target in (torch.cat, torch.concat)


def ancestors(node: fx.Node) -> set[fx.Node]:
    """Return the node and all that it is computed from."""
    found, ahead = {node}, [node]
    while ahead:
        new = [before for before in ahead.pop().all_input_nodes if before not in found]
        found.update(new)
        ahead += new
    return found


def origin(module: nn.Module, node: fx.Node) -> str | None:
    """Return the name of the child that made this map: called by the node, or behind operations that keep its places.

    Children that only drop or pass their input give way to the child before them, where that follows directly.

    Args:
        module: whose graph holds the node.
        node: of a feature map.
    """
    while node.op != "call_module":
        if _name(node) not in _SAME_PLACES:
            return None
        node = node.all_input_nodes[0]
    last = node
    while type(module.get_submodule(str(node.target))).__name__ in PASS_THROUGH and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
        if node.op != "call_module":
            return str(last.target)
    return str(node.target)


def _name(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""
