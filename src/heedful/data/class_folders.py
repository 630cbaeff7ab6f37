"""Class folders, with or without train/, val/ and test/ above them → what they list."""

from collections.abc import Iterator
from pathlib import Path

import torch

from heedful.data.images import SUFFIXES
from heedful.data.listing import SPLIT_NAMES, Listing
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError, unknown

JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def list_class_folders(root: Path) -> Listing:
    """Return the classes and image files of a folder, in sorted order, and which files are not images.

    Where there is a train/ and a val/ but no test/, as in ImageNet, val/ is the test split.

    Raises:
        InputError: if the folder holds no class folders, or a class is empty, alone or unknown in train/.
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
    return Listing(
        classes=tuple(classes),
        paths=tuple(path for path, _, _ in files),
        labels=torch.tensor([label for _, label, _ in files]),
        given=torch.tensor([part for _, _, part in files]),
        ignored=tuple(sorted(path.relative_to(root).as_posix() for path in ignored)),
    )


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted, without hidden files and what operating systems leave behind."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in JUNK)


def _parts(root: Path, ignored: list[Path]) -> dict[int, Path]:
    """Return the folders of class folders: {TRAIN: root}, or train/ with what stands beside it."""
    found = entries(root)
    splits = [path for path in found if path.is_dir() and path.name.lower() in SPLIT_NAMES]
    parts = {SPLIT_NAMES[path.name.lower()]: path for path in splits}
    if not splits:
        return {TRAIN: root}
    if len(parts) < len(splits):
        raise InputError(f"{root} holds {_names(splits)}, of which two mean the same split: keep one of them")
    if TRAIN not in parts:
        raise InputError(f"{root} holds {_names(splits)} but no train/: add it, or rename a class that has such a name")
    ignored.extend(path for path in found if path not in splits)
    if VAL in parts and TEST not in parts:
        parts[TEST] = parts.pop(VAL)
    return parts


def _one_class(folder: Path) -> InputError:
    below = any(path.is_dir() for path in entries(folder))
    repair = f"give {folder}, if its folders are the classes" if below else "give two or more"
    return InputError(f"{folder.parent} holds one class, {folder.name!r}, so there is nothing to tell apart: {repair}")


def _names(folders: list[Path]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)


def _class_folders(folder: Path, ignored: list[Path]) -> dict[str, Path]:
    found = entries(folder)
    folders = {path.name: path for path in found if path.is_dir()}
    loose = [path for path in found if not path.is_dir()]
    if not folders:
        raise _flat(folder, sum(path.suffix.lower() in SUFFIXES for path in loose))
    if folders.keys() == {"images", "masks"}:
        raise InputError(
            f"{folder} holds images/ and masks/, which are not two classes: give {folder / 'images'}, beside which the "
            "masks are found"
        )
    ignored.extend(loose)
    return folders


def _flat(folder: Path, num_images: int) -> InputError:
    message = (
        f"{folder} holds {num_images or 'no'} images and no class folders: put the images of each class into a "
        f"folder of its own, such as {folder / 'cat' / '1.jpg'}"
    )
    # ImageNet's archive of 50,000 validation images unpacks so.
    if num_images and SPLIT_NAMES.get(folder.name.lower()) in (VAL, TEST):
        message += (
            ", as in train/; for ImageNet's validation archive, torchvision.datasets.ImageNet(ROOT, split='val') "
            "makes the folders, with ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz in ROOT"
        )
    return InputError(message)


def _images(folder: Path, ignored: list[Path]) -> Iterator[Path]:
    """Yield the image files at any depth below a class folder; note the other files."""
    for path in entries(folder):
        if path.is_dir():
            yield from _images(path, ignored)
        elif path.suffix.lower() in SUFFIXES:
            yield path
        else:
            ignored.append(path)
