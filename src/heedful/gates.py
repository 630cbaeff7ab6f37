"""Gates turn logits into weights in [0, 1]: attend (explicit attention) or ignore (implicit), after [L].

[L] is Laakom et al., "Learning to ignore: rethinking attention in CNNs", BMVC 2021 (arXiv:2111.05684).

`ign1(1)` and `ign3` are the same function, and `ign3` is `attend` with the sign of the logits turned: under a
symmetric initialisation a network with either learns the same, in distribution, as one with `attend`. What differs in
kind is a weight bounded away from 0: `ign1(α)` with α < 1, and `ign2`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from heedful.errors import InputError


@dataclass(frozen=True, repr=False)
class Gate:
    """A function from logits to weights, without parameters: it prints as its notation, pickles and compares by value.

    Args:
        function: takes the logits, then `arguments`; its name, less the leading underscore, is the gate's.
        arguments: numbers fixed when the gate was made, e.g. α.
    """

    function: Callable[..., Tensor]
    arguments: tuple[float, ...] = ()

    def __call__(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the weights, in [0, 1], of the logits' shape and type."""
        return self.function(logits, *self.arguments)

    def __repr__(self) -> str:
        name = self.function.__name__.lstrip("_")
        return f"{name}({', '.join(f'{a:g}' for a in self.arguments)})" if self.arguments else name


def _attend(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits)


def _ign1(logits: Tensor, alpha: float) -> Tensor:
    # 1 - α σ(z), written so that nothing cancels: at α = 1 it is σ(-z) to the bit.
    return (1 - alpha) + alpha * torch.sigmoid(-logits)


def _ign2(logits: Tensor) -> Tensor:
    # Below z = -7 the gradient, e^-z σ'(1 + e^-z), is less than the smallest float64, and e^7 still fits float16: the
    # clamp changes no value and keeps 0 · inf out of the backward pass. Half precision is computed in float32, where
    # 1 - σ does not round to 0 so early.
    exact = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
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


def ign1(alpha: float) -> Gate:
    """Return the gate 1 - α σ(z), in (1-α, 1): T1, equation 3 of [L].

    Args:
        alpha: how far a weight can fall, in (0, 1]; [L] uses 1, 0.8 and 0.5. The paper's α = 0 would ignore nothing.

    Raises:
        InputError: if alpha is outside (0, 1].
    """
    if not 0 < alpha <= 1:
        raise InputError(f"ign1(alpha): alpha is {alpha!r}, but it must be in (0, 1], for example ign1(0.5)")
    return Gate(_ign1, (float(alpha),))


GATES: dict[str, Gate | Callable[..., Gate]] = {"attend": attend, "ign1": ign1, "ign2": ign2, "ign3": ign3}
