"""The stages of a network: where each resolution of its feature maps ends."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from heedful.surgery.dry_run import outputs
from heedful.temporary import removing

SMALLEST_SIDE = 4
"""Places a side that a map needs to show where something is."""

Finished = tuple[str, tuple[int, int]]
"""A module that put out a feature map, and the map's height and width."""


def stage_ends(finished: Sequence[Finished]) -> list[str]:
    """Return for each resolution the module that ends it, from fine to coarse.

    Of the modules of one resolution these are the outermost, and of them the last: `layer3` of a ResNet, and not the
    first convolution of `layer4`, which runs at that resolution too.

    Args:
        finished: the modules in the order in which they finish.
    """
    ends: dict[tuple[int, int], str] = {}
    for name, size in finished:
        if size not in ends or name.count(".") <= ends[size].count("."):
            ends[size] = name
    return [ends[size] for size in sorted(ends, key=lambda size: size[0] * size[1], reverse=True)]


def own_levels(model: nn.Module) -> tuple[str, ...]:
    """Return the network's own `levels`, names of its modules from early to deep, or none."""
    own = getattr(model, "levels", ())
    modules = dict(model.named_modules())
    return own if isinstance(own, tuple) and all(name in modules for name in own) else ()


@contextmanager
def finishing(model: nn.Module) -> Iterator[list[Finished]]:
    """Within the context, a forward pass fills the list with the modules that put out feature maps, as they finish.

    Of a network that has `levels` of its own only these count. Only the thread that entered is listened to.

    Args:
        model: any module.
    """
    finished: list[Finished] = []
    thread = threading.get_ident()

    def note(name: str, output: object) -> None:
        if threading.get_ident() == thread and isinstance(output, Tensor) and output.ndim == 4:
            height, width = output.shape[2:]
            if min(height, width) >= SMALLEST_SIDE:
                finished.append((name, (height, width)))

    names = own_levels(model) or [name for name, _ in model.named_modules() if name]
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: note(name, out))
        for name in names
    ]
    with removing(hooks):
        yield finished


def levels(model: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Return the layers that attention can look at, early to deep: the network's own `levels`, or its stages' ends.

    Nothing is computed; stages are those whose maps have 4 x 4 places or more.

    Args:
        model: any module.
        example: images (N, C, H, W) of the size that it is used with.

    Raises:
        InputError: if the network cannot run on the example.
    """
    own = own_levels(model)
    if own:
        return own
    with finishing(model) as finished:
        outputs(model, [""], example)
    return tuple(stage_ends(list(dict.fromkeys(finished))))
