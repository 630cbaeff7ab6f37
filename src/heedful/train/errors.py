"""The error of an epoch, counted batch by batch: wrong images in percent, or 100 − mAP where images have classes."""

import torch
from torch import Tensor

from heedful.evaluate.classification import mean_average_precision


class TopOneError:
    """The part of the images whose first guess is wrong, in percent; nothing is read back before it is asked for."""

    def __init__(self) -> None:
        self._num_wrong: Tensor | int = 0
        self._num_images = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (N, C), class numbers (N,)."""
        self._num_wrong = self._num_wrong + (logits.detach().argmax(1) != labels).sum()
        self._num_images += len(labels)

    def include(self, other: "TopOneError") -> None:
        """Count what another one counted, too."""
        self._num_wrong = self._num_wrong + other._num_wrong
        self._num_images += other._num_images

    def percent(self) -> float:
        """Return the error over all batches."""
        return 100 * int(self._num_wrong) / self._num_images


class RankingError:
    """100 − mAP, of images that may have several classes; keeps all logits."""

    def __init__(self) -> None:
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Keep a batch: logits (N, C), 1 for each class that is there and 0 for the others (N, C)."""
        self._logits.append(logits.detach().float())
        self._labels.append(labels)

    def include(self, other: "RankingError") -> None:
        """Count what another one counted, too."""
        self._logits += other._logits
        self._labels += other._labels

    def percent(self) -> float:
        """Return the error over all batches."""
        return 100 - mean_average_precision(torch.cat(self._logits), torch.cat(self._labels))
