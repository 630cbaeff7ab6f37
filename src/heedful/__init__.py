"""heedful: attention for convolutional networks, and an honest answer to whether it helped."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heedful.attachment import attach, detach
    from heedful.errors import InputError
    from heedful.experiment import compare
    from heedful.gates import GATES, Gate, attend, ign1, ign2, ign3
    from heedful.layers import CBAM, CONVOLUTIONS, LAYERS, AWConv2d, SqueezeExcitation
    from heedful.layers.mmtm import MMTM
    from heedful.losses import ICASC, consistency_loss, separation_loss, soft_mask
    from heedful.maps.attention import attention_maps
    from heedful.maps.classes import top
    from heedful.maps.figure import figure
    from heedful.maps.methods import grad_cam
    from heedful.maps.overlay import overlay
    from heedful.models import build
    from heedful.models.build_streams import build_streams
    from heedful.models.detection import build_detector
    from heedful.models.pay_attention import PayAttention
    from heedful.models.saved import load
    from heedful.models.two_stream import TwoStream
    from heedful.surgery.gating import set_gate
    from heedful.surgery.masks import audit, bypass, record
    from heedful.variant import Variant, parse

__version__ = "0.1.0"

__all__ = [
    "CBAM",
    "CONVOLUTIONS",
    "GATES",
    "ICASC",
    "LAYERS",
    "MMTM",
    "AWConv2d",
    "Gate",
    "InputError",
    "PayAttention",
    "SqueezeExcitation",
    "TwoStream",
    "Variant",
    "attach",
    "attend",
    "attention_maps",
    "audit",
    "build",
    "build_detector",
    "build_streams",
    "bypass",
    "compare",
    "consistency_loss",
    "detach",
    "figure",
    "grad_cam",
    "ign1",
    "ign2",
    "ign3",
    "load",
    "overlay",
    "parse",
    "record",
    "separation_loss",
    "set_gate",
    "soft_mask",
    "top",
]

_MODULE_OF = {
    **dict.fromkeys(["InputError"], "heedful.errors"),
    **dict.fromkeys(["GATES", "Gate", "attend", "ign1", "ign2", "ign3"], "heedful.gates"),
    **dict.fromkeys(["AWConv2d", "CBAM", "CONVOLUTIONS", "LAYERS", "SqueezeExcitation"], "heedful.layers"),
    **dict.fromkeys(["audit", "bypass", "record"], "heedful.surgery.masks"),
    **dict.fromkeys(["set_gate"], "heedful.surgery.gating"),
    **dict.fromkeys(["Variant", "parse"], "heedful.variant"),
    **dict.fromkeys(["attach", "detach"], "heedful.attachment"),
    **dict.fromkeys(["build"], "heedful.models"),
    **dict.fromkeys(["PayAttention"], "heedful.models.pay_attention"),
    **dict.fromkeys(["build_streams"], "heedful.models.build_streams"),
    **dict.fromkeys(["TwoStream"], "heedful.models.two_stream"),
    **dict.fromkeys(["build_detector"], "heedful.models.detection"),
    **dict.fromkeys(["MMTM"], "heedful.layers.mmtm"),
    **dict.fromkeys(["load"], "heedful.models.saved"),
    **dict.fromkeys(["attention_maps"], "heedful.maps.attention"),
    **dict.fromkeys(["top"], "heedful.maps.classes"),
    **dict.fromkeys(["figure"], "heedful.maps.figure"),
    **dict.fromkeys(["grad_cam"], "heedful.maps.methods"),
    **dict.fromkeys(["ICASC", "consistency_loss", "separation_loss", "soft_mask"], "heedful.losses"),
    **dict.fromkeys(["overlay"], "heedful.maps.overlay"),
    **dict.fromkeys(["compare"], "heedful.experiment"),
}
"""Public name -> module, imported when the name is first used: `heedful --help` must not wait for torch."""


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'heedful' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
