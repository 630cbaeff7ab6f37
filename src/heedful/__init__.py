"""heedful: attention for convolutional networks, and an honest answer to whether it helped."""

import importlib
from typing import TYPE_CHECKING, Any

from heedful.errors import InputError
from heedful.gates import GATES, Gate, attend, ign1, ign2, ign3
from heedful.layers import CBAM, LAYERS, SqueezeExcitation
from heedful.variant import Variant, parse

if TYPE_CHECKING:
    from heedful.experiment import compare
    from heedful.maps.grad_cam import attention_maps, grad_cam
    from heedful.maps.overlay import overlay
    from heedful.models import build
    from heedful.models.saved import load

__version__ = "0.1.0"

__all__ = [
    "CBAM",
    "GATES",
    "LAYERS",
    "Gate",
    "InputError",
    "SqueezeExcitation",
    "Variant",
    "attend",
    "attention_maps",
    "build",
    "compare",
    "grad_cam",
    "ign1",
    "ign2",
    "ign3",
    "load",
    "overlay",
    "parse",
]

_LAZY = {
    "attention_maps": "heedful.maps.grad_cam",
    "build": "heedful.models",
    "compare": "heedful.experiment",
    "grad_cam": "heedful.maps.grad_cam",
    "load": "heedful.models.saved",
    "overlay": "heedful.maps.overlay",
}
"""Public name -> module that is imported when the name is first used: timm, lightning and the like are heavy."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'heedful' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
