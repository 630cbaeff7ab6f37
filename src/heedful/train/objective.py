"""What training minimises: the classification loss, or with it the losses of [W] on attention maps."""

import torch
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.losses import ICASC, Losses, Weights
from heedful.maps.record import last_layers, recorded, require_map
from heedful.train.settings import OBJECTIVES, Settings


def attention_losses(model: nn.Module, settings: Settings, images: Tensor) -> ICASC | None:
    """Return the losses of an objective called icasc on the model, or None where the classification loss is all.

    Args:
        model: the network.
        settings: of the run.
        images: one or more of the size that it is trained on, to look at its layers with.

    Raises:
        InputError: if the network has no such layers, or their maps would have fewer than 4 x 4 places.
    """
    method = OBJECTIVES[settings.objective]
    if method is None:
        return None
    try:
        inner, last = _layers(model, settings, images)
    except InputError as error:
        raise InputError(f"objective {settings.objective}, model {settings.model}: {error}") from None
    weights = settings.attention_weight
    return ICASC(
        model,
        inner,
        last,
        method=method,
        weights=Weights(*weights) if isinstance(weights, tuple) else Weights(weights, weights, weights),
        start_epoch=settings.start_epoch,
        ramp=settings.ramp,
        first_order=settings.first_order,
    )


def check_objective(model: nn.Module, settings: Settings, image_size: int) -> None:
    """Raise an InputError if the network cannot be trained for the objective; see `attention_losses`."""
    device = next(model.parameters()).device
    attention_losses(model, settings, torch.zeros(1, 3, image_size, image_size, device=device))


def parts(losses: Losses) -> dict[str, Tensor]:
    """Return the parts of a loss that are written down beside the total, unweighted and without a graph."""
    return {
        "classification": losses.classification.detach(),
        "inner_separation": losses.inner_separation.detach(),
        "last_separation": losses.last_separation.detach(),
        "consistency": losses.consistency.detach(),
    }


def _layers(model: nn.Module, settings: Settings, images: Tensor) -> tuple[str, str]:
    if settings.inner is None or settings.last is None:
        return last_layers(model, images)
    with recorded(model, [settings.inner, settings.last]) as recording:
        model(images)
    for name, output in recording.outputs.items():
        require_map(name, output, images)
    return settings.inner, settings.last
