"""Where and how streams are fused: read from what a user gives, and checked before anything is changed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.models.pay_attention import LastLinear, last_linear
from heedful.surgery.dry_run import outputs
from heedful.surgery.stages import own_levels
from heedful.surgery.steps import order_of

Depth = Mapping[str, str]
"""Where streams meet: name of a stream -> dotted name of its layer."""


class Looked(NamedTuple):
    """What was found of a stream: the channels of its layers, and what its linear maps and itself put out."""

    widths: dict[str, int]
    linears: dict[str, list[Any]]
    results: list[Any]


def looked(name: str, stream: nn.Module, at: Sequence[Depth], example: Any) -> Looked:
    """Look at a stream in one pass that computes nothing.

    Args:
        name: of the stream.
        stream: a network.
        at: the depths.
        example: an input of the stream; None: of its `input_shape`, or an image.

    Raises:
        InputError: if the stream cannot run on it or be stopped at its layers, they are not in the order in which it
            runs, or it puts out something else than feature maps there and logits at its end.
    """
    layers = [depth[name] for depth in at if name in depth]
    linears = [inner for inner, module in stream.named_modules() if isinstance(module, nn.Linear)]
    try:
        stops = order_of(stream, layers)
        found = outputs(stream, [*layers, *linears, ""], _example(stream) if example is None else example)
    except InputError as error:
        raise InputError(f"stream {name!r}: {error}") from None
    if stops != layers:
        raise InputError(
            f"stream {name!r}: the layers are {', '.join(layers)}, but a pass comes by {', '.join(stops) or 'none'}: "
            "name each once, in this order"
        )
    if any(not isinstance(found[layer][0], Tensor) or found[layer][0].ndim < 2 for layer in layers):
        raise InputError(f"stream {name!r}: not all of {', '.join(layers)} put out one tensor (N, C, ...)")
    result = found[""][0]
    if not isinstance(result, Tensor) or result.ndim != 2:
        raise InputError(f"stream {name!r}: the network does not put out logits (N, classes)")
    widths = {layer: found[layer][0].shape[1] for layer in layers}
    return Looked(widths, {inner: found[inner] for inner in linears}, found[""])


def _example(stream: nn.Module) -> Tensor | None:
    shape: Any = getattr(stream, "input_shape", None)
    if shape is None and not any(isinstance(module, nn.Conv2d) for module in stream.modules()):
        raise InputError("it has no input_shape and takes no image: give examples= with an input of it, for its widths")
    return None if shape is None else torch.empty(1, *shape, device="meta")


def ending(stream: nn.Module, found: Looked) -> LastLinear:
    """Return the linear map in which a stream ends.

    Raises:
        InputError: if it ends in something else.
    """
    return last_linear(dict(stream.named_modules()), found.linears, found.results)


def num_classes_of(found: Mapping[str, Looked]) -> int:
    """Return the number of classes.

    Raises:
        InputError: if the streams differ in it.
    """
    numbers = {name: each.results[0].shape[1] for name, each in found.items()}
    if len(set(numbers.values())) > 1:
        raise InputError(
            f"the streams must have the same classes, but their numbers are: "
            f"{', '.join(f'{name} {number}' for name, number in numbers.items())}"
        )
    return next(iter(numbers.values()))


def depths(streams: Mapping[str, nn.Module], at: Sequence[Depth] | None) -> list[dict[str, str]]:
    """Return the depths, each with its streams in their order.

    Raises:
        InputError: if there is none, or one has less than two streams or names what is not there.
    """
    if at is None:
        levels = {name: own_levels(stream) for name, stream in streams.items()}
        number = min(map(len, levels.values()))
        at = [{name: own[len(own) - number + i] for name, own in levels.items()} for i in range(number)]
    if not at or min(map(len, at)) < 2:
        raise InputError(
            f"at is {list(at)!r}, but it must have one depth or more, each with a layer of two streams or more, like "
            '[{"skeleton": "conv5", "inertial": "layer2"}]; only networks with `levels` of their own need none'
        )
    for depth in at:
        for name, layer in depth.items():
            if name not in streams:
                raise unknown("stream", name, streams, where="at: ")
            modules = dict(streams[name].named_modules())
            if layer not in modules or not layer:
                raise unknown("layer", layer, [module for module in modules if module], where=f"stream {name!r}: ")
    return [{name: depth[name] for name in streams if name in depth} for depth in at]


def check(streams: Mapping[str, nn.Module], examples: Mapping[str, Any], drop: float) -> None:
    """Check the arguments of a network of several streams.

    Raises:
        InputError: if there are too few streams, one's name cannot be used, or `drop` is out of range.
    """
    if len(streams) < 2:
        raise InputError(f"there are {len(streams)} streams, but it takes two or more to fuse")
    for name in streams:
        if not name.isidentifier() or hasattr(nn.ModuleDict, name):
            raise InputError(f"a stream cannot be called {name!r}: choose a plain word, like skeleton")
    for name in examples:
        if name not in streams:
            raise unknown("stream", name, streams, where="examples: ")
    if not 0 <= drop <= 1:
        raise InputError(f"drop is {drop}, but it must be in [0, 1]: the share of elements that lack a stream")
