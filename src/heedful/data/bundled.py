"""Data sets known by name: digits, bundled with scikit-learn; CIFAR-10, CIFAR-100 and SVHN, fetched by torchvision."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from heedful.data.images import resize, to_channels_first
from heedful.data.pool import TEST, TRAIN, Pool
from heedful.errors import InputError


def read_digits(*, image_size: int | None) -> Pool:
    """Return scikit-learn's 1797 handwritten digits, 8 × 8 pixels, scaled bilinearly if an image size is given."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Their values are 0 to 16.
    grey = (bunch.images * (255 / 16)).round().astype(np.uint8)
    images = to_channels_first(grey)
    return Pool(
        name="digits",
        classes=tuple(str(name) for name in bunch.target_names),
        images=images if image_size is None else resize(images, image_size),
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
        given=torch.full((len(grey),), TRAIN),
        image_size=image_size or grey.shape[1],
        fingerprint=hashlib.sha256(grey.tobytes()).hexdigest(),
        # A mirrored digit is no digit, and what surrounds one is black.
        augmentation=("shift-zero",),
    )


def read_cifar(name: str, *, root: Path | None, image_size: int | None) -> Pool:
    """Return CIFAR-10 or CIFAR-100, downloaded unless the files lie in `root` already; its test split is given.

    Args:
        name: "cifar10" or "cifar100".
        root: holds `cifar-10-batches-py` or `cifar-100-python`; None: $HEEDFUL_DATA, or ~/.cache/heedful.
        image_size: side in pixels to scale the 32 × 32 images to; None: as they are.

    Raises:
        InputError: if the files are not there and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    folder = root or _default_root()
    with _asking_for(name, folder, f"unpack {dataset.filename} there, which makes {dataset.base_folder}/"):
        parts = [dataset(folder, train=train, download=True) for train in (True, False)]
    arrays = np.concatenate([part.data for part in parts])
    images = to_channels_first(arrays)
    given = [torch.full((len(part.data),), key) for part, key in zip(parts, (TRAIN, TEST), strict=True)]
    return Pool(
        name=name,
        classes=tuple(parts[0].classes),
        images=images if image_size is None else resize(images, image_size),
        labels=torch.tensor([label for part in parts for label in part.targets]),
        given=torch.cat(given),
        image_size=image_size or arrays.shape[1],
        fingerprint=hashlib.sha256(arrays.tobytes()).hexdigest(),
    )


def read_svhn(*, root: Path | None, image_size: int | None) -> Pool:
    """Return the street view house numbers, digits of 32 × 32 pixels, without the extra ones; the test split is given.

    Args:
        root: holds `train_32x32.mat` and `test_32x32.mat`; None: $HEEDFUL_DATA, or ~/.cache/heedful.
        image_size: side in pixels to scale the images to; None: as they are.

    Raises:
        InputError: if the files are not there and cannot be downloaded.
    """
    from torchvision.datasets import SVHN

    folder = root or _default_root()
    names = [SVHN.split_list[split][1] for split in ("train", "test")]
    with _asking_for("svhn", folder, f"put {' and '.join(names)} there"):
        parts = [SVHN(folder, split=split, download=True) for split in ("train", "test")]
    arrays = np.concatenate([np.ascontiguousarray(part.data) for part in parts])
    images = torch.from_numpy(arrays)
    given = [torch.full((len(part.data),), key) for part, key in zip(parts, (TRAIN, TEST), strict=True)]
    return Pool(
        name="svhn",
        classes=tuple("0123456789"),
        images=images if image_size is None else resize(images, image_size),
        labels=torch.from_numpy(np.concatenate([part.labels for part in parts])),
        given=torch.cat(given),
        image_size=image_size or arrays.shape[2],
        fingerprint=hashlib.sha256(arrays.tobytes()).hexdigest(),
        # A mirrored digit is no digit.
        augmentation=("shift",),
    )


def _default_root() -> Path:
    return Path(os.environ.get("HEEDFUL_DATA") or "~/.cache/heedful").expanduser()


@contextmanager
def _asking_for(name: str, folder: Path, repair: str) -> Iterator[None]:
    """Raise InputError, with what can be done, if the files of a data set are neither there nor can be fetched."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name} is not in {folder} and cannot be downloaded ({error}): {repair}, or point HEEDFUL_DATA to the "
            "folder that holds it, or give an .npz file"
        ) from error
