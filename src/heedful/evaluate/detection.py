"""How well a detector finds objects: COCO's average precision and recall, by torchmetrics over pycocotools."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.evaluate.found import Numbers
from heedful.temporary import evaluation_mode

AREAS = ("", "_small", "_medium", "_large")
"""Of the box in pixels of the file: any, below 32², from there to 96², above; the order is COCO's."""

MOST = (1, 10, 100)
"""Detections of a class in an image that count, those of the highest scores."""

OVERLAPS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()
"""As pycocotools has them: torchmetrics' own are rounded to float32, where a recall of 0.3 is less than "0.3"."""

Prediction = Mapping[str, Tensor]
"""Of an image: `boxes` (n, 4), left, top, right, bottom; `labels` (n,) from 1; `scores` (n,)."""

Target = Mapping[str, Tensor]
"""Of an image: `boxes` and `labels` likewise, `crowd` (n,), `image` (), its number, and `scale` (4,), if it has one."""

Batches = Iterable[Sequence[Any]]
"""Pairs of a list of images and a list of their targets."""


class DetectionError:
    """COCO's metrics, of images that come batch by batch; an image that comes again is counted once.

    Boxes that are a crowd, or difficult, are neither found nor missed: a detection on one of them does not count.

    Args:
        classes: names of the labels, from label 1; without them, classes are not told apart.
    """

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.classes = tuple(classes)
        self.images: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}

    def add(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Add a batch.

        Args:
            predictions: of each image, as torchvision's detectors return them.
            targets: of each image, as `heedful.data.box_batches` gives them; boxes times `scale` are in pixels of the
                file, which COCO's sizes count.
        """
        for prediction, target in zip(predictions, targets, strict=True):
            scale = target.get("scale", torch.ones(4)).cpu()
            found = {name: prediction[name].detach().cpu() for name in ("boxes", "labels", "scores")}
            truth = {name: target[name].cpu() for name in ("boxes", "labels")}
            crowd = target["crowd"].cpu().long()
            self.images[int(target["image"])] = (
                {**found, "boxes": scale * found["boxes"]},
                {**truth, "boxes": scale * truth["boxes"], "iscrowd": crowd},
            )

    def include(self, other: "DetectionError") -> None:
        """Count what another one counted, too."""
        self.images |= other.images

    def numbers(self) -> Numbers:
        """Return all that COCO measures, in percent; None where no box of that kind is there to be found.

        `map`, the mean over classes and over overlaps (IoU) of 0.5, 0.55, ..., 0.95, `map50`, `map75`, at these
        overlaps alone, `map_small`, `map_medium`, `map_large`, `recall_1`, `recall_10`, `recall_100`, by the number of
        detections of a class in an image, `num_boxes`, and `classes`: name -> `ap`, `ap50` and `num_boxes`. Where
        COCO's own server takes the area of an object's outline, sizes are those of its box.
        """
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(
            iou_thresholds=OVERLAPS,
            rec_thresholds=RECALLS,
            max_detection_thresholds=list(MOST),
            extended_summary=True,
            sync_on_compute=False,
        )
        metric.warn_on_many_detections = False
        # In the order of the images, which decides between equal scores.
        for _, (found, truth) in sorted(self.images.items()):
            metric.update([found], [truth])
        summary = metric.compute()
        return self._summed_up(summary["precision"], summary["recall"], summary["classes"].reshape(-1).tolist())

    def percent(self) -> float:
        """Return 100 − `map`.

        Raises:
            InputError: if no image has a box.
        """
        mean = self.numbers()["map"]
        if mean is None:
            raise InputError(f"none of {len(self.images)} images has a box, so there is no average precision: add some")
        return 100 - mean

    def _summed_up(self, precision: Tensor, recall: Tensor, labels: list[int]) -> Numbers:
        """Return the means; precision is by overlap, recall, class, area and number, recall by all but the second."""
        counts = self._counts()
        numbers: Numbers = {f"map{area}": _mean(precision[..., n, -1]) for n, area in enumerate(AREAS)}
        numbers |= {"map50": _mean(precision[0, ..., 0, -1]), "map75": _mean(precision[5, ..., 0, -1])}
        numbers |= {f"recall_{most}": _mean(recall[..., 0, n]) for n, most in enumerate(MOST)}
        table = {}
        for label, name in enumerate(self.classes, start=1):
            own = precision[:, :, [n for n, there in enumerate(labels) if there == label], 0, -1]
            table[name] = {"ap": _mean(own), "ap50": _mean(own[:1]), "num_boxes": counts[label]}
        return {**numbers, "num_boxes": sum(counts), "classes": table}

    def _counts(self) -> list[int]:
        """Return how many boxes there are of each label, crowds left out."""
        of_images = [truth["labels"][truth["iscrowd"] == 0] for _, truth in self.images.values()]
        labels = torch.cat([*of_images, torch.empty(0, dtype=torch.int64)])
        return torch.bincount(labels, minlength=1 + len(self.classes)).tolist()


def detection(model: nn.Module, batches: Batches, classes: Sequence[str] = ()) -> Numbers:
    """Return what `DetectionError.numbers` does of all images.

    Args:
        model: from a list of images to a prediction of each; run in evaluation mode.
        batches: images (3, height, width) and their targets, on any device.
        classes: as for `DetectionError`.
    """
    device, error = next(model.parameters()).device, DetectionError(classes)
    with evaluation_mode(model), torch.inference_mode():
        for images, targets in batches:
            error.add(model([image.to(device) for image in images]), targets)
    return error.numbers()


def _mean(values: Tensor) -> float | None:
    """Return the mean in percent of those that are not −1, COCO's sign for classes without a box."""
    there = values[values > -1]
    return 100 * there.double().mean().item() if there.numel() else None
