"""Networks of one stream by name, `STREAMS`, and what a model text such as `hcn+inertial` says."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from heedful.errors import InputError, unknown
from heedful.models.streams import HCN, ClipNetwork, InertialNetwork, video_resnet
from heedful.variant import FUSIONS, Variant

Shape = tuple[int, ...]


class Stream(NamedTuple):
    """A network for one stream.

    Args:
        name: of the stream.
        dimensions: what a clip's shape says.
        optional: how many of the last dimensions a clip may lack.
        make: (shape, number of classes, pretrained) -> network.
        has_weights: whether there are pretrained weights.
    """

    name: str
    dimensions: tuple[str, ...]
    make: Callable[[Shape, int, bool], nn.Module]
    optional: int = 0
    has_weights: bool = False


def _hcn(shape: Shape, num_classes: int, _pretrained: bool) -> nn.Module:
    channels, frames, joints = shape[:3]
    return HCN(num_classes=num_classes, num_joints=joints, num_frames=frames, in_channels=channels)


def _inertial(shape: Shape, num_classes: int, _pretrained: bool) -> nn.Module:
    return InertialNetwork(num_classes=num_classes, in_channels=shape[0], num_samples=shape[1])


def _depth(shape: Shape, num_classes: int, _pretrained: bool) -> nn.Module:
    channels, frames, height, width = shape
    return ClipNetwork(num_classes=num_classes, in_channels=channels, num_frames=frames, height=height, width=width)


def _video(name: str) -> Stream:
    def make(shape: Shape, num_classes: int, pretrained: bool) -> nn.Module:
        network = video_resnet(name, num_classes=num_classes, pretrained=pretrained)
        network.input_shape = shape  # type: ignore[assignment]  # nn.Module's stub allows tensors and modules alone
        return network

    return Stream("video", ("3 colours", "frames", "height", "width"), make, has_weights=True)


STREAMS: dict[str, Stream] = {
    "hcn": Stream("skeleton", ("coordinates", "frames", "joints", "persons"), _hcn, optional=1),
    "inertial": Stream("inertial", ("channels", "samples"), _inertial),
    "depth": Stream("depth", ("channels", "frames", "height", "width"), _depth),
    **{name: _video(name) for name in ("r3d_18", "mc3_18", "r2plus1d_18")},
}
"""Name of a network -> its stream."""


def streams_of(model: str) -> dict[str, str]:
    """Return stream -> name of its network, in the order of the text.

    Raises:
        InputError: if a name is unknown, or two networks are for one stream.
    """
    found: dict[str, str] = {}
    for network in model.split("+"):
        if network not in STREAMS:
            raise unknown("network of a stream", network, STREAMS, where=f"model {model!r}: ")
        stream = STREAMS[network].name
        if stream in found:
            raise InputError(f"model {model!r}: {found[stream]} and {network} both see the {stream}: leave one out")
        found[stream] = network
    return found


def check_streams(model: str, variant: Variant) -> None:
    """Raise InputError unless the networks are known and the variant fits their number; computes nothing."""
    streams = streams_of(model)
    if variant.fusion is None and variant != Variant():
        raise InputError(
            f"variant {str(variant)!r} goes into networks of images; clips take none, {', '.join(FUSIONS)}"
        )
    if len(streams) > 1 and variant.fusion is None:
        raise InputError(
            f"variant 'none': {model} has several streams to be fused: write late, concat, mmtm or mmtm-ign2"
        )
    if len(streams) == 1 and variant.fusion is not None:
        raise InputError(f"variant {str(variant)!r}: {model} is one stream, with nothing to fuse: write none")


def shape_of(network: str, shapes: Mapping[str, Shape]) -> Shape:
    """Return the shape of the network's clips.

    Args:
        network: a name in `STREAMS`.
        shapes: stream -> shape of a clip.

    Raises:
        InputError: if its stream is missing, or its shape is another.
    """
    stream = STREAMS[network]
    if stream.name not in shapes:
        raise InputError(f"{network} needs the stream {stream.name!r}, but there is {', '.join(shapes) or 'none'}")
    shape, most = tuple(shapes[stream.name]), len(stream.dimensions)
    if not most - stream.optional <= len(shape) <= most or min(shape) < 1:
        raise InputError(
            f"the shape of stream {stream.name!r} is {shape}, but for {network} it must be "
            f"({', '.join(stream.dimensions)})" + (", the last if there are several" if stream.optional else "")
        )
    if stream.has_weights and shape[0] != 3:
        raise InputError(f"the shape of stream {stream.name!r} is {shape}, but {network} takes 3 colours")
    return shape
