"""A data set as training sees it: three splits of labelled images, and what was measured on the training split."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageArray:
    """A split held in memory: it can be moved to the training device whole and is augmented there in batches.

    Args:
        images: uint8 RGB, 0 to 255.
        labels: class numbers, from 0; of images with several labels, 1 per class that is there, else 0.
    """

    images: UInt8[Tensor, "count 3 height width"]
    labels: Int64[Tensor, "count"] | Int64[Tensor, "count classes"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "ImageArray":
        """Return the same split on another device (itself, if it is there already)."""
        return ImageArray(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A split of image files, read and transformed by a DataLoader's workers.

    Args:
        paths: one file per image; each was read once when the data set was loaded.
        labels: as of an `ImageArray`.
        image_size: side in pixels of the square that the network sees.
    """

    paths: tuple[Path, ...]
    labels: Int64[Tensor, "count"] | Int64[Tensor, "count classes"]
    image_size: int

    def __len__(self) -> int:
        return len(self.labels)


Split = ImageArray | ImageFiles


@dataclass(frozen=True, eq=False)
class DataSet:
    """Three splits that share no image, and what belongs to them.

    Args:
        name: "digits", or the name of the folder or file.
        classes: class names; a label is a place in this tuple.
        train: the images to learn from.
        val: the images to choose the best epoch by.
        test: the images to report on, looked at for nothing else.
        mean: per channel (red, green, blue) over the training split, in [0, 1].
        deviation: standard deviation, likewise; at least 1/255.
        image_size: side of the square images, in pixels.
        augmentation: the names of the augmentations that suit the data (see `AUGMENTATIONS`).
        fingerprint: hex digest of what decides the data, whatever the splits drawn from it.
        skipped: images that could not be read and were left out, relative to the folder.
        ignored: files that are not images, relative to the folder.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    image_size: int
    augmentation: tuple[str, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def multi_label(self) -> bool:
        """Whether an image may show several of the classes, or none: labels are then (count, classes) of 0 and 1."""
        return self.train.labels.ndim == 2

    @property
    def num_unlabelled(self) -> int:
        """The number of images of all splits that show none of the classes."""
        if not self.multi_label:
            return 0
        return sum(int((split.labels.sum(dim=1) == 0).sum()) for split in (self.train, self.val, self.test))
