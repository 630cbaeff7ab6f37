"""Caltech-256 as its archive unpacks (Griffin, Holub and Perona, 2007) → what it lists: 256 classes, no split given."""

import re
from pathlib import Path

import torch

from heedful.data.class_folders import entries
from heedful.data.images import SUFFIXES
from heedful.data.listing import Listing
from heedful.data.pool import TRAIN
from heedful.errors import InputError

FOLDER = "256_ObjectCategories"
CLUTTER = "257.clutter"


def is_caltech256(root: Path) -> bool:
    """Return whether the folder holds 256_ObjectCategories/, or is that folder."""
    return (root / FOLDER).is_dir() or (root / CLUTTER).is_dir() or root.resolve().name == FOLDER


def list_caltech256(root: Path) -> Listing:
    """Return the images of the classes, `ak47` from `001.ak47/` and so on, without the clutter class.

    Wang et al. (2019) leave it out too, and draw 30 or 60 training and 25 test images of each class. Images in folders
    below a class folder, of which the archive has a few by mistake, are ignored.

    Raises:
        InputError: if there are no two class folders, or one is empty.
    """
    base = root / FOLDER if (root / FOLDER).is_dir() else root
    folders = [path for path in entries(base) if re.match(r"\d{3}\.", path.name) and path.name != CLUTTER]
    if len(folders) < 2:
        raise InputError(
            f"{base} holds {len(folders)} class folders such as 001.ak47/: unpack the data set again, whole"
        )
    images, ignored = [], []
    for label, folder in enumerate(folders):
        found = {path: path.suffix.lower() in SUFFIXES for path in entries(folder)}
        if not any(found.values()):
            raise InputError(f"class folder {folder} holds no images: fill it or remove it")
        images += [(path, label) for path, is_image in found.items() if is_image]
        ignored += [path.relative_to(root).as_posix() for path, is_image in found.items() if not is_image]
    return Listing(
        classes=tuple(folder.name.partition(".")[2] for folder in folders),
        paths=tuple(path for path, _ in images),
        labels=torch.tensor([label for _, label in images]),
        given=torch.full((len(images),), TRAIN),
        ignored=tuple(ignored),
    )
