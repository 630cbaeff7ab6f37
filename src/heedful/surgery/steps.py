"""Run a network from layer to layer: it stops at each, gives what the layer put out, and goes on with what it is given.

The forwards of the network itself and of the modules in which the layers stand are run node by node of their graphs;
everything else is called as it is. Hooks of those opened modules do not run, and what their forwards write to
attributes is not written; of the layers and of all others both are.
"""

import weakref
from collections.abc import Collection, Generator
from typing import Any

from torch import fx, nn

from heedful.errors import InputError
from heedful.surgery.tracing import graph_of


def steps(model: nn.Module, layers: Collection[str], x: Any) -> Generator[Any, Any, None]:
    """Yield what each layer puts out, in the order in which the network runs them, and last what the network does.

    After each layer the network goes on with what is sent: `steps.send(features)`.

    Args:
        model: any module whose forward takes one input and does not depend on the values of it.
        layers: dotted names of its modules; none: the network is called as it is.
        x: the input.

    Raises:
        InputError: if a forward cannot be run node by node.
    """
    yield (yield from _walk(model, layers, x)) if layers else model(x)


def order_of(model: nn.Module, layers: Collection[str]) -> list[str]:
    """Return the layers as often and in the order in which `steps` would stop at them; nothing runs.

    Raises:
        InputError: if a forward cannot be run node by node.
    """
    found: list[str] = []
    for node in _graph(model).nodes if layers else ():
        if node.op == "call_module":
            child = str(node.target)
            inside = _inside(child, layers)
            if inside:
                found += [f"{child}.{name}" for name in order_of(model.get_submodule(child), inside)]
            found += [child] if child in layers else []
    return found


def _walk(module: nn.Module, layers: Collection[str], x: Any) -> Generator[Any, Any, Any]:
    """Yield the layers' outputs, and return the module's."""
    interpreter = fx.Interpreter(module, graph=_graph(module))
    interpreter.args_iter = iter([x])
    result = None
    for node in interpreter.graph.nodes:
        child = str(node.target) if node.op == "call_module" else ""
        inside = _inside(child, layers)
        if inside:
            given, _ = interpreter.fetch_args_kwargs_from_env(node)
            result = yield from _walk(module.get_submodule(child), inside, *given)
        else:
            result = interpreter.run_node(node)
        if child in layers:
            result = yield result
        interpreter.env[node] = result
        for used in interpreter.user_to_last_uses.get(node, []):
            del interpreter.env[used]
    return result


def _inside(child: str, layers: Collection[str]) -> list[str]:
    return [name.removeprefix(f"{child}.") for name in layers if child and name.startswith(f"{child}.")]


_graphs: weakref.WeakKeyDictionary[nn.Module, dict[tuple[type, bool], fx.Graph]] = weakref.WeakKeyDictionary()
"""A forward such as `dropout(x, training=self.training)` has a graph for each mode."""


def _graph(module: nn.Module) -> fx.Graph:
    of_module = _graphs.setdefault(module, {})
    key = type(module), module.training
    if key not in of_module:
        of_module[key] = _checked(module, graph_of(module))
    return of_module[key]


def _checked(module: nn.Module, graph: fx.Graph | None) -> fx.Graph:
    """Return the graph if it can be run with one input."""
    why = _obstacle(module, graph)
    if graph is None or why:
        raise InputError(
            f"the network cannot be stopped inside {type(module).__name__}, whose forward {why}: choose a layer that "
            "stands elsewhere, or put what lies before and behind the layer into an nn.Sequential"
        )
    return graph


def _obstacle(module: nn.Module, graph: fx.Graph | None) -> str:
    if graph is None:
        return "depends on the values or the shape of its input"
    num_inputs = sum(node.op == "placeholder" for node in graph.nodes)
    if num_inputs != 1:
        # A forward may ask which of them it was given (`if mask is None`), which its graph does not tell.
        return f"takes {num_inputs} inputs"
    constants = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    known = {*dict(module.named_parameters()), *dict(module.named_buffers())}
    return "makes tensors of its own" if not known.issuperset(constants) else ""
