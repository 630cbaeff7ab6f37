"""The pictures that a run leaves for its report: test images, class maps on them, and the masks of its gates."""

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heedful import data
from heedful.evaluate.evidence import evidence
from heedful.temporary import evaluation_mode

NUM_PICTURED = 8


def pictured(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], dataset: data.DataSet
) -> dict[str, NDArray[Any]]:
    """Return the arrays of `evidence.npz`: see `heedful.evaluate.evidence`, with the images as uint8 (M, H, W, 3).

    Args:
        model: the trained network.
        batches: of all test images.
        dataset: whose they are.
    """
    images, labels = one_of_each_class(batches, NUM_PICTURED)
    mean, deviation = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (dataset.mean, dataset.deviation)
    )
    pixels = ((images * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    arrays = {"images": pixels.permute(0, 2, 3, 1).cpu().numpy(), **evidence(model, (images, labels), batches)}
    return arrays | (_answers(model, images, labels) if dataset.multi_label else {})


def one_of_each_class(batches: Iterable[tuple[Tensor, Tensor]], most: int) -> tuple[Tensor, Tensor]:
    """Return the first image of each class, in the order of the classes, `most` classes at most, and the classes.

    An image of several classes may stand for any of them.
    """
    first: dict[int, Tensor] = {}
    for images, labels in batches:
        shown = labels.nonzero() if labels.ndim == 2 else torch.stack([torch.arange(len(labels)), labels.cpu()], 1)
        for index, label in shown.tolist():
            first.setdefault(label, images[index])
    chosen = sorted(first)[:most]
    images = torch.stack([first[label] for label in chosen])
    return images, torch.tensor(chosen, device=images.device)


@torch.inference_mode()
def _answers(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
    """Return what a network says of one of an image's classes: right if it is more likely there than not."""
    with evaluation_mode(model):
        scores = model(images).float()
    probabilities = scores.sigmoid().gather(1, labels[:, None])[:, 0]
    predictions = torch.where(probabilities > 0.5, labels, scores.argmax(1))
    return {"probabilities": probabilities.cpu().numpy(), "predictions": predictions.cpu().numpy()}
