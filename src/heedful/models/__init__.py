"""Networks by name: those for CIFAR that the zoo does not have, and every network of timm, with a variant put in."""

import functools
from collections.abc import Callable

import torch
from torch import nn

from heedful.attachment import Start, attach, fitting
from heedful.errors import InputError, unknown
from heedful.models.cards import ModelCard
from heedful.models.cifar_densenet import CifarDenseNet
from heedful.models.cifar_preresnet import CifarPreResNet
from heedful.models.cifar_resnet import CifarResNet
from heedful.models.cifar_vgg import CifarVGG, CifarVGGTrunk
from heedful.models.named_streams import STREAMS
from heedful.models.pay_attention import PayAttention
from heedful.models.saved import saveable
from heedful.surgery.stages import levels
from heedful.variant import Pay, Variant, parse

MODELS: dict[str, Callable[..., nn.Module]] = {
    **{f"cifar_resnet{depth}": functools.partial(CifarResNet, depth) for depth in (8, 20, 32, 44, 50, 56, 110)},
    "cifar_densenet40": CifarDenseNet,
    "cifar_vgg": CifarVGG,
    "cifar_vgg_att": CifarVGGTrunk,
    "cifar_vgg_att_small": functools.partial(CifarVGGTrunk, width_divisor=8, with_dropout=False),
    "cifar_vgg_gap": functools.partial(CifarVGGTrunk, averaged=True),
    "cifar_preresnet164": CifarPreResNet,
    "cifar_preresnet164_att": functools.partial(CifarPreResNet, convolved=True),
}
"""Name -> network of ours, which takes num_classes= and in_channels=."""

DROPOUT = 0.5
"""Before the linear maps of `pay` variants, for networks without an `attended_dropout` of their own: [J]'s code."""


def build(
    name: str,
    variant: str | Variant = "none",
    *,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool = False,
    reduction: int | None = None,
    convention: str | None = None,
    start: Start | None = None,
) -> nn.Module:
    """Return a new network with the variant's attention in it, which can save itself (`save_pretrained`).

    The same seed gives the same trunk for every variant: attention is drawn after it.

    Args:
        name: a network of ours (`MODELS`) or any name of timm's.
        variant: what to put in, in the notation of `heedful.variant`; where: see `heedful.attach`. `pay2-pc` and its
            like look at the network's `levels`, or at the ends of its stages, of which they take the deepest.
        num_classes: number of outputs.
        in_channels: channels of the image.
        pretrained: load timm's ImageNet weights into the trunk; the attention starts untrained.
        reduction: channels divided by the hidden width of the attention's MLPs; None: each layer's own.
        convention: whose `se` and `cbam`, see `heedful.layers.conventions`; None: the papers'. Of this and `reduction`,
            what no layer of the variant has is left out, so that the rows of a recipe can share them.
        start: see `heedful.attach`; None: `identity` for pretrained networks, else `paper`.

    Raises:
        InputError: for an unknown name or variant, a network in which there is no place for it, or pretrained=True for
            a network that has no pretrained weights.
    """
    variant = parse(variant) if isinstance(variant, str) else variant
    _check_images(name, variant)
    model = _plain(name, num_classes, in_channels, pretrained)
    start = start or ("identity" if pretrained else "paper")
    try:
        inside = Variant(variant.parts)
        attach(model, inside, start=start, **fitting(inside, reduction=reduction, convention=convention))
        model = model if variant.pay is None else _paying(model, variant.pay, image_size_of(name), in_channels)
    except InputError as error:
        raise InputError(f"variant {str(variant)!r} cannot go into {name}: {error}") from None
    card = ModelCard(
        model=name,
        variant=str(variant),
        reduction=reduction,
        classes=tuple(str(number) for number in range(num_classes)),
        image_size=image_size_of(name),
        mean=(0.0,) * in_channels,
        deviation=(1.0,) * in_channels,
        convention=convention,
        in_channels=in_channels,
        start=start,
    )
    saveable(model, card)
    return model


@functools.cache
def check(name: str, variant: Variant) -> None:
    """Raise InputError unless there is a network of this name and the variant can be put into it; computes nothing."""
    _check_images(name, variant)
    if name in MODELS and variant.pay is None:
        return
    with torch.device("meta"):
        build(name, variant, num_classes=2)


def _check_images(name: str, variant: Variant) -> None:
    if STREAMS.keys() >= set(name.split("+")):
        raise InputError(f"model {name!r} takes clips, not images: build_streams makes it, and task: clips trains it")
    if variant.fusion is not None:
        raise InputError(
            f"variant {str(variant)!r} fuses networks of several streams, but {name} sees images alone: "
            "build_streams('hcn+inertial', ...) makes such a network, and a recipe with task: clips trains it"
        )


def _paying(model: nn.Module, pay: Pay, image_size: int, in_channels: int) -> PayAttention:
    """Return the network with attention at its deepest levels in place of its last linear map."""
    if sum(isinstance(module, nn.Conv2d) for module in model.modules()) < 2:  # one: the patches of a transformer
        raise InputError("it is no convolutional network, so that it has no feature maps to look at")
    example = torch.empty(1, in_channels, image_size, image_size, device="meta")
    found = levels(model, example)
    model.levels = found  # type: ignore[assignment]  # nn.Module's stub allows tensors and modules alone
    if len(found) < pay.num_levels:
        raise InputError(f"it has {len(found)} levels to look at ({', '.join(found)}), not {pay.num_levels}")
    return PayAttention(
        model,
        found[-pay.num_levels :],
        compatibility=pay.compatibility,
        head=pay.head,
        gate=pay.gate,
        dropout=getattr(model, "attended_dropout", DROPOUT),
        example=example,
    )


def image_size_of(name: str) -> int:
    """Return the side in pixels of the square images that a network was made for: 32, or what timm says of its own."""
    if name in MODELS:
        return 32
    import timm

    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None else 224


def _plain(name: str, num_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    if name in MODELS:
        if pretrained:
            raise InputError(f"pretrained=True: there are no pretrained weights for {name}; use a network of timm's")
        return MODELS[name](num_classes=num_classes, in_channels=in_channels)
    import timm

    if not timm.is_model(name):
        raise unknown("model", name, [*MODELS, *timm.list_models()])
    if pretrained and timm.get_pretrained_cfg(name, allow_unregistered=False) is None:
        raise InputError(f"pretrained=True: timm has no pretrained weights for {name}")
    return timm.create_model(name, num_classes=num_classes, in_chans=in_channels, pretrained=pretrained)
