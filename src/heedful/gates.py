"""Gates turn logits into weights in [0, 1]: attend (explicit attention) or ignore (implicit), after [L].

[L] is Laakom et al., "Learning to ignore: rethinking attention in CNNs", BMVC 2021 (arXiv:2111.05684).

`ign1(1)` and `ign3` are the same function, and `ign3` is `attend` with the sign of the logits turned: under a
symmetric initialisation a network with either learns the same, in distribution, as one with `attend`. What differs in
kind is a weight bounded away from 0: `ign1(α)` with α < 1, and `ign2`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError


@dataclass(frozen=True, repr=False)
class Gate:
    """A function from logits to weights: it prints as its notation, pickles and compares by value.

    Args:
        function: takes the logits, then `arguments`; its name, less the leading underscore, is the gate's.
        arguments: numbers fixed when the gate was made, e.g. α.
        variation: how α changes during training; None: it does not.
    """

    function: Callable[..., Tensor]
    arguments: tuple[float, ...] = ()
    variation: "Learned | Scheduled | None" = None

    def __call__(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the weights, in [0, 1], of the logits' shape and type."""
        return self.function(logits, *self.arguments)

    def __repr__(self) -> str:
        name = self.function.__name__.lstrip("_")
        if self.variation is not None:
            return f"{name}({self.variation.notation(*self.arguments)})"
        return f"{name}({', '.join(map(_printed, self.arguments))})" if self.arguments else name


@dataclass(frozen=True)
class Learned:
    """α is a parameter of each layer, which starts at the gate's α and stays in (0, 1)."""

    def notation(self, alpha: float) -> str:
        """Return what stands in the brackets of the gate's notation."""
        return "learned" if alpha == LEARNED_FROM else f"learned{_printed(alpha)}"

    def module(self, alpha: float) -> nn.Module:
        """Return a layer's own gate."""
        return LearnedIgn1(alpha)


@dataclass(frozen=True)
class Scheduled:
    """α goes from the gate's α to `end`, in a straight line over the training (see `advance`)."""

    end: float

    def notation(self, alpha: float) -> str:
        """Return what stands in the brackets of the gate's notation."""
        return f"{_printed(alpha)}to{_printed(self.end)}"

    def module(self, alpha: float) -> nn.Module:
        """Return a layer's own gate."""
        return ScheduledIgn1(alpha, self.end)


class LearnedIgn1(nn.Module):
    """`ign1` whose α is learned: σ of a parameter, so that it stays in (0, 1).

    Args:
        alpha: at the start, in (0, 1).
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        # By math: in float32 an α close to 1 would be 1, and its logit infinite.
        self.logit_alpha = nn.Parameter(torch.tensor(math.log(alpha) - math.log1p(-alpha)))

    @property
    def alpha(self) -> Tensor:
        """How far a weight can fall, in (0, 1)."""
        return torch.sigmoid(self.logit_alpha)

    def forward(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 1 - α σ(z)."""
        return _ign1(logits, self.alpha.to(logits.dtype))


class ScheduledIgn1(nn.Module):
    """`ign1` whose α moves from `start` to `end` as training goes on; what it has reached is saved with the network.

    Args:
        start: α before the first step, in (0, 1].
        end: α in the last epoch, in (0, 1].
    """

    alpha: Tensor

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end
        self.register_buffer("alpha", torch.tensor(float(start)))

    def advance(self, progress: float) -> None:
        """Set α to where the schedule is after this part of the training, in [0, 1]."""
        self.alpha.fill_(self.start + (self.end - self.start) * progress)

    def forward(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 1 - α σ(z)."""
        return _ign1(logits, self.alpha.to(logits.dtype))


class Opening(nn.Module):
    """A gate that lets everything pass at first: `neutral + opening * (gate(z) - neutral)`, `opening` learned from 0.

    At 0 the layer changes nothing, to the bit, and only `opening` has a gradient; at 1 it is the paper's layer.

    Args:
        gate: logits to weights.
        neutral: the weight at which the layer changes nothing: 1, or 0 where the layer adds the weighted map.
    """

    def __init__(self, gate: Callable[[Tensor], Tensor], neutral: float = 1.0) -> None:
        super().__init__()
        self.gate = gate
        self.neutral = neutral
        self.opening = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the weights, between the neutral weight and the gate's while `opening` is in [0, 1]."""
        return self.neutral + self.opening.to(logits.dtype) * (self.gate(logits) - self.neutral)

    def extra_repr(self) -> str:
        """Return the gate where it is a plain function; a module prints itself."""
        return "" if isinstance(self.gate, nn.Module) else repr(self.gate)


def fresh(gate: Callable[[Tensor], Tensor], device: torch.device | None = None) -> Callable[[Tensor], Tensor]:
    """Return the gate that one layer keeps: a module of its own if α varies, else the gate itself.

    Args:
        gate: logits to weights.
        device: where an α that varies is made: that of the layer's parameters.
    """
    if isinstance(gate, Gate) and gate.variation is not None:
        return gate.variation.module(*gate.arguments).to(device)
    return gate


def advance(model: nn.Module, progress: float) -> None:
    """Set every scheduled α of the model to where its schedule is.

    Args:
        model: any module.
        progress: part of the training that is done, in [0, 1]; training calls this before every epoch.
    """
    for module in model.modules():
        if isinstance(module, ScheduledIgn1):
            module.advance(progress)


def _attend(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits)


def _ign1(logits: Tensor, alpha: float | Tensor) -> Tensor:
    # 1 - α σ(z), written so that nothing cancels: at α = 1 it is σ(-z) to the bit.
    return (1 - alpha) + alpha * torch.sigmoid(-logits)


def _ign2(logits: Tensor) -> Tensor:
    # Below z = -7 the gradient, e^-z σ'(1 + e^-z), is less than the smallest float64, and e^7 still fits float16: the
    # clamp changes no value and keeps 0 · inf out of the backward pass. Half precision is computed in float32, where
    # 1 - σ does not round to 0 so early.
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.sigmoid(1 + torch.exp(-exact.clamp(min=-7))).to(logits.dtype)


def _ign3(logits: Tensor) -> Tensor:
    return torch.sigmoid(-logits)


attend = Gate(_attend)
"""σ(z), in (0, 1): explicit attention, equation 1 of [L]."""

ign2 = Gate(_ign2)
"""σ(1 / σ(z)) = σ(1 + e^-z), in (σ(1), 1) = (0.731, 1): T2, equation 4 of [L]; it can suppress by 27 % at most.

The authors' code adds ε = 1e-6 to the inner σ(z); this form needs none and differs from theirs by less than 5e-7.
"""

ign3 = Gate(_ign3)
"""σ(-z), in (0, 1): T3, equation 5 of [L]."""


def ign1(alpha: float | str) -> Gate:
    """Return the gate 1 - α σ(z), in (1-α, 1): T1, equation 3 of [L].

    Args:
        alpha: how far a weight can fall, in (0, 1]; [L] uses 1, 0.8 and 0.5. The paper's α = 0 would ignore nothing.
            `"learned"` makes it a parameter of each layer, from 0.5, or from x with `"learned x"`; `"1to0.5"` moves it
            from 1 to 0.5 during the training. [L] has neither.

    Raises:
        InputError: if alpha is outside (0, 1], or 1 at the start of a learned α, which stays below it.
    """
    learned, scheduled = re.fullmatch(r"learned\s*(.*)", str(alpha)), re.fullmatch(r"(.+?)\s*to\s*(.+)", str(alpha))
    if learned:
        start = _alpha(learned[1] or LEARNED_FROM)
        if start == 1:
            raise InputError("ign1(learned 1): a learned alpha stays below 1; start it lower, for example at 0.9")
        return Gate(_ign1, (start,), Learned())
    if scheduled:
        return Gate(_ign1, (_alpha(scheduled[1]),), Scheduled(_alpha(scheduled[2])))
    return Gate(_ign1, (_alpha(alpha),))


LEARNED_FROM = 0.5


def _printed(alpha: float) -> str:
    """Return the shortest text that is read back as the same number."""
    return repr(float(alpha)).removesuffix(".0")


def _alpha(value: float | str) -> float:
    try:
        alpha = float(value)
    except ValueError:
        alpha = math.nan
    if not 0 < alpha <= 1:
        raise InputError(
            f"ign1(alpha): alpha is {value}, but it must be in (0, 1], for example ign1(0.5), or 'learned', or a "
            "schedule like '1to0.5'"
        )
    return alpha


GATES: dict[str, Gate | Callable[..., Gate]] = {"attend": attend, "ign1": ign1, "ign2": ign2, "ign3": ign3}
