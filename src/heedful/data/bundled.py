"""Data sets known by name: digits, bundled with scikit-learn, and CIFAR-10 and CIFAR-100, fetched by torchvision."""

import hashlib
import os
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
    folder = root or Path(os.environ.get("HEEDFUL_DATA") or "~/.cache/heedful").expanduser()
    try:
        parts = [dataset(folder, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name} is not in {folder} and cannot be downloaded ({error}): unpack {dataset.filename} there, which "
            f"makes {dataset.base_folder}/, or point HEEDFUL_DATA to the folder that holds it, or give an .npz file"
        ) from error
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
