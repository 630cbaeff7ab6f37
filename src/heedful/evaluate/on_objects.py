"""Localisation as an evaluation of its own: class maps and a network's own masks, on images with boxes or masks."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from heedful.data.batches import Channels
from heedful.errors import InputError
from heedful.evaluate.found import Found, Headline, Numbers
from heedful.evaluate.located import NO_OBJECTS, OnObjects, stretched
from heedful.evaluate.maps import Question, posed
from heedful.evaluate.object_data import Sample
from heedful.evaluate.own_masks import fused, own_masks
from heedful.maps.processing import upsampled

FUSED, LEVEL = "masks", "level "
SHOWN = {"pxap": "PxAP", "max_box_acc": "MaxBoxAccV2", "jaccard": "Jaccard"}
"""Numbers that tables show, the first two that there are: Jaccard where masks were given, and so no boxes."""


def localization(
    model: nn.Module,
    sample: Sample,
    mean: Channels,
    deviation: Channels,
    *,
    layer: str | None = None,
    method: str = "grad-cam",
) -> Found:
    """Return how well the true class's map, and the network's own masks, find the objects of images.

    Args:
        model: from normalised images to logits, on the device where to compute.
        sample: images with one class each, and where their objects are.
        mean: per channel, to normalise with.
        deviation: likewise.
        layer: of the class maps, a dotted name; None: see `heedful.maps.record.last_layer`.
        method: of the class maps.

    Returns:
        Numbers: `data`, `layer`, `method`, `num_images`, `num_located`, `objects`, `boxes_without_area` and `left_out`
        as of `heedful.evaluate.maps.evaluate_maps`; `scores`: the numbers of `heedful.evaluate.located.Located` for the
        product of the network's own masks (`masks`, if it has any, see `heedful.evaluate.own_masks`), for the class
        map, under its method, and for `centre_gaussian`; `levels`: those of the masks of each level. The energy
        of `masks` is of masks that were stretched before they were fused, and so not to be compared with a level's.

    Raises:
        InputError: if images have several classes, no image has an object, or layer or method is unknown.
    """
    if sample.objects is None:
        raise InputError(f"{sample.name}: {NO_OBJECTS}: give images with one of them, see docs/evidence.md")
    batches, question = posed(model, sample, mean, deviation, layer, method)
    objects, start = OnObjects(sample), 0
    for images, labels in batches:
        objects.add(slice(start, start + len(labels)), _maps(question, images, labels), labels)
        start += len(labels)
    found = objects.numbers()
    if not objects.num_located:
        raise InputError(f"{found['left_out']['localisation']}: give images whose objects are known")
    located = {name: found.pop(name) for name in objects.located}
    scores = {name: each for name, each in located.items() if not name.startswith(LEVEL)}
    levels = {name.removeprefix(LEVEL): each for name, each in located.items() if name.startswith(LEVEL)}
    asked = {"data": sample.name, "layer": question.layer, "method": method, "num_images": len(sample.split)}
    return Found({**asked, **found, "scores": scores, "levels": levels}, _headlines(scores, method))


def _maps(
    question: Question, images: Float[Tensor, "images channels size size"], labels: Int64[Tensor, "images"]
) -> dict[str, Float[Tensor, "images _ _"]]:
    masks = own_masks(question.model, images)
    maps = {question.method: question.maps(images, labels[:, None])[:, 0]}
    if masks:
        size = (images.shape[2], images.shape[3])
        large = {name: stretched(upsampled(mask.float(), size).cpu().numpy()) for name, mask in masks.items()}
        maps = {FUSED: torch.from_numpy(fused(large, "product")), **maps}
    return {**maps, **{LEVEL + name: mask.float() for name, mask in masks.items()}}


def _headlines(scores: Numbers, method: str) -> tuple[Headline, ...]:
    names = [name for name in (FUSED, method) if name in scores]
    shown = [key for key in SHOWN if key in scores[method]][:2]
    return tuple(
        Headline(f"{SHOWN[key]} {name}", 100 * scores[name][key], "%", "higher") for name in names for key in shown
    )
