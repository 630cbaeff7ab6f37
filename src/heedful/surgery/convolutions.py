"""Which convolutions of a network give way to ones with attention: found by structure, or chosen by the user.

By structure, after Zhu et al. (ICANN 2021), sections 3.4 and 4.1:

1. In residual networks the convolutions larger than 1x1 in the blocks (of a bottleneck, its 3x3).
2. In networks of depthwise separable convolutions (MobileNet, EfficientNet) the pointwise convolution behind the
   depthwise one, in every second block; where linear layers stand for it (ConvNeXt), the depthwise ones.
3. Elsewhere every convolution larger than 1x1 but the network's first.
"""

from typing import Any

from torch import nn

from heedful.errors import InputError
from heedful.surgery.dry_run import outputs
from heedful.surgery.sites import Sites, choose, residual_blocks


def convolution_sites(model: nn.Module, sites: Sites | None = None, example: Any = None) -> list[str]:
    """Return the names of the convolutions that get attention on their weights.

    Args:
        model: any module.
        sites: as for `heedful.surgery.sites.output_sites`; a module that holds no convolution by structure must be a
            plain one, or hold a single one.
        example: see `heedful.surgery.dry_run.outputs`.

    Raises:
        InputError: if nothing is found, or something that was named is no plain `nn.Conv2d`.
    """
    plain = {name for name, module in model.named_modules(remove_duplicate=False) if type(module) is nn.Conv2d}
    if not plain:
        raise InputError("the network has no plain convolution (nn.Conv2d) whose weights could be attended")
    chosen = choose(model, sites, lambda model: by_structure(model, example))
    if callable(sites):
        chosen = [name for name in chosen if name in plain]
    chosen = [_single(name, plain) for name in chosen]
    for name in chosen:
        if name not in plain:
            kind = type(model.get_submodule(name)).__name__
            raise InputError(f"sites: {name!r} is a {kind}, but attention on weights needs a plain nn.Conv2d")
    if not chosen:
        raise InputError("no convolution was found whose weights could be attended: name some with sites=")
    return list(dict.fromkeys(chosen))


def _single(name: str, plain: set[str]) -> str:
    """Return the only plain convolution within a module, or else the module's own name."""
    within = [convolution for convolution in plain if convolution.startswith(f"{name}.")]
    return within[0] if len(within) == 1 else name


def by_structure(model: nn.Module, example: Any = None) -> list[str]:
    """Return the convolutions that the structure gives; see above."""
    convolutions = {name: module for name, module in model.named_modules() if type(module) is nn.Conv2d}
    spatial = [name for name, convolution in convolutions.items() if _is_spatial(convolution)]
    depthwise = [name for name, convolution in convolutions.items() if _is_depthwise(convolution)]
    blocks = tuple(f"{name}." for name in residual_blocks(model) if name)
    return (
        [name for name in spatial if name.startswith(blocks)]
        or _pointwise(model, convolutions, set(depthwise), example)[1::2]
        or depthwise
        or [name for name in spatial if name != next(iter(convolutions))]
    )


def _pointwise(
    model: nn.Module, convolutions: dict[str, nn.Conv2d], depthwise: set[str], example: Any
) -> list[str]:  # fmt: skip
    """Return, for each depthwise convolution, the pointwise one that takes its maps."""
    if not depthwise:
        return []
    found, ahead = [], None
    shapes = outputs(model, list(convolutions), example)
    for name, convolution in convolutions.items():
        if name in depthwise:
            ahead = convolution.out_channels
        # A convolution to 1x1 places belongs to an attention that is there already.
        elif convolution.kernel_size == (1, 1) and ahead == convolution.in_channels and _has_places(shapes[name]):
            found.append(name)
            ahead = None
    return found


def _has_places(calls: list[Any]) -> bool:
    return bool(calls) and calls[0].shape[2:].numel() > 1


def _is_spatial(convolution: nn.Conv2d) -> bool:
    return max(convolution.kernel_size) > 1 and not _is_depthwise(convolution)


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    return convolution.groups == convolution.in_channels > 1
