"""Name, folder or .npz file → a data set: the pool that the source yields, divided, and the training split measured."""

import os
from pathlib import Path

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from heedful.data.bundled import read_cifar, read_digits, read_svhn
from heedful.data.dataset import DataSet, ImageArray, ImageFiles, Split
from heedful.data.folder import read_folder
from heedful.data.images import check_image_size
from heedful.data.npz import read_npz
from heedful.data.pool import Pool
from heedful.data.splits import Division, divide
from heedful.errors import InputError, unknown

NAMES = ("digits", "cifar10", "cifar100", "svhn")
FOLDER_IMAGE_SIZE = 32


def load(
    source: str,
    *,
    seed: int,
    image_size: int | None = None,
    limit: float | int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    train_per_class: int | None = None,
    test_per_class: int | None = None,
    skip_bad_images: bool = False,
    root: Path | None = None,
) -> DataSet:
    """Return a data set, divided into training, validation and test images and measured.

    Same arguments, same data set. Splits that are not given are drawn class by class, those of images with several
    labels at random; images of up to 64 × 64 pixels, and whatever is not a folder, live in memory.

    Args:
        source: "digits", "cifar10", "cifar100", "svhn", a folder (of class folders, or in one of the layouts of
            `read_folder`) or an .npz file (see `read_npz`).
        seed: decides the splits that are not given, and what a limit leaves; at least 0.
        image_size: side of the square images in pixels, 8 to 4096; None: as they are, or 32 for a folder.
        limit: use only so many of the images outside a given test split (int), or that fraction of them (float).
        val_fraction: drawn for validation, of the images outside a given test split, in (0, 1).
        test_fraction: drawn for testing if no test split is given, in (0, 1).
        train_per_class: training images of each class, exactly (see `Division`); None: all that are left.
        test_per_class: test images of each class, if no test split is given; None: `test_fraction`.
        skip_bad_images: leave unreadable images of a folder out, and list them in `skipped`, rather than raise.
        root: where the files of CIFAR and SVHN are, or go; None: $HEEDFUL_DATA, or ~/.cache/heedful.

    Raises:
        InputError: if the source is unknown or not as described, a number is out of range, an image cannot be read, or
            a class would have no image in a split.
    """
    division = Division(seed, limit, val_fraction, test_fraction, train_per_class, test_per_class)
    return _divided(read(source, image_size, skip_bad_images=skip_bad_images, root=root), division)


def divided(
    pool: Pool,
    *,
    seed: int,
    limit: float | int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    train_per_class: int | None = None,
    test_per_class: int | None = None,
) -> DataSet:
    """Return the data set of a pool that was read: its three splits, and the training split measured; see `load`."""
    return _divided(pool, Division(seed, limit, val_fraction, test_fraction, train_per_class, test_per_class))


def _divided(pool: Pool, division: Division) -> DataSet:
    indices = divide(pool.labels, pool.given, pool.classes, division)
    train, val, test = (_split(pool, index) for index in indices)
    mean, deviation = _statistics(pool, indices[0])
    return DataSet(
        name=pool.name,
        classes=pool.classes,
        train=train,
        val=val,
        test=test,
        mean=mean,
        deviation=deviation,
        image_size=pool.image_size,
        augmentation=pool.augmentation,
        fingerprint=pool.fingerprint,
        skipped=pool.skipped,
        ignored=pool.ignored,
    )


def read(
    source: str, image_size: int | None = None, *, skip_bad_images: bool = False, root: Path | None = None
) -> Pool:
    """Return all the images of a source before they are divided, so that several seeds can share them; see `load`."""
    check_image_size(image_size)
    if source == "digits":
        return read_digits(image_size=image_size)
    if source == "svhn":
        return read_svhn(root=root, image_size=image_size)
    if source in NAMES:
        return read_cifar(source, root=root, image_size=image_size)
    folder, path = folder_of(source), Path(source).expanduser()
    if folder is not None:
        return read_folder(folder, image_size=image_size or FOLDER_IMAGE_SIZE, skip_bad_images=skip_bad_images)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise InputError(
                f"{source} is a file but no .npz: give an .npz file, a folder or one of {', '.join(NAMES)}"
            )
        return read_npz(path, image_size=image_size)
    if os.sep in source or path.suffix or source.startswith("~"):
        raise InputError(f"{source}: no such file or folder; the names that are known are {', '.join(NAMES)}")
    raise unknown("data", source, [*NAMES, "a folder", "an .npz file"])


def folder_of(source: str) -> Path | None:
    """Return the folder that a source is; None for a name, even if a folder here is called so, and for a file."""
    path = Path(source).expanduser()
    return path if source and source not in NAMES and path.is_dir() else None


def _split(pool: Pool, index: Tensor) -> Split:
    labels = pool.labels[index]
    if isinstance(pool.images, Tensor):
        return ImageArray(pool.images[index], labels)
    return ImageFiles(tuple(pool.images[i] for i in index.tolist()), labels, pool.image_size)


def _statistics(pool: Pool, index: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and deviation per channel of the chosen images, in [0, 1]."""
    if isinstance(pool.images, Tensor):
        mean, square = array_moments(pool.images[index])
    else:
        assert pool.moments is not None
        mean, square = pool.moments[index].mean(dim=0)
    # A channel that never changes has deviation 0; the smallest step between two values keeps the division finite.
    deviation = (square - mean**2).clamp(min=0).sqrt().clamp(min=1 / 255)
    red, green, blue = mean.tolist()
    red_deviation, green_deviation, blue_deviation = deviation.tolist()
    return (red, green, blue), (red_deviation, green_deviation, blue_deviation)


def array_moments(images: UInt8[Tensor, "count 3 height width"]) -> Float64[Tensor, "2 3"]:
    """Return mean and mean square per channel of values in [0, 1]: summed as integers, so exactly, in any order."""
    totals = torch.zeros(2, 3, dtype=torch.int64)
    # In batches: squares take four bytes a pixel.
    for batch in torch.split(images, 2048):
        values = batch.to(torch.int32)
        totals[0] += values.sum(dim=(0, 2, 3))
        totals[1] += values.square().sum(dim=(0, 2, 3))
    num_pixels = images.numel() // 3
    return totals.double() / num_pixels / torch.tensor([[255.0], [255.0**2]], dtype=torch.float64)
