"""How often a network is wrong: top-1 and top-5 error; where images have several classes, mean average precision."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.losses import classification_loss
from heedful.temporary import evaluation_mode


@torch.inference_mode()
def classification(model: nn.Module, batches: Iterable[tuple[Any, Tensor]]) -> dict[str, float | None]:
    """Return `error` in percent, the mean `loss`, and what belongs to the kind of labels, over all images.

    Args:
        model: from images to logits; run in evaluation mode.
        batches: (images, labels), on the model's device; labels are class numbers (N,) or, of images with several
            classes, 1 for those that are there and 0 for the others (N, C).

    Returns:
        For class numbers: `error` (top-1) and `top5_error`, which is None where there are fewer than six classes, and
        the cross-entropy. For several classes: `map`, the mean average precision in percent, `error`, which is
        100 − map, `auc`, `classes_left_out`, which no image shows, and the multi-label soft margin loss.

    Raises:
        InputError: if labels are of several classes, and no image shows any.
    """
    with evaluation_mode(model):
        outputs = [(model(images).float(), labels) for images, labels in batches]
    logits, labels = torch.cat([o for o, _ in outputs]), torch.cat([t for _, t in outputs])
    found = _errors(logits, labels) if labels.ndim == 1 else _precisions(logits, labels)
    return {**found, "loss": classification_loss(logits, labels).item()}


def mean_average_precision(scores: Float[Tensor, "images classes"], labels: Int64[Tensor, "images classes"]) -> float:
    """Return the mean, in percent, of the average precision of every class that some image shows.

    Average precision is Σ (R_n − R_{n−1}) P_n over the thresholds n. The server of the VOC challenge puts for P_n the
    highest precision at that recall or beyond, which gives a little more.

    Args:
        scores: the higher, the more likely the class; only their order within a class counts.
        labels: 1 for classes that are there, 0 for the others.

    Raises:
        InputError: if no image shows any class.
    """
    from torchmetrics.functional.classification import binary_average_precision

    shown = labels.any(0).nonzero().flatten().tolist()
    if not shown:
        raise InputError(f"none of {len(labels)} images shows any class, so there is no average precision: add some")
    return 100 * fmean(binary_average_precision(_ranks(scores[:, c]), labels[:, c]).item() for c in shown)


def mean_auc(scores: Float[Tensor, "images classes"], labels: Int64[Tensor, "images classes"]) -> float | None:
    """Return the mean, in [0, 1], of the area under the ROC curve of every class; arguments as above.

    Classes that no image shows, or all, have no such curve and are left out; None if that leaves none.
    """
    from torchmetrics.functional.classification import binary_auroc

    apart = (labels.any(0) & ~labels.all(0)).nonzero().flatten().tolist()
    return fmean(binary_auroc(_ranks(scores[:, c]), labels[:, c]).item() for c in apart) if apart else None


def _ranks(scores: Tensor) -> Tensor:
    """Return the scores' ranks, equal for equal scores, in [0, 1), which torchmetrics takes as they are.

    To logits it would apply a sigmoid, which makes equal what it saturates on.
    """
    _, ranks = torch.unique(scores, return_inverse=True)
    return ranks / len(scores)


def _precisions(logits: Tensor, labels: Tensor) -> dict[str, float | None]:
    precision = mean_average_precision(logits, labels)
    left_out = int((~labels.any(0)).sum())
    return {"error": 100 - precision, "map": precision, "auc": mean_auc(logits, labels), "classes_left_out": left_out}


def _errors(logits: Tensor, labels: Tensor) -> dict[str, float | None]:
    from torchmetrics.functional.classification import multiclass_accuracy

    num_classes = logits.shape[1]

    def error(top_k: int) -> float:
        accuracy = multiclass_accuracy(logits, labels, num_classes=num_classes, average="micro", top_k=top_k)
        return 100 * (1 - accuracy.double().item())

    return {"error": error(1), "top5_error": error(5) if num_classes > 5 else None}
