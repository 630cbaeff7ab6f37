"""A folder of images, in whichever of the known layouts → a pool, each image decoded once."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from heedful.data.caltech256 import is_caltech256, list_caltech256
from heedful.data.class_folders import list_class_folders
from heedful.data.cub200 import is_cub200, list_cub200
from heedful.data.images import moments, read_square, to_channels_first
from heedful.data.labels_csv import has_labels_csv, list_labels_csv
from heedful.data.listing import Listing
from heedful.data.pool import Pool
from heedful.data.split_lists import has_split_lists, list_split_lists
from heedful.data.voc import is_voc, list_voc
from heedful.errors import InputError

LARGEST_IN_MEMORY = 64
"""Side in pixels up to which a folder's images live in memory: 64 × 64 RGB is 12 kB an image."""

LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Listing]], ...] = (
    (has_labels_csv, list_labels_csv),
    (is_cub200, list_cub200),
    (is_voc, list_voc),
    (has_split_lists, list_split_lists),
    (is_caltech256, list_caltech256),
)
"""How a layout is recognised and listed; a folder in none of them is one of class folders."""

T = TypeVar("T")


def read_folder(root: Path, *, image_size: int, skip_bad_images: bool) -> Pool:
    """Return the pool of a folder's images, each of which was opened and decoded once.

    Images of up to 64 × 64 pixels are kept in memory. The layouts, recognised by what lies in the folder: `labels.csv`,
    for images with several labels (see `heedful.data.labels_csv`); CUB-200-2011, PASCAL VOC and Caltech-256 as their
    archives unpack; class folders with train.txt and test.txt (see `heedful.data.split_lists`); and class folders, with
    or without train/, val/ and test/ above them, as ImageNet has them. Where there is a val but no test, val is the
    test split.

    Args:
        root: the folder.
        image_size: side of the square images, in pixels.
        skip_bad_images: leave images out that cannot be read, rather than raise.

    Raises:
        InputError: if the layout is not one of these, a class is empty or alone, or an image cannot be read.
    """
    listing = list_folder(root)
    paths = listing.paths
    in_memory = image_size <= LARGEST_IN_MEMORY
    read, reasons = _read_all(paths, image_size, keep=_itself if in_memory else moments)
    names = [path.relative_to(root).as_posix() for path in paths]
    bad = {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None}
    good = [i for i, reason in enumerate(reasons) if reason is None]
    if bad and not (skip_bad_images and good):
        raise _unreadable(root, bad, len(paths))
    stacked = np.stack([value for value in read if value is not None])
    return Pool(
        name=root.resolve().name,
        classes=listing.classes,
        images=to_channels_first(stacked) if in_memory else tuple(paths[i] for i in good),
        labels=listing.labels[good],
        given=listing.given[good],
        image_size=image_size,
        fingerprint=_fingerprint(root, listing, good),
        augmentation=("flip", "shift") if in_memory else ("flip", "crop"),
        moments=None if in_memory else torch.from_numpy(stacked),
        skipped=tuple(bad),
        ignored=listing.ignored,
    )


def list_folder(root: Path) -> Listing:
    """Return the classes, image files and labels of a folder in any of the layouts.

    Raises:
        InputError: as `read_folder`, less what concerns the images' content.
    """
    for recognises, lists in LAYOUTS:
        if recognises(root):
            return lists(root)
    return list_class_folders(root)


def _itself(image: T) -> T:
    return image


def _read_all(
    paths: Sequence[Path], image_size: int, *, keep: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[np.ndarray | None], list[str | None]]:
    """Decode every image in threads; return what to keep of each, and why it could not be read (None if it could)."""

    def read(path: Path) -> tuple[np.ndarray | None, str | None]:
        try:
            return keep(read_square(path, image_size)), None
        # Pillow's readers raise almost anything on broken bytes: OSError, SyntaxError, ValueError, struct.error, ...
        except Exception as error:
            return None, "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__

    with ThreadPoolExecutor() as threads:
        results = list(threads.map(read, paths))
    return [value for value, _ in results], [reason for _, reason in results]


def _unreadable(root: Path, bad: dict[str, str], num_images: int) -> InputError:
    shown = ", ".join(f"{name} ({reason})" for name, reason in list(bad.items())[:10])
    more = f", and {len(bad) - 10} more" if len(bad) > 10 else ""
    return InputError(
        f"{len(bad)} of {num_images} images in {root} cannot be read: {shown}{more}; "
        "mend or remove them, or pass --skip-bad-images"
    )


def _fingerprint(root: Path, listing: Listing, chosen: list[int]) -> str:
    """Return a digest of the images' names and sizes, and of labels and splits where the names do not tell them."""
    paths = listing.paths
    lines = [f"{paths[i].relative_to(root).as_posix()} {paths[i].stat().st_size}" for i in chosen]
    if listing.is_annotated:
        described = zip(lines, listing.labels[chosen].tolist(), listing.given[chosen].tolist(), strict=True)
        lines = [str(listing.classes), *(f"{line} {label} {part}" for line, label, part in described)]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
