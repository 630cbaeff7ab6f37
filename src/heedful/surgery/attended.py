"""A module whose output or input passes through attention: its own class with one method more, under its own name."""

from typing import Any

from torch import Tensor, nn

from heedful.errors import InputError
from heedful.layers.product import forget
from heedful.surgery.attended_norm import Remembered, can_remember
from heedful.surgery.mixing import Mixed, mix, unmix

BEHIND, BEFORE = "attention", "before"
"""Names of the children that hold attention on a module's output, and on its input."""


class Attended(Mixed):
    """What a module becomes: it computes what it did, then its child `attention` works on the result.

    No key of its state dict changes; the attention's keys are added below `attention`. torch.fx sees one call. What
    would build another module from this one's parameters, and so lose the attention (SyncBatchNorm conversion,
    quantisation), asks for `qconfig` first and is refused.
    """

    attention: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the attended output."""
        return forget(self.attention(super().forward(*args, **kwargs)))  # type: ignore[misc]

    @property
    def qconfig(self) -> None:
        """Refuse."""
        raise InputError(
            "a module with attention cannot be converted (SyncBatchNorm, quantisation): the attention would be lost; "
            "convert the network first and attach afterwards, or heedful.detach it"
        )


class Preceded(Mixed):
    """The same with attention on the first argument, in the child `before`."""

    before: nn.Module
    qconfig = Attended.qconfig

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the module makes of its attended input."""
        return super().forward(forget(self.before(x)), *args, **kwargs)  # type: ignore[misc]


class OwnChildren(Mixed):
    """For a module that goes through its children as a dict, as the dense blocks of DenseNets do: without ours."""

    def _own(self) -> dict[str, nn.Module]:
        children: dict[str, nn.Module] = self._modules  # type: ignore[attr-defined]
        return {name: child for name, child in children.items() if name not in (BEHIND, BEFORE)}

    def __len__(self) -> int:
        return len(self._own())

    def __iter__(self) -> Any:
        return iter(self._own())

    def keys(self) -> Any:
        """Return the names of the children that the module had."""
        return self._own().keys()

    def values(self) -> Any:
        """Return the children that the module had."""
        return self._own().values()

    def items(self) -> Any:
        """Return names and children that the module had."""
        return self._own().items()


def put(host: nn.Module, attention: nn.Module, *, before: bool = False) -> None:
    """Let the host's output, or the first of its arguments, pass through the attention from now on, in place."""
    attention.train(host.training)
    host.add_module(BEFORE if before else BEHIND, attention)
    if isinstance(host, nn.ModuleDict):
        mix(host, OwnChildren)
    if can_remember(host) and not before:
        mix(host, Remembered)
    mix(host, Preceded if before else Attended)


def take(host: nn.Module) -> nn.Module:
    """Undo `put`, and return the attention."""
    name = BEFORE if isinstance(host, Preceded) else BEHIND
    attention = host.get_submodule(name)
    while isinstance(host, (Attended, Preceded, Remembered, OwnChildren)):
        unmix(host)
    delattr(host, name)
    return attention
