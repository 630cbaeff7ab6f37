"""A folder of class folders, with or without train/, val/ and test/ above them → a pool of images."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from heedful.data.images import SUFFIXES, moments, read_square, to_channels_first
from heedful.data.pool import TEST, TRAIN, VAL, Pool
from heedful.errors import InputError, unknown

LARGEST_IN_MEMORY = 64
"""Side in pixels up to which a folder's images live in memory: 64 × 64 RGB is 12 kB an image."""

SPLIT_NAMES = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST, "testing": TEST,
}  # fmt: skip
JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """What lies in a folder: `files` are (path, class number, TRAIN, VAL or TEST)."""

    classes: tuple[str, ...]
    files: tuple[tuple[Path, int, int], ...]
    ignored: tuple[str, ...]


def read_folder(root: Path, *, image_size: int, skip_bad_images: bool) -> Pool:
    """Return the pool of a folder's images, each of which was opened and decoded once.

    Images of up to 64 × 64 pixels are kept in memory. Where there is a train/ and a val/ but no test/, as in ImageNet,
    val/ is the test split.

    Args:
        root: holds class folders, or train/, val/ (valid/, validation/) and test/ with class folders in them.
        image_size: side of the square images, in pixels.
        skip_bad_images: leave images out that cannot be read, rather than raise.

    Raises:
        InputError: if the layout is not one of these, a class is empty or alone, or an image cannot be read.
    """
    listing = list_folder(root)
    paths = [path for path, _, _ in listing.files]
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
        labels=torch.tensor([listing.files[i][1] for i in good]),
        given=torch.tensor([listing.files[i][2] for i in good]),
        image_size=image_size,
        fingerprint=_fingerprint(root, [paths[i] for i in good]),
        augmentation=("flip", "shift") if in_memory else ("flip", "crop"),
        moments=None if in_memory else torch.from_numpy(stacked),
        skipped=tuple(bad),
        ignored=listing.ignored,
    )


def list_folder(root: Path) -> Listing:
    """Return the classes and image files of a folder, in sorted order, and which files are not images.

    Raises:
        InputError: if the layout is not one that `read_folder` takes, or a class is empty or alone.
    """
    ignored: list[Path] = []
    parts = _parts(root, ignored)
    class_folders = {part: _class_folders(folder, ignored) for part, folder in parts.items()}
    classes = sorted(class_folders[TRAIN])
    if len(classes) == 1:
        raise _one_class(class_folders[TRAIN][classes[0]])
    files: list[tuple[Path, int, int]] = []
    for part, folders in class_folders.items():
        for name, folder in folders.items():
            if name not in class_folders[TRAIN]:
                raise unknown("class", name, classes, where=f"{folder} has no counterpart in {parts[TRAIN].name}/: ")
            images = list(_images(folder, ignored))
            if not images:
                raise InputError(f"class folder {folder} holds no images: fill it or remove it")
            files.extend((path, classes.index(name), part) for path in images)
    ignored_names = tuple(sorted(path.relative_to(root).as_posix() for path in ignored))
    return Listing(tuple(classes), tuple(files), ignored_names)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in JUNK)


def _parts(root: Path, ignored: list[Path]) -> dict[int, Path]:
    """Return the folders of class folders: {TRAIN: root}, or train/ with what stands beside it."""
    entries = _entries(root)
    splits = [path for path in entries if path.is_dir() and path.name.lower() in SPLIT_NAMES]
    parts = {SPLIT_NAMES[path.name.lower()]: path for path in splits}
    if not splits:
        return {TRAIN: root}
    if len(parts) < len(splits):
        raise InputError(f"{root} holds {_names(splits)}, of which two mean the same split: keep one of them")
    if TRAIN not in parts:
        raise InputError(f"{root} holds {_names(splits)} but no train/: add it, or rename a class that has such a name")
    ignored.extend(path for path in entries if path not in splits)
    if VAL in parts and TEST not in parts:
        parts[TEST] = parts.pop(VAL)
    return parts


def _one_class(folder: Path) -> InputError:
    below = any(path.is_dir() for path in _entries(folder))
    repair = f"give {folder}, if its folders are the classes" if below else "give two or more"
    return InputError(f"{folder.parent} holds one class, {folder.name!r}, so there is nothing to tell apart: {repair}")


def _names(folders: list[Path]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)


def _class_folders(folder: Path, ignored: list[Path]) -> dict[str, Path]:
    entries = _entries(folder)
    folders = {path.name: path for path in entries if path.is_dir()}
    loose = [path for path in entries if not path.is_dir()]
    if not folders:
        num_images = sum(path.suffix.lower() in SUFFIXES for path in loose)
        raise InputError(
            f"{folder} holds {num_images or 'no'} images and no class folders: put the images of each class into a "
            f"folder of its own, such as {folder / 'cat' / '1.jpg'}"
        )
    ignored.extend(loose)
    return folders


def _images(folder: Path, ignored: list[Path]) -> Iterator[Path]:
    """Yield the image files at any depth below a class folder; note the other files."""
    for path in _entries(folder):
        if path.is_dir():
            yield from _images(path, ignored)
        elif path.suffix.lower() in SUFFIXES:
            yield path
        else:
            ignored.append(path)


def _itself(image: T) -> T:
    return image


def _read_all(
    paths: list[Path], image_size: int, *, keep: Callable[[np.ndarray], np.ndarray]
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


def _fingerprint(root: Path, paths: list[Path]) -> str:
    lines = sorted(f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
