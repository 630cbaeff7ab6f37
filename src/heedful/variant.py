"""The notation for what is put into a network, as in the papers' tables: `none`, `se`, `cbam-ign1(0.5)`, `se+cbam`.

    variant = "none" | part {"+" part} ["+" pay] | pay | fusion
    part = layer ["-" gate]        gate = name ["(" number ")"]
    pay = "pay" number of levels "-" compatibility ["-indep"] ["-" gate]
    fusion = "late" | "concat" | "mmtm" ["-" gate]

A part without a gate attends, and so does `mmtm`; `pay` without one has a softmax over the places. A fusion is for
networks of several streams. What is parsed prints back. Where networks are trained, the name of what they are trained
for may follow: `se@icasc`.
"""

import re
from dataclasses import dataclass

from heedful.errors import InputError, unknown
from heedful.gates import GATES, Gate, attend
from heedful.layers import CONVOLUTIONS, LAYERS
from heedful.layers.pay_attention import COMPATIBILITIES, softmax

_PAY = re.compile(r"pay\d*(-|$)")
_GATE = re.compile(r"(?P<gate>\w+)(?:\((?P<argument>[^()]*)\))?")
_PART = re.compile(rf"(?P<layer>\w+)(?:-{_GATE.pattern})?")

FUSIONS = ("late", "concat", "mmtm")
"""How networks of several streams become one, see `heedful.models.two_stream.TwoStream`; `mmtm` takes a gate."""


@dataclass(frozen=True)
class Part:
    """One attention layer with its gate: `se-ign3` is `Part("se", ign3)`."""

    layer: str
    gate: Gate

    def __str__(self) -> str:
        return self.layer if self.gate == attend else f"{self.layer}-{self.gate!r}"


@dataclass(frozen=True)
class Pay:
    """Classification by attended features alone ([J]): `pay2-pc` is `Pay(2, "pc")`, see `heedful.PayAttention`.

    Args:
        num_levels: at so many of the network's levels, the deepest ones.
        compatibility: a name in `heedful.layers.pay_attention.COMPATIBILITIES`.
        head: "concat" or "indep".
        gate: `softmax` or any of heedful's gates.
    """

    num_levels: int
    compatibility: str
    head: str = "concat"
    gate: Gate = softmax

    def __str__(self) -> str:
        words = [f"pay{self.num_levels}", self.compatibility]
        words += [self.head] if self.head != "concat" else []
        return "-".join(words if self.gate == softmax else [*words, repr(self.gate)])


@dataclass(frozen=True)
class Fusion:
    """How several streams become one result: `mmtm-ign3` is `Fusion("mmtm", ign3)`.

    Args:
        name: in `FUSIONS`.
        gate: of MMTM; the others have none.
    """

    name: str
    gate: Gate = attend

    def __str__(self) -> str:
        return self.name if self.gate == attend else f"{self.name}-{self.gate!r}"


@dataclass(frozen=True)
class Variant:
    """What is put into a network: attention layers in the order in which they are applied; none of them is `none`.

    Args:
        parts: the layers.
        pay: what the network then classifies with, if not with its own last linear map.
        fusion: of several streams; it stands alone.
    """

    parts: tuple[Part, ...] = ()
    pay: Pay | None = None
    fusion: Fusion | None = None

    def __str__(self) -> str:
        return "+".join(map(str, [*self.parts, *filter(None, [self.pay, self.fusion])])) or "none"


def parse(text: str) -> Variant:
    """Return the variant that `text` denotes; upper case and spaces do not matter.

    Raises:
        InputError: for an unknown layer or gate (the message names the nearest), a missing or superfluous number, a
            number outside the gate's range, or an objective.
    """
    compact = _compact(text)
    if "@" in compact:
        raise InputError(f"variant {text!r}: what follows @ says how to train a network; leave it out here")
    if compact == "none":
        return Variant()
    *parts, last = compact.split("+")
    fusions = [part for part in [*parts, last] if part.partition("-")[0] in FUSIONS]
    if parts and fusions:
        raise InputError(f"variant {text!r}: {fusions[0]} fuses the streams of a network and stands alone")
    if fusions:
        return Variant(fusion=parse_fusion(text))
    if _PAY.match(last):
        return Variant(tuple(_parse_part(part, text) for part in parts), _parse_pay(last, text))
    return Variant(tuple(_parse_part(part, text) for part in [*parts, last]))


def parse_fusion(text: str) -> Fusion:
    """Return how several streams are fused; upper case and spaces do not matter.

    Raises:
        InputError: for an unknown fusion or gate, or a gate where there is none.
    """
    name, _, gate = _compact(text).partition("-")
    named = _GATE.fullmatch(gate or "attend")
    if name not in FUSIONS or named is None:
        raise unknown("fusion", text, [*FUSIONS, "mmtm-ign1(0.5)"])
    if gate and name != "mmtm":
        raise InputError(f"variant {text!r}: {name} has no gate; write {name}, or mmtm-{gate}")
    return Fusion(name, _parse_gate(named["gate"], named["argument"], text))


def split_objective(text: str) -> tuple[str, str | None]:
    """Return the variant and the objective of a text such as `se@icasc`; None for one without.

    Raises:
        InputError: if there are several objectives, or none after the @.
    """
    layers, *objectives = _compact(text).split("@")
    if len(objectives) > 1 or objectives == [""]:
        raise InputError(f"variant {text!r}: write one @ and one objective after it, like se@icasc")
    return layers, objectives[0] if objectives else None


def _compact(text: str) -> str:
    return re.sub(r"\s", "", text.lower())


def _parse_part(part: str, text: str) -> Part:
    match = _PART.fullmatch(part)
    if match is None:
        raise InputError(f"variant {text!r}: cannot read {part!r}; write a layer, then its gate, like se-ign1(0.5)")
    if _PAY.match(part):
        raise InputError(f"variant {text!r}: {part} decides what the network ends in, so write it last")
    known = [*LAYERS, *CONVOLUTIONS]
    if match["layer"] not in known:
        names = ["none", *known, *(f"pay2-{name}" for name in COMPATIBILITIES), *FUSIONS]
        raise unknown("attention layer", match["layer"], names, where=f"variant {text!r}: ")
    return Part(match["layer"], _parse_gate(match["gate"] or "attend", match["argument"], text))


def _parse_pay(part: str, text: str) -> Pay:
    match = re.fullmatch(r"pay(?P<levels>[1-9])-(?P<compatibility>[a-z]+)(?P<head>-indep)?(?:-(?P<gate>.+))?", part)
    if match is None:
        raise InputError(f"variant {text!r}: cannot read {part!r}; write levels and compatibility, like pay2-pc")
    if match["compatibility"] not in COMPATIBILITIES:
        raise unknown("compatibility", match["compatibility"], COMPATIBILITIES, where=f"variant {text!r}: ")
    head, gate = "indep" if match["head"] else "concat", softmax
    if match["gate"] is not None:
        named = _GATE.fullmatch(match["gate"])
        if named is None:
            raise InputError(f"variant {text!r}: cannot read {match['gate']!r}; write a gate, like pay2-pc-ign1(0.5)")
        gate = _parse_gate(named["gate"], named["argument"], text)
    return Pay(int(match["levels"]), match["compatibility"], head, gate)


def _parse_gate(name: str, argument: str | None, text: str) -> Gate:
    if name not in GATES:
        raise unknown("gate", name, GATES, where=f"variant {text!r}: ")
    gate = GATES[name]
    if isinstance(gate, Gate):
        if argument is not None:
            raise InputError(f"variant {text!r}: the gate {name} takes no number; write {name}")
        return gate
    if not argument:
        raise InputError(f"variant {text!r}: the gate {name} needs its number, like {name}(0.5)")
    try:
        return gate(argument)
    except InputError as error:
        raise InputError(f"variant {text!r}: {error}") from None
