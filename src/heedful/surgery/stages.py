"""The stages of a network: where each resolution of its feature maps ends."""

from collections.abc import Sequence

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
    """Return the network's own `levels`, names of layers from early to deep, or none."""
    own = getattr(model, "levels", ())
    return own if isinstance(own, tuple) and all(isinstance(name, str) for name in own) else ()


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
    finished: list[Finished] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= SMALLEST_SIDE:
            finished.append((name, (output.shape[2], output.shape[3])))

    modules = {name: module for name, module in model.named_modules() if name}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: note(name, out)) for name, module in modules.items()
    ]
    with removing(hooks):
        outputs(model, [""], example)
    return tuple(stage_ends(list(dict.fromkeys(finished))))
