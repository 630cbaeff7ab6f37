"""Networks by name: those for CIFAR that the zoo does not have, and every network of timm, with a variant put in."""

import functools
from collections.abc import Callable

from torch import nn

from heedful.errors import InputError, unknown
from heedful.models.cifar_densenet import CifarDenseNet
from heedful.models.cifar_resnet import CifarResNet
from heedful.variant import Variant, parse

MODELS: dict[str, Callable[..., nn.Module]] = {
    **{f"cifar_resnet{depth}": functools.partial(CifarResNet, depth) for depth in (8, 20, 32, 44, 50, 56, 110)},
    "cifar_densenet40": CifarDenseNet,
}
"""Name -> network of ours, which takes attention=, num_classes= and in_channels=."""


def build(
    name: str,
    variant: str | Variant = "none",
    *,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool = False,
    reduction: int = 16,
    init_std: float | None = None,
) -> nn.Module:
    """Return a new network with the variant's attention in it.

    The same seed gives the same trunk for every variant: attention is drawn after it.

    Args:
        name: a network of ours (`MODELS`) or any name of timm's.
        variant: what to put in, in the notation of `heedful.variant`. timm's ResNet family (ResNet, ResNeXt, Wide
            ResNet, ...) takes it on the residual branch before the addition, in timm's own slot.
        num_classes: number of outputs.
        in_channels: channels of the image.
        pretrained: load timm's ImageNet weights into the trunk; the attention starts untrained.
        reduction: channels divided by the hidden width of the attention's MLPs.
        init_std: see `SqueezeExcitation`.

    Raises:
        InputError: for an unknown name or variant, a timm network without a slot for attention, or pretrained=True for
            a network that has no pretrained weights.
    """
    variant = parse(variant) if isinstance(variant, str) else variant
    attention = variant.constructor(reduction=reduction, init_std=init_std)
    if name in MODELS:
        if pretrained:
            raise InputError(f"pretrained=True: there are no pretrained weights for {name}; use a network of timm's")
        return MODELS[name](attention=attention, num_classes=num_classes, in_channels=in_channels)
    return _build_timm(name, variant, attention, num_classes, in_channels, pretrained)


def check(name: str, variant: Variant) -> None:
    """Raise InputError unless there is a network of this name and the variant can be put into it; builds nothing."""
    if name in MODELS:
        return
    import timm

    if not timm.is_model(name):
        raise unknown("model", name, [*MODELS, *timm.list_models()])
    if variant.parts and not timm.models.is_model_in_modules(name, ["resnet"]):
        raise InputError(
            f"variant {str(variant)!r} cannot go into {name!r}: of timm's networks only the ResNet family has a slot "
            "for attention; use one of these (resnet18, resnext50_32x4d, ...), a cifar_* network, or the variant none"
        )


def image_size_of(name: str) -> int:
    """Return the side in pixels of the square images that a network was made for: 32, or what timm says of its own."""
    if name in MODELS:
        return 32
    import timm

    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None else 224


def _build_timm(
    name: str, variant: Variant, attention: Callable[[int], nn.Module] | None, num_classes: int, in_channels: int,
    pretrained: bool,
) -> nn.Module:  # fmt: skip
    import timm

    check(name, variant)
    if pretrained and timm.get_pretrained_cfg(name, allow_unregistered=False) is None:
        raise InputError(f"pretrained=True: timm has no pretrained weights for {name}")
    create = functools.partial(timm.create_model, name, num_classes=num_classes, in_chans=in_channels)
    plain = create(pretrained=pretrained)
    if attention is None:
        return plain
    model = create(block_args={"attn_layer": attention})
    # Through the plain network, since timm loads pretrained weights strictly, and so that the trunk does not depend on
    # how many random numbers the attention drew.
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected, unexpected
    assert all(".se." in key for key in missing), missing
    return model
