"""A module whose output passes through attention: its own class with one method more, under its own name."""

from typing import Any

from torch import Tensor, nn

from heedful.errors import InputError
from heedful.layers.product import forget
from heedful.surgery.attended_norm import Remembered, can_remember
from heedful.surgery.mixing import Mixed, mix, unmix


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


class AttendedDict(Attended):
    """The same for a module that goes through its children as a dict, as the dense blocks of DenseNets do."""

    def _own(self) -> dict[str, nn.Module]:
        children: dict[str, nn.Module] = self._modules  # type: ignore[attr-defined]
        return {name: child for name, child in children.items() if name != "attention"}

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


def put(host: nn.Module, attention: nn.Module) -> None:
    """Let the host's output pass through the attention from now on, in place."""
    attention.train(host.training)
    host.add_module("attention", attention)
    if can_remember(host):
        mix(host, Remembered)
    mix(host, AttendedDict if isinstance(host, nn.ModuleDict) else Attended)


def take(host: nn.Module) -> nn.Module:
    """Undo `put`, and return the attention."""
    assert isinstance(host, Attended)
    unmix(host)
    if isinstance(host, Remembered):
        unmix(host)
    attention = host.attention
    del host.attention
    return attention
