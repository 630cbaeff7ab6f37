"""Weights of SE and CBAM to and from the code of others: that of [L]'s authors, of CBAM's authors, and timm's.

Whose is named as in `heedful.layers.conventions`. Biases and batch norm are there or not as that convention says, so a
layer made with it always fits.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.layers.cbam import CBAM, MeanCBAM
from heedful.layers.conventions import CONVENTIONS
from heedful.layers.squeeze_excitation import SqueezeExcitation

_NAMES: dict[str, dict[str, str]] = {
    "laakom-code": {},
    "cbam-code": {
        "mlp.0": "ChannelGate.mlp.1",
        "mlp.2": "ChannelGate.mlp.3",
        "channel.mlp.0": "ChannelGate.mlp.1",
        "channel.mlp.2": "ChannelGate.mlp.3",
        "spatial.conv": "SpatialGate.spatial.conv",
        "spatial.norm": "SpatialGate.spatial.bn",
    },
    "timm": {
        "mlp.0": "fc1",
        "mlp.2": "fc2",
        "channel.mlp.0": "channel.fc1",
        "channel.mlp.2": "channel.fc2",
        "spatial.conv": "spatial.conv.conv",
        "spatial.norm": "spatial.conv.bn",
    },
}
"""Name of a module here -> name there. Keras has a list, in the order in which the layers stand here."""

_Turn = Callable[[Tensor], Tensor]
_KEPT: tuple[_Turn, _Turn] = (lambda w: w, lambda w: w)
_MATRIX: dict[str, tuple[_Turn, _Turn]] = {
    "laakom-code": (lambda w: w.t(), lambda w: w.t()),
    "timm": (lambda w: w[:, :, None, None], lambda w: w[:, :, 0, 0]),
}
"""Convention -> how a weight of the MLP, (out, in) here, is turned into theirs, and back."""
_KERNEL: dict[str, tuple[_Turn, _Turn]] = {
    "laakom-code": (lambda k: k.permute(2, 3, 1, 0), lambda k: k.permute(3, 2, 0, 1)),
}
"""Likewise for the spatial kernel, (out, in, height, width) here."""


def export_weights(layer: nn.Module, convention: str) -> dict[str, Tensor] | list[NDArray[Any]]:
    """Return a layer's weights as the code of others has them; they are copies.

    The gate is no part of them: the other code must be given the same one.

    Args:
        layer: `SqueezeExcitation` or `CBAM`.
        convention: whose code: "laakom-code", "cbam-code" (SE is their `CBAM(pool_types=["avg"], no_spatial=True)`) or
            "timm" (`SEModule`, `CbamModule`).

    Returns:
        A state dict; for "laakom-code" the list of arrays that Keras' `set_weights` takes: each dense layer's kernel
        (in, out) and bias, then the spatial kernel (height, width, in, out).

    Raises:
        InputError: if the layer is of another kind, nobody's code has that name, or the layer has biases or a batch
            norm that the code has not, or the other way round.
    """
    own = _own(layer, convention)
    turned = {key: _turn(layer, key, convention)[0](tensor).contiguous().clone() for key, tensor in own.items()}
    if convention == "laakom-code":
        return [tensor.cpu().numpy() for tensor in turned.values()]
    return {_name(key, convention): tensor for key, tensor in turned.items()}


def import_weights(layer: nn.Module, weights: Mapping[str, Tensor] | Sequence[NDArray[Any]], convention: str) -> None:
    """Give a layer the weights of others' code, in place, all or none; it keeps its gate.

    Args:
        layer: `SqueezeExcitation` or `CBAM`, for example made with the same convention.
        weights: what `export_weights` returns, from the code of others.
        convention: whose code, as for `export_weights`.

    Raises:
        InputError: as `export_weights`, or if weights are missing, superfluous or of another shape.
    """
    own = _own(layer, convention)
    given = _given(weights, [_name(key, convention) for key in own], convention)
    turned = []
    for (key, tensor), foreign in zip(own.items(), given, strict=True):
        there, back = _turn(layer, key, convention)
        if foreign.shape != there(tensor).shape:
            raise InputError(
                f"weights: {_name(key, convention) or key!r} is {tuple(foreign.shape)}, but this layer needs "
                f"{tuple(there(tensor).shape)}: make it with the same channels, reduction and kernel_size"
            )
        turned.append(back(foreign))
    with torch.no_grad():
        for tensor, foreign in zip(own.values(), turned, strict=True):
            tensor.copy_(foreign)


def _own(layer: nn.Module, convention: str) -> dict[str, Tensor]:
    """Return the layer's weights by their names, less the gates', if the code has the same."""
    if convention not in _NAMES:
        raise unknown("code with weights", convention, _NAMES)
    if not isinstance(layer, (SqueezeExcitation, CBAM)) or isinstance(layer, MeanCBAM):
        raise InputError(
            f"the layer is a {type(layer).__name__}, but only SqueezeExcitation and CBAM have weights in others' code"
        )
    if isinstance(layer, CBAM):
        preset = CONVENTIONS[convention]
        _agree(convention, "biases in the MLP", layer.channel.mlp[0].bias is not None, preset.cbam_bias)
        normed = isinstance(layer.spatial.norm, nn.modules.batchnorm._BatchNorm)
        _agree(convention, "a batch norm in the spatial half", normed, preset.norm_momentum is not None)
    return {key: tensor for key, tensor in layer.state_dict().items() if "gate." not in key}


def _agree(convention: str, what: str, here: bool, there: bool) -> None:
    if here != there:
        has, has_not = (f"{convention} has", "this layer has not") if there else ("this layer has", f"{convention} not")
        raise InputError(f"{has} {what}, {has_not}: make the layer with convention={convention!r}")


def _turn(layer: nn.Module, key: str, convention: str) -> tuple[_Turn, _Turn]:
    if key.endswith(("mlp.0.weight", "mlp.2.weight")):
        return _MATRIX.get(convention, _KEPT)
    if key != "spatial.conv.weight":
        return _KEPT
    there, back = _KERNEL.get(convention, _KEPT)
    assert isinstance(layer, CBAM), layer
    if layer.spatial.pools == CONVENTIONS[convention].pools:
        return there, back
    return lambda k: there(k.flip(1)), lambda k: back(k).flip(1)


def _name(key: str, convention: str) -> str:
    module, _, tensor = key.rpartition(".")
    return f"{_NAMES[convention][module]}.{tensor}" if _NAMES[convention] else ""


def _given(weights: Any, names: list[str], convention: str) -> list[Tensor]:
    """Return the foreign weights in the order of the layer's own."""
    if convention == "laakom-code":
        if isinstance(weights, Mapping) or len(weights) != len(names):
            raise InputError(
                f"weights: {convention} needs a list of {len(names)} arrays, as Keras' get_weights returns, "
                f"but got a {type(weights).__name__} of {len(weights)}"
            )
        return [torch.as_tensor(np.asarray(array)) for array in weights]
    if not isinstance(weights, Mapping):
        raise InputError(f"weights: {convention} needs a state dict, but got a {type(weights).__name__}")
    missing, superfluous = sorted(set(names) - set(weights)), sorted(set(weights) - set(names))
    if missing or superfluous:
        raise InputError(
            f"weights: missing {', '.join(missing) or 'nothing'}, superfluous {', '.join(superfluous) or 'nothing'}; "
            "give the part of the state dict that belongs to the layer, with names from there on"
        )
    return [weights[name] for name in names]
