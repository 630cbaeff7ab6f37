"""What is written beside a network's weights: how to rebuild it, and what it must be fed; a kind for each task."""

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from heedful.attachment import Start


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelCard:
    """What is needed to rebuild a network that classifies images, and to prepare images for it.

    Args:
        model: name, as for `build`.
        variant: the attention in it, in the notation.
        reduction: of the attention's MLPs; None: each layer's own.
        classes: names of the outputs, in order.
        image_size: side in pixels of the images it was trained on.
        mean: of each colour channel, in [0, 1], subtracted from the image.
        deviation: of each colour channel, by which the image is then divided.
        convention: whose `se` and `cbam`, as for `build`; None: the papers'.
        in_channels: channels of the image.
        start: how the attention began, as for `build`: the gates of "identity" have a parameter more.
        multi_label: whether an image can be of several classes: probabilities are then the sigmoid of each logit.
        task: always the same; it tells cards apart on disk.
    """

    model: str
    variant: str
    reduction: int | None
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    convention: str | None = None
    in_channels: int = 3
    start: Start = "paper"
    multi_label: bool = False
    task: Literal["classification"] = "classification"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StreamCard:
    """What one stream of clips must be like.

    Args:
        shape: of one clip: channels, time, ...
        mean: of each channel, subtracted from it.
        deviation: of each channel, by which it is then divided.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ClipCard:
    """What is needed to rebuild a network that classifies clips of one or more streams, and to prepare clips for it.

    Args:
        model: name, as for `build_streams`, such as `hcn+inertial`.
        variant: how the streams are fused, in the notation.
        classes: names of the outputs, in order.
        streams: name -> what it must be like.
        reduction: of MMTM.
        factor: of MMTM.
        start: how MMTM began.
        task: always the same; it tells cards apart on disk.
    """

    model: str
    variant: str
    classes: tuple[str, ...]
    streams: dict[str, StreamCard]
    reduction: int = 4
    factor: float = 1.0
    start: Start = "paper"
    task: Literal["clips"] = "clips"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DetectorCard:
    """What is needed to rebuild a network that finds objects, which resizes and normalises images by itself.

    Args:
        model: name, as for `build_detector`.
        variant: the attention in its FPN, in the notation.
        classes: names, in order, without background, which is label 0 of what it puts out.
        image_size: shorter side in pixels to which it resizes images.
        reduction: of the attention's MLPs; None: each layer's own.
        convention: whose `se` and `cbam`, as for `build`; None: the papers'.
        start: how the attention began, as for `build`.
        pretrained: whether it began with weights of ImageNet, and so with fixed batch norms.
        task: always the same; it tells cards apart on disk.
    """

    model: str
    variant: str
    classes: tuple[str, ...]
    image_size: int
    reduction: int | None = None
    convention: str | None = None
    start: Start = "paper"
    pretrained: bool = False
    task: Literal["detection"] = "detection"


Card = ModelCard | ClipCard | DetectorCard
CARDS: dict[str, type[Card]] = {"classification": ModelCard, "clips": ClipCard, "detection": DetectorCard}
"""Task -> what its networks are described by."""
