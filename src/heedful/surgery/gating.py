"""The gates in a network, heedful's and others': where logits become weights; found, counted, exchanged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import Gate, Opening, fresh
from heedful.surgery.dry_run import outputs
from heedful.temporary import exchange, exchanged

_OTHERS = {
    "timm.layers.squeeze_excite": "gate",
    "timm.layers.eca": "gate",
    "timm.layers.cbam": "gate",
    "timm.layers.global_context": "gate",
    "timm.layers.gather_excite": "gate",
    "timm.layers.coord_attn": "gate",
    "timm.models._efficientnet_blocks": "gate",
    "torchvision.ops.misc": "scale_activation",
}
"""Module of a class that is not ours -> the attribute that holds its gate."""


class Gated(NamedTuple):
    """A place where logits become weights."""

    name: str
    module: nn.Module
    attribute: str

    @property
    def gate(self) -> Callable[[Tensor], Tensor]:
        """What makes weights of logits there now."""
        return getattr(self.module, self.attribute)

    @property
    def neutral(self) -> float:
        """The weight at which the module changes nothing."""
        return float(getattr(self.module, "neutral", 1.0))


def gates_of(model: nn.Module) -> list[Gated]:
    """Return every gate of the network, in the order of its modules: heedful's, timm's and torchvision's.

    A user's own layer counts if it has the method `logits` and the attribute `gate`.
    """
    found = []
    for name, module in model.named_modules():
        attribute = "gate" if hasattr(module, "logits") else _OTHERS.get(type(module).__module__, "")
        if attribute and hasattr(module, attribute):
            found.append(Gated(name, module, attribute))
    return found


def set_gate(model: nn.Module, gate: Gate, *, example: Any = None) -> int:
    """Give every gate of the network the same function, in place, all or none; return how many there are.

    Attention that was attached with `start="identity"` keeps its opening. An SE network of timm's or torchvision's,
    pretrained or not, becomes one that ignores; some of these have a piecewise linear gate ("hard sigmoid"), for which
    `attend`, σ, is another function too.

    Args:
        model: any module.
        gate: logits to weights.
        example: an input of the network, with which is checked that every gate is used; None: an image.

    Raises:
        InputError: if the network has no gate, or a module would ignore its gate (timm's `LightChannelAttn`).
    """
    gates = gates_of(model)
    if not gates:
        raise InputError("the network has no gate: no attention of heedful's, timm's or torchvision's is in it")
    places = [(g.gate, "gate") if isinstance(g.gate, Opening) else (g.module, g.attribute) for g in gates]
    idle = unused(model, gates, [gated.name for gated in gates], example)
    if idle:
        kinds = sorted({f"{gated.name} ({type(gated.module).__name__})" for gated in idle})
        raise InputError(f"these modules do not use their gate, so none was changed: {', '.join(kinds)}")
    for module, attribute in places:
        like = next(model.parameters(), None)
        exchange(module, attribute, fresh(gate, None if like is None else like.device))
    return len(places)


class Counted:
    """A gate that counts its calls."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        self.gate = gate
        self.num_calls = 0

    def __call__(self, logits: Tensor, *_: Any) -> Tensor:
        """Return the gate's weights."""
        self.num_calls += 1
        return self.gate(logits)


def unused(model: nn.Module, gates: list[Gated], names: Sequence[str], example: Any = None) -> list[Gated]:
    """Return those of the gates that a forward pass without computing does not call.

    Args:
        model: the network.
        gates: of the network or of modules in it.
        names: modules of the network which the pass must reach.
        example: see `heedful.surgery.dry_run.outputs`, whose errors this has.
    """
    with counted(gates) as counts:
        outputs(model, names, example)
    return [gated for gated, count in zip(gates, counts, strict=True) if count.num_calls == 0]


@contextmanager
def counted(gates: list[Gated]) -> Iterator[list[Counted]]:
    """Within the context, count the calls of each gate; yields the counts, in the gates' order."""
    counts = [Counted(gated.gate) for gated in gates]
    with exchanged([(g.module, g.attribute, count) for g, count in zip(gates, counts, strict=True)]):
        yield counts
