"""Networks of one or more streams by name, such as `hcn+inertial`, fused as a variant says."""

from collections.abc import Mapping

from torch import nn

from heedful.attachment import Start
from heedful.errors import InputError
from heedful.gates import Opening
from heedful.models.cards import ClipCard, StreamCard
from heedful.models.named_streams import STREAMS, Shape, check_streams, shape_of, streams_of
from heedful.models.one_stream import OneStream
from heedful.models.saved import saveable
from heedful.models.two_stream import TwoStream
from heedful.surgery.gating import gates_of
from heedful.variant import Variant, parse


def build_streams(
    model: str,
    variant: str | Variant,
    *,
    num_classes: int,
    shapes: Mapping[str, Shape],
    reduction: int = 4,
    factor: float = 1.0,
    drop: float = 0.0,
    pretrained: bool = False,
    start: str = "paper",
) -> nn.Module:
    """Return a new network for clips, which takes {stream: batch}, and can save itself (`save_pretrained`).

    The same seed gives the same streams for every variant: what fuses them is drawn after them.

    Args:
        model: names in `STREAMS` with + between them: `hcn`, `hcn+inertial`.
        variant: `none` for one stream; for several a fusion: `late`, `concat`, `mmtm`, `mmtm-ign1(0.5)`, ...
        num_classes: number of outputs.
        shapes: stream -> shape of a clip, without the batch; of skeletons (3, frames, joints), or with persons behind
            them; inertial (6, samples); depth (1, frames, height, width); video (3, frames, height, width). More
            streams than the network has are no harm.
        reduction: of `mmtm`, see `heedful.layers.mmtm.MMTM`.
        factor: likewise; with `late` and `concat` both have no effect.
        drop: see `TwoStream`; a network that is saved and loaded drops nothing.
        pretrained: with torchvision's weights from Kinetics-400 for video; other streams have none.
        start: `paper`, or `identity`: MMTM changes nothing at first, for streams that are trained already (see
            `load_streams` and `heedful.gates.Opening`).

    Raises:
        InputError: if a name is unknown, the variant does not fit the number of streams, a shape is missing or wrong, a
            number is out of range, or pretrained=True for a network without video.
    """
    variant = parse(variant) if isinstance(variant, str) else variant
    check_streams(model, variant)
    if start not in ("identity", "paper"):
        raise InputError(f"start is {start!r}, but it must be identity or paper")
    names = streams_of(model)
    if pretrained and not any(STREAMS[network].has_weights for network in names.values()):
        raise InputError(f"pretrained=True: there are no pretrained weights for {model}; load_streams takes your own")
    shapes = {stream: shape_of(network, shapes) for stream, network in names.items()}
    streams = {stream: STREAMS[each].make(shapes[stream], num_classes, pretrained) for stream, each in names.items()}
    made = _fused(streams, variant, reduction=reduction, factor=factor, drop=drop, start=start)
    saveable(made, _card(model, variant, num_classes, shapes, reduction, factor, start))
    return made


def _fused(
    streams: dict[str, nn.Module], variant: Variant, *, reduction: int, factor: float, drop: float, start: str
) -> nn.Module:
    if variant.fusion is None:
        return OneStream(*streams.popitem())
    made = TwoStream(streams, fusion=variant.fusion, reduction=reduction, factor=factor, drop=drop)
    for gated in gates_of(made.mmtm) if start == "identity" else ():
        setattr(gated.module, gated.attribute, Opening(gated.gate, gated.neutral))
    return made


def _card(
    model: str, variant: Variant, num_classes: int, shapes: Mapping[str, Shape], reduction: int, factor: float,
    start: str,
) -> ClipCard:  # fmt: skip
    opened: Start = "identity" if start == "identity" else "paper"
    return ClipCard(
        model=model,
        variant=str(variant),
        classes=tuple(str(number) for number in range(num_classes)),
        streams={name: StreamCard(each, (0.0,) * each[0], (1.0,) * each[0]) for name, each in shapes.items()},
        reduction=reduction,
        factor=factor,
        start=opened,
    )
