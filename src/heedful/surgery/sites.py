"""Where attention goes in a network: found by its structure, or chosen by name, pattern, stage or predicate.

By structure, in this order:

1. Residual networks: the end of each residual branch, before the addition. A residual block is a module whose forward,
   traced with torch.fx, adds two things made from the same input; the branch is the one with more convolutions, or
   larger ones. Blocks of the same class that change the width and so add nothing get it at their end.
2. Networks of concatenating blocks (DenseNet, Inception, SqueezeNet): the end of each block, and of each transition.
3. Plain networks: after each convolution with the norm and the activation that follow it.

A network can name its own: an attribute `attention_sites`, names of modules on whose output attention stands.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from torch import fx, nn

from heedful.errors import InputError, unknown
from heedful.surgery.tracing import ancestors, graphs_of, is_addition, is_concatenation, origin

Sites = str | Sequence[str] | Callable[[str, nn.Module], bool]


def output_sites(model: nn.Module, sites: Sites | None = None) -> list[str]:
    """Return the names of the modules on whose output attention is put.

    Args:
        model: any module.
        sites: None: by structure. A name or several, in which `*` stands for any part between dots: a module in which
            sites by structure lie (a block, a stage) stands for these, any other for itself. Or a predicate of a
            module's name and the module.

    Raises:
        InputError: if nothing is found, a name is unknown or occurs twice, or a site lies within another.
    """
    chosen = [_innermost(model, name, -1) for name in choose(model, sites, by_structure)]
    _refuse_twice(chosen)
    _refuse_nested(chosen)
    return chosen


def input_sites(model: nn.Module, sites: Sites | None) -> list[str]:
    """Return the names of the modules before which attention is put: no structure says where, so all are named.

    Args:
        model: any module.
        sites: as for `output_sites`, but each name stands for itself; a sequence stands for its first module.

    Raises:
        InputError: if there are none, a name is unknown or occurs twice, or a site lies within another.
    """
    chosen = [_innermost(model, name, 0) for name in choose(model, sites, lambda _: [])]
    if not chosen:
        raise InputError("before=True: name with sites= the modules before which attention shall stand")
    _refuse_twice(chosen)
    _refuse_nested(chosen)
    return chosen


def choose(model: nn.Module, sites: Sites | None, structural: Callable[[nn.Module], list[str]]) -> list[str]:
    """Return the names that `sites` stands for, given what the structure of the network says.

    Raises:
        InputError: if a name is unknown or the predicate is true for no module.
    """
    if sites is None:
        return structural(model)
    if callable(sites):
        chosen = [name for name, module in model.named_modules() if name and sites(name, module)]
        if not chosen:
            raise InputError("sites: the predicate is true for no module of the network")
        return chosen
    return _named(model, [sites] if isinstance(sites, str) else list(sites), structural(model))


def by_structure(model: nn.Module) -> list[str]:
    """Return the sites that the structure of the network gives; see above."""
    named = getattr(model, "attention_sites", None)
    if named is not None:
        return list(named)
    graphs = graphs_of(model)
    found = _residual(model, graphs) or _concatenating(model, graphs) or _plain(model, graphs)
    if not found:
        raise InputError(
            "no place for attention was found in the network: it has no convolution (nn.Conv2d) that a forward pass "
            "reaches by itself; name modules that put out feature maps with sites="
        )
    return found


def residual_blocks(model: nn.Module) -> list[str]:
    """Return the names of the modules that add a shortcut to a branch with convolutions."""
    return [name for name, (module, graph) in graphs_of(model).items() if _branch(module, graph) is not None]


Graphs = dict[str, tuple[nn.Module, "fx.Graph | None"]]


def _residual(model: nn.Module, graphs: Graphs) -> list[str]:
    branches = {name: _branch(module, graph) for name, (module, graph) in graphs.items()}
    blocks = {name for name, branch in branches.items() if branch is not None}
    innermost = {name for name in blocks if not any(other.startswith(_inside(name)) for other in blocks - {name})}
    classes = {type(graphs[name][0]) for name in innermost}
    children = {name: branches[name] for name in innermost}
    for name, (module, graph) in graphs.items():
        if type(module) in classes and name not in blocks:
            children[name] = _end(module, graph)
    return [_inside(name) + str(children[name]) for name in graphs if children.get(name) is not None]


def _branch(module: nn.Module, graph: "fx.Graph | None") -> str | None:
    """Return the child at the end of the residual branch; None if the module adds no shortcut."""
    for node in reversed(graph.nodes) if graph is not None else ():
        if is_addition(node):
            first, second = (ancestors(operand) for operand in node.all_input_nodes)
            sizes = [_size(module, first - second), _size(module, second - first)]
            given = any(operand.op == "placeholder" for operand in node.all_input_nodes)  # as an argument of its own
            if (first & second or given) and sizes[0] != sizes[1]:
                return origin(module, node.all_input_nodes[sizes[1] > sizes[0]])
    return None


def _concatenating(model: nn.Module, graphs: Graphs) -> list[str]:
    blocks = [
        name
        for name, (module, graph) in graphs.items()
        if name and graph is not None and is_concatenation(_returned(graph)) and _convolutions(module)
    ]
    outer = [name for name in blocks if not any(name.startswith(_inside(other)) for other in blocks)]
    transitions = {name for name, module in model.named_modules() if type(module).__name__.endswith("Transition")}
    return [name for name, _ in model.named_modules() if name in outer or (outer and name in transitions)]


def _plain(model: nn.Module, graphs: Graphs) -> list[str]:
    found = {}
    for name, (module, graph) in graphs.items():
        called = [node for node in graph.nodes if node.op == "call_module"] if graph is not None else []
        calls = Counter(str(node.target) for node in called)
        for node in called:
            if isinstance(module.get_submodule(str(node.target)), nn.Conv2d):
                found[_inside(name) + str(node.target)] = _inside(name) + _last_of_block(module, node, calls)
    # A convolution in a forward that could not be traced stands for itself.
    return [found.get(name, name) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def _last_of_block(module: nn.Module, node: fx.Node, calls: "Counter[str]") -> str:
    """Return the child that ends what a convolution begins: the norm and the activation after it, if used only here."""
    name = str(node.target)
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op != "call_module" or calls[str(node.target)] > 1:
            break
        follower = module.get_submodule(str(node.target))
        if not _is_norm_or_activation(follower):
            break
        name = str(node.target)
    return name


def _is_norm_or_activation(module: nn.Module) -> bool:
    kind = type(module)
    return "Norm" in kind.__name__ or (
        kind.__module__ in ("torch.nn.modules.activation", "timm.layers.activations") and not _convolutions(module)
    )


def _end(module: nn.Module, graph: "fx.Graph | None") -> str | None:
    return None if graph is None or not _convolutions(module) else origin(module, _returned(graph))


def _returned(graph: fx.Graph) -> fx.Node:
    returned = next(node for node in reversed(graph.nodes) if node.op == "output").args[0]
    return returned if isinstance(returned, fx.Node) else next(iter(graph.nodes))


def _size(module: nn.Module, nodes: Iterable[fx.Node]) -> tuple[int, int]:
    """Return the number of convolutions that the nodes call, and of their weights: a projection has fewer."""
    targets = [str(node.target) for node in nodes if node.op == "call_module"]
    found = [convolution for target in targets for convolution in _convolutions(module.get_submodule(target))]
    return len(found), sum(convolution.weight.numel() for convolution in found)


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [child for child in module.modules() if isinstance(child, nn.Conv2d)]


def _named(model: nn.Module, names: list[str], structural: list[str]) -> list[str]:
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    chosen = []
    for name in names:
        pattern = re.compile(re.escape(name).replace(r"\*", "[^.]*"))
        matched = [module for module in modules if pattern.fullmatch(module)]
        if not matched:
            raise unknown("site", name, modules)
        for match in matched:
            within = [site for site in structural if site.startswith(_inside(match))]
            chosen += within or [match]
    return chosen


def _innermost(model: nn.Module, name: str, end: int) -> str:
    """Return the first or last module of a sequence, end 0 or -1, not itself: its forward takes all children alike."""
    module = model.get_submodule(name)
    while type(module).forward is nn.Sequential.forward and len(module) > 0:  # type: ignore[arg-type]
        child = list(module._modules)[end]
        name, module = f"{name}.{child}", module.get_submodule(child)
    return name


def _inside(name: str) -> str:
    return f"{name}." if name else ""


def _refuse_twice(names: list[str]) -> None:
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise InputError(f"sites: {twice[0]!r} occurs twice: name each module once")


def _refuse_nested(names: list[str]) -> None:
    for name in names:
        outer = [other for other in names if name.startswith(_inside(other))]
        if outer:
            raise InputError(f"sites: {name!r} lies within {outer[0]!r}: choose one of them")
