"""The notation for what is put into a network, as in the papers' tables: `none`, `se`, `cbam-ign1(0.5)`, `se+cbam`.

    variant = "none" | part {"+" part}        part = layer ["-" gate]        gate = name ["(" number ")"]

A part without a gate attends. What is parsed prints back. Where networks are trained, the name of what they are trained
for may follow: `se@icasc`.
"""

import re
from dataclasses import dataclass

from heedful.errors import InputError, unknown
from heedful.gates import GATES, Gate, attend
from heedful.layers import CONVOLUTIONS, LAYERS

_PART = re.compile(r"(?P<layer>\w+)(?:-(?P<gate>\w+)(?:\((?P<argument>[^()]*)\))?)?")


@dataclass(frozen=True)
class Part:
    """One attention layer with its gate: `se-ign3` is `Part("se", ign3)`."""

    layer: str
    gate: Gate

    def __str__(self) -> str:
        return self.layer if self.gate == attend else f"{self.layer}-{self.gate!r}"


@dataclass(frozen=True)
class Variant:
    """What is put into a network: attention layers in the order in which they are applied; none of them is `none`."""

    parts: tuple[Part, ...] = ()

    def __str__(self) -> str:
        return "+".join(map(str, self.parts)) or "none"


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
    return Variant(tuple(_parse_part(part, text) for part in compact.split("+")))


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
    known = [*LAYERS, *CONVOLUTIONS]
    if match["layer"] not in known:
        raise unknown("attention layer", match["layer"], ["none", *known], where=f"variant {text!r}: ")
    return Part(match["layer"], _parse_gate(match["gate"] or "attend", match["argument"], text))


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
