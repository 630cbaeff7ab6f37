"""How well what a classifier heeds segments the figure of an image, which it was never shown: weak supervision.

The protocol is that of [J], Jetley, Lord, Lee and Torr, "Learn to pay attention", ICLR 2018, as far as it is known; the
scripts of its last steps are not published. Each map is enlarged to the image, stretched, binarised at Otsu's
threshold, and compared with the figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from heedful.data.batches import Channels
from heedful.errors import InputError
from heedful.evaluate.figure_data import Figures, figures_of
from heedful.evaluate.figure_scores import CLASS_MAP, FUSED, Scorer, Scores, class_named, has_cam
from heedful.evaluate.found import Found, Headline, Numbers
from heedful.evaluate.localisation import above_otsu, jaccard
from heedful.evaluate.maps import batches_of
from heedful.evaluate.runs import statistics_of
from heedful.evaluate.segmentation_sheet import Row, sheet
from heedful.maps.record import last_layer
from heedful.models.cards import ModelCard

NUM_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Agreement:
    """Jaccard and pixel accuracy of each image, gathered batch by batch; Jaccard is NaN where there is no figure."""

    jaccard: list[np.ndarray] = field(default_factory=list)
    accuracy: list[np.ndarray] = field(default_factory=list)

    def add(self, found: Bool[np.ndarray, "images size size"], masks: Bool[np.ndarray, "images size size"]) -> None:
        """Count a batch."""
        self.jaccard.append(np.where(masks.any((1, 2)), jaccard(found, masks), np.nan))
        self.accuracy.append((found == masks).mean((1, 2)))

    def numbers(self, groups: Sequence[str], labels: Int64[np.ndarray, "images"]) -> Numbers:
        """Return the means over the groups of their means, in [0, 1], and under `classes` those of each group.

        Args:
            groups: names.
            labels: of each image, a place in `groups`.
        """
        overlap, accuracy = np.concatenate(self.jaccard), np.concatenate(self.accuracy)
        columns = {
            "jaccard": overlap,
            "pixel_accuracy": accuracy,
            "pixel_accuracy_with_figure": np.where(np.isnan(overlap), np.nan, accuracy),
        }
        of_groups = {
            groups[label]: {name: _mean(values[labels == label]) for name, values in columns.items()}
            for label in np.unique(labels)
        }
        means = {name: _mean([each[name] for each in of_groups.values()]) for name in columns}
        return {**means, "classes": of_groups}


class Gathered:
    """The agreement of every score with the figures, over any number of images, and a few images to look at."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.agreements: dict[str, dict[str, Agreement]] = {"levels": {}, "scores": {}}
        self.rows: list[Row] = []
        self.num_images = self.num_empty = 0
        count = len(figures.sample.split)
        few = min(NUM_SHOWN, count)
        self.shown = {number * count // few for number in range(few)}

    def add(self, pixels: UInt8[np.ndarray, "images size size 3"], levels: Scores, scores: Scores) -> None:
        """Count the next images of the data."""
        places = range(self.num_images, self.num_images + len(pixels))
        masks = np.stack([self.figures.mask(place) for place in places])
        for kind, of_kind in (("levels", levels), ("scores", scores)):
            for name, each in of_kind.items():
                self.agreements[kind].setdefault(name, Agreement()).add(above_otsu(each), masks)
        for number in (place - places.start for place in places if place in self.shown):
            group = self.figures.groups[int(self.figures.sample.split.labels[places[number]])]
            own = [{name: each[number] for name, each in of_kind.items()} for of_kind in (levels, scores)]
            self.rows.append(Row(group, pixels[number], masks[number], *own))
        self.num_images += len(pixels)
        self.num_empty += int((~masks.any((1, 2))).sum())

    def numbers(self) -> Numbers:
        """Return the numbers of every score.

        Raises:
            InputError: if no image has a figure.
        """
        if self.num_empty == self.num_images:
            raise InputError(
                f"no image of {self.figures.sample.name} has a figure in the square that the network sees: masks must "
                "be other than black where the figure is"
            )
        labels = self.figures.sample.split.labels.cpu().numpy()
        return {
            "num_images": self.num_images,
            "num_without_figure": self.num_empty,
            **{
                kind: {name: each.numbers(self.figures.groups, labels) for name, each in agreements.items()}
                for kind, agreements in self.agreements.items()
            },
        }


def segmentation(
    model: nn.Module,
    card: ModelCard,
    source: str,
    *,
    fuse: str = "product",
    layer: str | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
) -> Found:
    """Return how well a network's own masks, and its class maps, segment the figures of images.

    Class maps are those of the class that a class folder is named after (`Horse100`, `horses`: horse), if the network
    has it, else of the class that it predicts for the image.

    Args:
        model: from normalised images to logits; it is moved to the device.
        card: of the network.
        source: a folder of images and masks, see `heedful.evaluate.figure_data`.
        fuse: how the masks of several levels become one: "product" (the geometric mean), "mean", or a level's name.
        layer: of the class maps, a dotted name; None: see `heedful.maps.record.last_layer`.
        limit: at most so many images, evenly spaced.
        device: where to compute.

    Returns:
        Numbers: `data`, `layer`, `fuse`; `map_of`: class folder -> the class of its class maps, or None for the
        predicted one; `num_images`; `num_without_figure`: of how many nothing of a figure is in the square that the
        network sees, which have no Jaccard; `scores`: the numbers of `masks` (fused), `grad-cam`, `cam` (where it is
        defined) and `centre_gaussian`; `levels`: those of each level's mask. `jaccard`, `pixel_accuracy`
        and `pixel_accuracy_with_figure` (of the images that have one) are in [0, 1], means over class folders of the
        means that are under `classes`. The picture shows a few images.

    Raises:
        InputError: if the data cannot be used, no image has a figure, or fuse or layer is unknown.
    """
    figures = figures_of(source, card.image_size).limited(limit)
    mean, deviation = statistics_of(card)
    model = model.to(device)
    batches = batches_of(figures.sample.split, mean, deviation, next(model.parameters()).device)
    first = next(iter(batches))[0][:1]
    layer = last_layer(model, first) if layer is None else layer
    scorer = Scorer(model, layer, fuse, (CLASS_MAP, "cam") if has_cam(model, first, layer) else (CLASS_MAP,))
    named = [class_named(group, card.classes) for group in figures.groups]
    classes = torch.tensor([-1 if name is None else card.classes.index(name) for name in named], device=first.device)
    gathered = Gathered(figures)
    for images, labels in batches:
        levels = scorer.levels(images)
        gathered.add(_pixels(images, mean, deviation), levels, scorer.others(images, classes[labels], levels))
    of_groups = dict(zip(figures.groups, named, strict=True))
    numbers = {"data": figures.sample.name, "layer": layer, "fuse": fuse, "map_of": of_groups, **gathered.numbers()}
    return Found(numbers, _headlines(numbers["scores"]), pictures={"segmentation": sheet(gathered.rows)})


def _headlines(scores: Mapping[str, Numbers]) -> tuple[Headline, ...]:
    names = [name for name in (FUSED, CLASS_MAP) if name in scores]
    return tuple(Headline(f"Jaccard {name}", 100 * scores[name]["jaccard"], "%", "higher") for name in names)


def _pixels(
    images: Float[Tensor, "images 3 size size"], mean: Channels, deviation: Channels
) -> UInt8[np.ndarray, "images size size 3"]:
    values = images.permute(0, 2, 3, 1).cpu().numpy() * np.array(deviation) + np.array(mean)
    return np.rint(255 * values).clip(0, 255).astype(np.uint8)


def _mean(values: Sequence[float | None] | Float[np.ndarray, "values"]) -> float | None:
    """Return the mean of those that are numbers."""
    numbers = np.array(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.mean()) if len(numbers) else None
