"""What the maps of a network are worth: every number about them that the data allow, for the true class's map."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from heedful.data.batches import Batches, Channels, Moved
from heedful.data.dataset import ImageArray, Split
from heedful.errors import InputError
from heedful.evaluate.faithfulness import area, deletion, insertion
from heedful.evaluate.found import Numbers
from heedful.evaluate.located import OnObjects
from heedful.evaluate.object_data import Sample
from heedful.evaluate.randomisation import randomisation
from heedful.evaluate.separation import overlap, separation, true_and_confusing
from heedful.maps.attention import attention_maps
from heedful.maps.classes import chosen, top
from heedful.maps.gradients import widened
from heedful.maps.processing import upsampled
from heedful.maps.record import last_layer
from heedful.temporary import evaluation_mode

NUM_SLOW = 256
BATCH_SIZE = 64
NUM_CHART_POINTS = 201


@dataclass(frozen=True, eq=False)
class Question:
    """Which maps of which network.

    Args:
        model: from normalised images to logits, on the device where to compute.
        layer: dotted name.
        method: a name in `heedful.maps.attention.METHODS`.
    """

    model: nn.Module
    layer: str
    method: str

    def maps(
        self, images: Float[Tensor, "images channels height width"], classes: Int64[Tensor, "images chosen"]
    ) -> Float[Tensor, "images chosen h w"]:
        """Return the maps of these classes."""
        return attention_maps(self.model, images, layers=[self.layer], classes=classes, method=self.method)[self.layer]

    def probabilities(self, images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images classes"]:
        """Return the network's probabilities of all classes."""
        with evaluation_mode(self.model), torch.inference_mode():
            return widened(self.model(images)).softmax(1)


def evaluate_maps(
    model: nn.Module,
    sample: Sample,
    mean: Channels,
    deviation: Channels,
    *,
    layer: str | None = None,
    method: str = "grad-cam",
    num_slow: int = NUM_SLOW,
) -> Numbers:
    """Return what is to be said of a network's maps, as plain numbers, lists and dicts.

    Args:
        model: from normalised images to logits, on the device where to compute.
        sample: images with one class each, and where their objects are if that is known.
        mean: per channel, to normalise with.
        deviation: likewise.
        layer: dotted name; None: the last that has 4 x 4 places, see `heedful.maps.record.last_layer`.
        method: of the maps.
        num_slow: at most so many images, evenly spaced, for insertion, deletion and randomisation, which take some
            fifty passes together.

    Returns:
        `data`, `layer`, `method`, `num_images`; `ks`, `ks_at`, `ks_true_is_higher` and `chart`, the KS statistic and
        its chart, see `Separation`; `overlap` of the maps of true and most confusing class; `zero_maps`, the number of
        images whose map is 0 everywhere; over `num_slow` images the areas `insertion` and `deletion`, and
        `randomisation`, part -> mean rank correlation; `objects`, boxes or masks or None, and with them `localisation`
        and `centre_gaussian`, the same numbers of the maps and of a Gaussian in the middle, both over `num_located`
        images; and `left_out`, what could not be said -> why. Numbers that no image has are None.

    Raises:
        InputError: if images have several classes, the network has fewer than two, or layer or method is unknown.
    """
    batches, question = posed(model, sample, mean, deviation, layer, method)
    device, few = next(model.parameters()).device, sample.limited(num_slow)
    return {
        "data": sample.name,
        "layer": question.layer,
        "method": method,
        "num_images": len(sample.split),
        **_all_images(question, sample, batches),
        "num_slow": len(few.split),
        **_slow(question, batches_of(few.split, mean, deviation, device)),
    }


def posed(
    model: nn.Module, sample: Sample, mean: Channels, deviation: Channels, layer: str | None, method: str
) -> tuple[Iterable[tuple[Tensor, Tensor]], Question]:
    """Return the batches of a sample, and the question about them; arguments and errors as of `evaluate_maps`."""
    if sample.split.labels.ndim != 1:
        raise InputError(f"{sample.name} has images with several classes, but maps are evaluated for one true class")
    batches = batches_of(sample.split, mean, deviation, next(model.parameters()).device)
    first, _ = next(iter(batches))
    return batches, Question(model, last_layer(model, first[:1]) if layer is None else layer, method)


def batches_of(
    split: Split, mean: Channels, deviation: Channels, device: torch.device
) -> Iterable[tuple[Tensor, Tensor]]:
    """Return images, normalised, and labels of a split in order, in batches, on the device."""
    if isinstance(split, ImageArray):
        return Batches(split.to(device), mean, deviation, BATCH_SIZE)
    from heedful.data.file_batches import file_batches  # torchvision takes a second to import

    return Moved(file_batches(split, mean, deviation, BATCH_SIZE), device)


def _all_images(question: Question, sample: Sample, batches: Iterable[tuple[Tensor, Tensor]]) -> Numbers:
    both, overlaps, zero_maps, start = [], [], 0, 0
    objects = OnObjects(sample)
    for images, labels in batches:
        probabilities = question.probabilities(images)
        both.append(true_and_confusing(probabilities, labels))
        classes = torch.cat([labels[:, None], chosen(top(1, but=labels), probabilities)], 1)
        maps = question.maps(images, classes)
        overlaps.append(overlap(maps[:, 0], maps[:, 1]))
        zero_maps += int((maps[:, 0].amax((1, 2)) <= 0).sum())
        objects.add(slice(start, start + len(labels)), {"localisation": maps[:, 0]}, labels)
        start += len(labels)
    true, confusing = torch.cat(both, 1).cpu().numpy()
    found = separation(true, confusing, num_points=NUM_CHART_POINTS)
    curves = ("probabilities", "true", "confusing")
    return {
        "ks": found.statistic,
        "ks_at": found.location,
        "ks_true_is_higher": found.true_is_higher,
        "overlap": _mean(torch.cat(overlaps).cpu().numpy()),
        "zero_maps": zero_maps,
        **objects.numbers(),
        "chart": {name: getattr(found, name).round(6).tolist() for name in curves},
    }


def _slow(question: Question, batches: Iterable[tuple[Tensor, Tensor]]) -> Numbers:
    areas: dict[str, list[np.ndarray]] = {"insertion": [], "deletion": []}
    curves: tuple[Callable[..., Tensor], ...] = (insertion, deletion)
    for images, labels in batches:
        maps = question.maps(images, labels[:, None])[:, 0]
        large = upsampled(maps, (images.shape[2], images.shape[3]))
        for values, curve in zip(areas.values(), curves, strict=True):
            values.append(area(curve(question.model, images, large, labels)).cpu().numpy())

    def explain() -> Tensor:
        return torch.cat([question.maps(images, labels[:, None])[:, 0].cpu() for images, labels in batches])

    similar = randomisation(question.model, explain)
    return {
        **{name: _mean(np.concatenate(values)) for name, values in areas.items()},
        "randomisation": {part: _mean(values) for part, values in similar.items()},
    }


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of those that are numbers."""
    numbers = values[np.isfinite(values)]
    return float(numbers.mean()) if len(numbers) else None
