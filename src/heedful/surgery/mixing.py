"""Change what a module does by changing its class, in place: its identity, names, parameters and hooks stay."""

from typing import Any

from torch import nn

_CLASSES: dict[tuple[type, type], type[nn.Module]] = {}


class Mixed:
    """Base of what is mixed into a module's class; the module still is an instance of the class that it was.

    Copies and pickles rebuild the class from the module's own and the mixin, which must both be importable.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        mixins: list[type] = []
        base: type = type(self)
        while issubclass(base, Mixed):
            mixin, base = base.__bases__
            mixins.append(mixin)
        return _blank, (base, *reversed(mixins)), self.__dict__


def mix(module: nn.Module, mixin: type[Mixed]) -> None:
    """Make the module an instance of `mixin` too, whose methods come first."""
    module.__class__ = _mixed(mixin, type(module))


def unmix(module: nn.Module) -> None:
    """Take back the last `mix`."""
    assert isinstance(module, Mixed), module
    module.__class__ = type(module).__bases__[1]


def _mixed(mixin: type[Mixed], base: type[nn.Module]) -> type[nn.Module]:
    # The base's own __module__: torch.fx takes modules of torch.nn as leaves by it, and must go on doing so.
    if (mixin, base) not in _CLASSES:
        name = f"{mixin.__name__}{base.__name__}"
        _CLASSES[mixin, base] = type(name, (mixin, base), {"__module__": base.__module__})
    return _CLASSES[mixin, base]


def _blank(base: type[nn.Module], *mixins: type[Mixed]) -> nn.Module:
    for mixin in mixins:
        base = _mixed(mixin, base)
    return base.__new__(base)
