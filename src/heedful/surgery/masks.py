"""What the gates of a network do to its maps: recorded, bypassed, and audited."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from heedful.errors import InputError
from heedful.surgery.gating import Gated, counted, gates_of
from heedful.temporary import evaluation_mode, exchanged


@dataclass(frozen=True)
class Audited:
    """What `audit` saw of one gated module.

    Args:
        name: of the module.
        num_calls: how often its gate was called in one forward pass.
        gradient: Euclidean norm of the gradient of its parameters, its gate's included; None: it has none to train.
    """

    name: str
    num_calls: int
    gradient: float | None


def audit(model: nn.Module, images: Any) -> list[Audited]:
    """Check that every attention in the network is used: called in a forward pass, and reached by the gradient.

    Attention that is built but never called is a mistake that trains without an error; so is one that is called while
    its result is thrown away.

    Args:
        model: any module with gates (see `gates_of`); run in evaluation mode, and not changed.
        images: an input of the network.

    Raises:
        InputError: if the network has no gate, or some attention is not called or gets no gradient: it is named.
    """
    gates = gates_of(model)
    if not gates:
        raise InputError("the network has no attention to audit: none of heedful's, timm's or torchvision's is in it")
    parameters = [[p for p in gated.module.parameters() if p.requires_grad] for gated in gates]
    with counted(gates) as counts, evaluation_mode(model), torch.enable_grad():
        # Sums of squares, since the sum alone of e.g. a softmax has no gradient.
        outcome = torch.stack([tensor.square().sum() for tensor in _tensors(model(images))]).sum()
        flat = [parameter for own in parameters for parameter in own]
        gradients = iter(torch.autograd.grad(outcome, flat, allow_unused=True)) if flat else iter(())
    rows = []
    for gated, count, own in zip(gates, counts, parameters, strict=True):
        norms = [
            0.0 if gradient is None else gradient.norm().item() for _, gradient in zip(own, gradients, strict=False)
        ]
        rows.append(Audited(gated.name, count.num_calls, math.hypot(*norms) if own else None))
    idle = [row.name for row in rows if row.num_calls == 0 or row.gradient == 0]
    if idle:
        raise InputError(f"attention without effect, not called or without a gradient: {', '.join(idle)}")
    return rows


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]


@dataclass
class Record:
    """Masks that were recorded: name of the gated module -> one tensor for each call, on the CPU."""

    masks: dict[str, list[Tensor]] = field(default_factory=dict)
    neutral: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        """Return the masks of all recorded calls of a module, one after the other along the images."""
        return torch.cat(self.masks[name])

    def names(self) -> list[str]:
        """Return the gated modules that were called, in the order of the network."""
        return [name for name, masks in self.masks.items() if masks]

    def clear(self) -> None:
        """Forget what was recorded."""
        for masks in self.masks.values():
            masks.clear()

    def summary(self, labels: Tensor | None = None) -> list["MaskSummary"]:
        """Return one row for each gated module in the order of the network, and with labels one for each class too.

        Args:
            labels: (N,) class of each recorded image, in the order in which they passed.
        """
        rows = []
        for name in self.names():
            factor = self[name] + (1 - self.neutral[name])  # what the map is multiplied by
            rows.append(_summary(name, None, factor))
            for label in [] if labels is None else torch.unique(labels).tolist():
                rows.append(_summary(name, label, factor[(labels == label).cpu()]))
        return rows


@dataclass(frozen=True)
class MaskSummary:
    """How a gated module weighted its maps; a weight of 1 changes nothing.

    Args:
        name: of the gated module.
        label: class of the images, or None: all.
        mean: of the weights.
        deviation: of the weights.
        between_images: deviation of a weight from image to image, the mean over the weights: 0 is a mask that does not
            look at the image.
        saturated: share of the weights within 0.01 of 0 or of 1.
        suppressed: share of the weights below 0.5.
    """

    name: str
    label: int | None
    mean: float
    deviation: float
    between_images: float
    saturated: float
    suppressed: float


def _summary(name: str, label: int | None, factor: Tensor) -> MaskSummary:
    saturated = (factor < 0.01) | ((factor - 1).abs() < 0.01)
    return MaskSummary(
        name,
        label,
        mean=factor.mean().item(),
        deviation=factor.std(correction=0).item(),
        between_images=factor.std(0, correction=0).mean().item(),
        saturated=saturated.float().mean().item(),
        suppressed=(factor < 0.5).float().mean().item(),
    )


@contextmanager
def record(model: nn.Module) -> Iterator[Record]:
    """Within the context, every forward pass adds the mask of every gate to the record that this yields.

    Masks are copied to the CPU in float32 and kept until `clear`: over a large data set, summarise batch by batch.

    Args:
        model: any module with gates (see `gates_of`); training mode or not, as it is.
    """
    gates = gates_of(model)
    kept = Record({g.name: [] for g in gates}, {g.name: g.neutral for g in gates})

    def recording(gated: Gated) -> Callable[..., Tensor]:
        gate = gated.gate

        def weigh(logits: Tensor, *_: Any) -> Tensor:
            mask = gate(logits)
            kept.masks[gated.name].append(mask.detach().float().cpu())
            return mask

        return weigh

    with exchanged([(gated.module, gated.attribute, recording(gated)) for gated in gates]):
        yield kept


@contextmanager
def bypass(model: nn.Module, masks: str = "one") -> Iterator[None]:
    """Within the context, every gate's mask is replaced: the ablation that shows what attention does for a network.

    Args:
        model: any module with gates (see `gates_of`).
        masks: `one`: the network without attention; `mean`: each image gets the mean mask of its batch, which does not
            look at the image; `shuffled`: each image gets the mask of another, drawn anew in every call from torch's
            generator.

    Raises:
        InputError: if `masks` is something else, or the network has no gate.
    """
    if masks not in _REPLACEMENTS:
        raise InputError(f"masks is {masks!r}, but it must be one of {', '.join(_REPLACEMENTS)}")
    gates = gates_of(model)
    if not gates:
        raise InputError(
            "the network has no gate to bypass: no attention of heedful's, timm's or torchvision's is in it"
        )

    def replacing(gated: Gated) -> Callable[..., Tensor]:
        gate, neutral = gated.gate, gated.neutral
        return lambda logits, *_: _REPLACEMENTS[masks](gate(logits), neutral)

    with exchanged([(gated.module, gated.attribute, replacing(gated)) for gated in gates]):
        yield


_REPLACEMENTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "one": lambda mask, neutral: torch.full_like(mask, neutral),
    "mean": lambda mask, neutral: mask.mean(0, keepdim=True).expand_as(mask),
    "shuffled": lambda mask, neutral: mask[torch.randperm(len(mask), device=mask.device)],
}
