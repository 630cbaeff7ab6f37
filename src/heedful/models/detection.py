"""Detectors by name: torchvision's Faster R-CNN (Ren et al., 2015) with an FPN, and a variant's attention in the FPN.

Where attention stands is after [Z], Zhu et al., "An Attention Module for Convolutional Neural Networks", ICANN 2021,
section 4.2: `aw` in all lateral and output convolutions of the FPN, other layers right before these.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from heedful.attachment import Start, attach, fitting
from heedful.errors import InputError, unknown
from heedful.models.cards import DetectorCard
from heedful.models.saved import saveable
from heedful.variant import Variant, parse

FPN_SITES = "fpn.*_blocks.*"
"""In the backbone: `inner_blocks` are the lateral convolutions, `layer_blocks` those of the output, level by level."""
ANCHOR_SHARES = (0.04, 0.08, 0.16, 0.32, 0.64)
"""Sides of the anchors at the levels, as shares of the image's: torchvision's 32 to 512 pixels at its size of 800."""
LEAST_SIZE = 32
"""The coarsest level of the trunks has one place for so many pixels."""


def build_detector(
    name: str,
    variant: str | Variant = "none",
    *,
    num_classes: int,
    image_size: int,
    pretrained: bool = False,
    reduction: int | None = None,
    convention: str | None = None,
    start: str | None = None,
) -> nn.Module:
    """Return a new detector with the variant's attention in its FPN, which can save itself (`save_pretrained`).

    Called with a list of images (3, h, w) in [0, 1], it returns for each a dict of `boxes` (n, 4), x1 y1 x2 y2 in its
    pixels, `labels` (n,) from 1 and `scores` (n,); in training mode, with a list of targets (`boxes` and `labels`) as
    well, a dict of losses. It resizes and normalises images itself, the longer side to at most twice `image_size`. The
    same seed gives the same network for every variant: attention is drawn after it.

    Args:
        name: in `DETECTORS`.
        variant: attention layers, in the notation of `heedful.variant`.
        num_classes: without background.
        image_size: shorter side in pixels to which images are resized, at least 32.
        pretrained: begin with torchvision's ImageNet weights in the trunk, and as its builders do, keep their batch
            norms and the first stages (of a ResNet all before its second) fixed; False: all is trained.
        reduction: as for `heedful.build`.
        convention: as for `heedful.build`.
        start: see `heedful.attach`; None: `identity` for pretrained detectors, else `paper`.

    Raises:
        InputError: for an unknown name or variant, one that is not of attention layers alone, a number that is too
            small, or weights that cannot be downloaded.
    """
    start = start or ("identity" if pretrained else "paper")
    _check(num_classes, start)
    card = DetectorCard(
        model=name,
        variant=str(parse(variant) if isinstance(variant, str) else variant),
        classes=tuple(str(number) for number in range(num_classes)),
        image_size=image_size,
        reduction=reduction,
        convention=convention,
        start=cast(Start, start),
        pretrained=pretrained,
    )
    return detector_of(card, download=pretrained)


def detector_of(card: DetectorCard, *, download: bool = False) -> nn.Module:
    """Return a new detector as the card describes it; its errors are those of `build_detector`.

    Args:
        card: what to build.
        download: begin with the ImageNet weights, rather than with a structure into which trained ones are filled.
    """
    if card.model not in DETECTORS:
        raise unknown("detector", card.model, DETECTORS)
    if card.image_size < LEAST_SIZE:
        raise InputError(f"image_size is {card.image_size}, but it must be at least {LEAST_SIZE}")
    model = DETECTORS[card.model](len(card.classes), card.image_size, fixed=card.pretrained, download=download)
    variant = parse(card.variant)
    try:
        if variant != Variant(variant.parts):
            raise InputError("a detector takes attention layers alone, such as aw+se")
        options = fitting(variant, reduction=card.reduction, convention=card.convention)
        attach(model.backbone, variant, sites=FPN_SITES, before=True, start=card.start, **options)
    except InputError as error:
        raise InputError(f"variant {card.variant!r} cannot go into {card.model}: {error}") from None
    saveable(model, card)
    return model


def _check(num_classes: int, start: str) -> None:
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}, but it must be at least 1")
    if start not in ("identity", "paper"):
        raise InputError(f"start is {start!r}, but it must be identity or paper")


def _resnet(depth: int, num_classes: int, image_size: int, *, fixed: bool, download: bool) -> nn.Module:
    """Return Faster R-CNN with a ResNet-FPN of 256 channels, as torchvision's builders make it."""
    from torchvision.models.detection import FasterRCNN

    backbone = _resnet_fpn(depth, fixed, download)
    return FasterRCNN(backbone, num_classes + 1, min_size=image_size, max_size=2 * image_size)


def _small_resnet(depth: int, num_classes: int, image_size: int, *, fixed: bool, download: bool) -> nn.Module:
    """Return one for few and small images: narrow, with few proposals and anchors that scale with the images."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

    width, hidden, resolution = 64, 256, 7
    backbone = _resnet_fpn(depth, fixed, download)
    widths = [block[0].in_channels for block in backbone.fpn.inner_blocks]
    backbone.fpn, backbone.out_channels = FeaturePyramidNetwork(widths, width, LastLevelMaxPool()), width
    return FasterRCNN(
        backbone,
        min_size=image_size,
        max_size=2 * image_size,
        rpn_anchor_generator=_anchors([(share * image_size,) for share in ANCHOR_SHARES]),
        rpn_pre_nms_top_n_train=500,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=150,
        rpn_batch_size_per_image=128,
        box_batch_size_per_image=64,
        box_head=TwoMLPHead(width * resolution**2, hidden),
        box_predictor=FastRCNNPredictor(hidden, num_classes + 1),
    )


def _mobilenet(num_classes: int, image_size: int, *, fixed: bool, download: bool) -> nn.Module:
    """Return Faster R-CNN with a MobileNet v3 and an FPN of two levels, as torchvision's builder makes it."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import mobilenet_backbone

    name = "mobilenet_v3_large"
    with_fpn = functools.partial(mobilenet_backbone, backbone_name=name, fpn=True, trainable_layers=3 if fixed else 6)
    return FasterRCNN(
        _trunk(with_fpn, name, fixed, download),
        num_classes + 1,
        min_size=image_size,
        max_size=2 * image_size,
        rpn_anchor_generator=_anchors([(32, 64, 128, 256, 512)] * 3),
        rpn_score_thresh=0.05,
    )


def _resnet_fpn(depth: int, fixed: bool, download: bool) -> Any:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    name = f"resnet{depth}"
    with_fpn = functools.partial(resnet_fpn_backbone, backbone_name=name, trainable_layers=3 if fixed else 5)
    return _trunk(with_fpn, name, fixed, download)


def _trunk(with_fpn: Callable[..., nn.Module], name: str, fixed: bool, download: bool) -> nn.Module:
    """Return a trunk with its FPN, with fixed batch norms or trained ones, and with ImageNet weights if so."""
    from torchvision.models import get_model_weights
    from torchvision.ops import FrozenBatchNorm2d

    weights = get_model_weights(name)["IMAGENET1K_V1"] if download else None
    try:
        return with_fpn(weights=weights, norm_layer=FrozenBatchNorm2d if fixed else nn.BatchNorm2d)
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        raise InputError(
            f"pretrained=True: the ImageNet weights of {name} cannot be read ({error}): put the file {weights.url} "
            f"into {torch.hub.get_dir()}/checkpoints, or leave out pretrained"
        ) from None


def _anchors(sizes: Sequence[tuple[float, ...]]) -> Any:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    return AnchorGenerator(tuple(sizes), ((0.5, 1.0, 2.0),) * len(sizes))


DETECTORS: dict[str, Callable[..., Any]] = {
    **{f"fasterrcnn_resnet{depth}_fpn": functools.partial(_resnet, depth) for depth in (18, 34, 50, 101, 152)},
    "fasterrcnn_resnet18_fpn_small": functools.partial(_small_resnet, 18),
    "fasterrcnn_mobilenet_v3_large_fpn": _mobilenet,
}
"""Name -> maker, which takes the number of classes without background and the image size."""
