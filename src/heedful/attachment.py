"""Put a variant's attention into a network that exists, and take it out again: in place, all or nothing."""

import dataclasses
import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import Opening
from heedful.layers import CONVOLUTIONS, LAYERS
from heedful.surgery import attended
from heedful.surgery.convolutions import convolution_sites
from heedful.surgery.dry_run import calls
from heedful.surgery.gating import Gated, gates_of, unused
from heedful.surgery.sites import Sites, input_sites, output_sites
from heedful.variant import Part, Variant, parse

Start = Literal["identity", "paper"]
_MARK = "__module__"
"""Attribute of a convolution that became one with attention; by it torch.fx goes on taking it as one call."""


@dataclass(frozen=True)
class Site:
    """A place that has got attention, in its child `attention`, or `before` if its input is attended.

    Args:
        name: of the module whose output or input is attended, or of the convolution whose weights are.
        variant: what was put there, in the notation.
        channels: of the feature map there.
        height: of the map, for the image that the network was tried on.
        width: likewise.
    """

    name: str
    variant: str
    channels: int
    height: int
    width: int


def attach(
    model: nn.Module,
    variant: str | Variant,
    *,
    sites: Sites | None = None,
    start: str = "identity",
    reduction: int | None = None,
    convention: str | None = None,
    before: bool = False,
    example: Any = None,
) -> list[Site]:
    """Put attention into a network, pretrained or not: in place, all or nothing; no key of its state dict changes.

    Layers stand on the output of modules: at the end of residual branches, of concatenating blocks, or in plain
    networks after each convolution with its norm and activation (`heedful.surgery.sites` says how they are found). `aw`
    and `sk` take the place of convolutions (`heedful.surgery.convolutions`). Nothing is computed: shapes come from a
    pass on meta tensors. Frozen parameters stay frozen; those of the attention are trained. [Z] is Zhu et al., "An
    Attention Module for Convolutional Neural Networks", ICANN 2021.

    Args:
        model: any `nn.Module` with convolutions.
        variant: what to put in, in the notation.
        sites: where, instead of by structure: a name, pattern (`*` is any part between dots) or stage, several of them,
            or a predicate of a module's name and the module. A block or a stage stands for the sites within.
        start: `identity`: the network computes what it did, and training opens the attention from there (see
            `heedful.gates.Opening`). `paper`: the layers as the papers begin with them.
        reduction: channels divided by the hidden width of the layers that have one; None: each layer's own.
        convention: whose `se` and `cbam`, see `heedful.layers.conventions`; None: the papers'.
        before: layers stand before the modules that `sites` then must name, in whose forward pass they attend the first
            argument: [Z], section 4.2. `aw` and `sk` are in the convolutions all the same.
        example: an input of the network, for one that does not run on an image of 224 x 224 pixels.

    Returns:
        The sites with their shapes, in the order of the network's modules.

    Raises:
        InputError: if there is no place for it, one was named twice or lies within another, a module there is called
            more than once in a forward pass, an option fits no layer, the network is scripted or quantised, or it has
            attention from here already. The network is then as it was.
    """
    variant = parse(variant) if isinstance(variant, str) else variant
    options = {"reduction": reduction, "convention": convention}
    _check(model, variant, start, options)
    if not variant.parts:
        return []
    replaced, places = _places(model, variant, sites, before, example)
    appended = Variant(tuple(part for part in variant.parts if part.layer in LAYERS))
    layers = {site.name: _layers(appended, site, model, options) for site in places}
    put_in: list[tuple[nn.Module, nn.Module]] = []  # host and attention
    try:
        for site, part in replaced:
            convolution = model.get_submodule(site.name)
            assert isinstance(convolution, nn.Conv2d)
            CONVOLUTIONS[part.layer].put_into(convolution, gate=part.gate, **_accepted(part.layer, options))
            setattr(convolution, _MARK, nn.Conv2d.__module__)
            put_in.append((convolution, convolution.get_submodule("attention")))
        for name, layer in layers.items():
            attended.put(model.get_submodule(name), layer, before=before)
            put_in.append((model.get_submodule(name), layer))
        if start == "identity":
            for host, attention in put_in:
                _open(gates_of(attention), _like(model, host))
        # Not the gates of the hosts: a block can hold attention of its own, and convolutions that have got some.
        gates = [gated for _, attention in put_in for gated in gates_of(attention)]
        sites_found = [*places, *(site for site, _ in replaced)]
        idle = unused(model, gates, [site.name for site in sites_found], example)
        assert not idle, f"put in but not called: {idle}"
    except BaseException:
        for host, _ in put_in:
            _restore(host)
        raise
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    return sorted(sites_found, key=lambda site: order[site.name])


def detach(model: nn.Module) -> int:
    """Take out all that `attach` put in, and return from how many places: the network and its keys are as before.

    Parameters that were trained meanwhile stay trained; the attention's are gone.

    Raises:
        InputError: if the network has no such attention.
    """
    with_attention = _attended(model)
    if not with_attention:
        raise InputError("the network has no attention that heedful.attach put into it")
    return sum(_restore(module) for module in with_attention)


def _attended(model: nn.Module) -> list[nn.Module]:
    # A convolution with attention that the user's own code made has no mark.
    return [module for module in model.modules() if isinstance(module, _HOSTS) or _MARK in vars(module)]


_HOSTS = (attended.Attended, attended.Preceded)


def _restore(module: nn.Module) -> int:
    """Take out what was put into the module, and return how much: a convolution can have it within and before it."""
    is_host, is_marked = isinstance(module, _HOSTS), _MARK in vars(module)
    if is_host:
        attended.take(module)
    if is_marked:
        module.take_out()  # type: ignore[operator]
        delattr(module, _MARK)
    return is_host + is_marked


def _check(model: nn.Module, variant: Variant, start: str, options: Mapping[str, Any]) -> None:
    if start not in ("identity", "paper"):
        raise InputError(f"start is {start!r}, but it must be identity or paper")
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) or ".quantized" in type(module).__module__:
            kind = type(module).__name__
            raise InputError(f"the network is scripted or quantised ({kind}): attach to what it was made from")
    if _attended(model):
        raise InputError(
            "the network has attention from heedful.attach already: heedful.detach(model) takes it out; several layers "
            "at once are written like se+cbam"
        )
    if variant.fusion is not None:
        raise InputError(
            f"variant {str(variant)!r} fuses networks of several streams: heedful.TwoStream(streams, fusion=...) makes "
            "one of them"
        )
    if variant.pay is not None:
        raise InputError(
            f"variant {str(variant)!r}: {variant.pay} stands around a network, not in it: heedful.build gives such a "
            "network, and heedful.PayAttention(model, layers) makes one of yours"
        )
    replacing = [part.layer for part in variant.parts if part.layer in CONVOLUTIONS]
    if len(replacing) > 1:
        raise InputError(f"variant {str(variant)!r}: a convolution can become {' or '.join(replacing)}, not both")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - fitting(variant, **given).keys():
        raise InputError(f"{name}={given[name]!r}: no layer of {str(variant)!r} has it; leave it out")


def _places(
    model: nn.Module, variant: Variant, sites: Sites | None, before: bool, example: Any
) -> tuple[list[tuple[Site, Part]], list[Site]]:
    """Return the convolutions with the part that each becomes, and the places of the other layers."""
    replaced = {
        name: part
        for part in variant.parts
        if part.layer in CONVOLUTIONS
        for name in convolution_sites(model, sites, example)
    }
    appended = "+".join(str(part) for part in variant.parts if part.layer in LAYERS)
    places = (input_sites if before else output_sites)(model, sites) if appended else []
    twice = replaced.keys() & set(places)
    if twice and not before:
        raise InputError(
            f"variant {str(variant)!r}: {min(twice)!r} cannot take all of it: name other places with sites="
        )
    _check_free(model, places, attended.BEFORE if before else attended.BEHIND)
    seen = calls(model, [*replaced, *places], example)
    strict = sites is not None
    convolutions = {name: _site(name, [call.result for call in seen[name]], strict=strict) for name in replaced}
    hosts = [
        _site(name, [call.given if before else call.result for call in seen[name]], strict=strict, before=before)
        for name in places
    ]
    if (appended and not any(hosts)) or (replaced and not any(convolutions.values())):
        raise InputError("no module puts out feature maps (N, C, H, W) just once: name some that do with sites=")
    return (
        [
            (dataclasses.replace(site, variant=str(replaced[name])), replaced[name])
            for name, site in convolutions.items()
            if site
        ],
        [dataclasses.replace(site, variant=appended) for site in hosts if site],
    )


def _check_free(model: nn.Module, places: list[str], child: str) -> None:
    for name in places:
        if hasattr(model.get_submodule(name), child):
            raise InputError(f"sites: {name!r} has an attribute {child!r} of its own already: choose another module")


def _site(name: str, maps: list[Any], *, strict: bool, before: bool = False) -> Site | None:
    """Return the place, or None where attention cannot or need not stand: an error if the user named it."""
    is_map = len(maps) == 1 and isinstance(maps[0], Tensor) and maps[0].ndim == 4
    if is_map and (strict or maps[0].shape[2:].numel() > 1):
        return Site(name, "", *maps[0].shape[1:])
    if not strict:
        return None
    if len(maps) != 1:
        raise InputError(f"sites: {name!r} is called {len(maps)} times in a forward pass, but must be called once")
    does = "take a feature map (N, C, H, W) first" if before else "put out a feature map (N, C, H, W)"
    raise InputError(f"sites: {name!r} does not {does}: choose another module")


def _layers(variant: Variant, site: Site, model: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    like = _like(model, model.get_submodule(site.name))
    layers = [
        LAYERS[part.layer](
            site.channels, gate=part.gate, device=like.device, dtype=like.dtype, **_accepted(part.layer, options)
        )
        for part in variant.parts
    ]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _like(model: nn.Module, place: nn.Module) -> Tensor:
    """Return a parameter whose device and type the attention at this place takes: the place's own, or the network's."""
    candidates = itertools.chain(place.parameters(), model.parameters())
    return next((tensor for tensor in candidates if tensor.is_floating_point()), torch.empty(0))


def fitting(variant: Variant, **options: Any) -> dict[str, Any]:
    """Return those of the options that a layer of the variant has; all for a variant without layers."""
    parts = variant.parts
    return {name: value for name, value in options.items() if not parts or any(_takes(p.layer, name) for p in parts)}


def _accepted(layer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and _takes(layer, name)}


def _takes(layer: str, option: str) -> bool:
    taking = LAYERS[layer] if layer in LAYERS else CONVOLUTIONS[layer].attention_class
    return option in inspect.signature(taking).parameters


def _open(gates: Sequence[Gated], like: Tensor) -> None:
    for gated in gates:
        opening = Opening(gated.gate, gated.neutral).train(gated.module.training)
        setattr(gated.module, gated.attribute, opening.to(like.device, like.dtype))
