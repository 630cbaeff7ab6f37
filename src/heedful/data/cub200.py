"""CUB-200-2011 as its archive unpacks (Wah et al., 2011) → what it lists, with its own test split; and its boxes."""

from collections.abc import Container
from pathlib import Path

import torch

from heedful.data.listing import Listing, listed_files, read_lines
from heedful.data.pool import TEST, TRAIN
from heedful.errors import InputError

IMAGES, LABELS, SPLIT, CLASSES = "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"
BOXES = "bounding_boxes.txt"

Box = tuple[float, float, float, float]


def is_cub200(root: Path) -> bool:
    """Return whether the folder holds images.txt and image_class_labels.txt."""
    return (root / IMAGES).is_file() and (root / LABELS).is_file()


def list_cub200(root: Path) -> Listing:
    """Return the images in the order of images.txt; a class is `Laysan_Albatross` from `002.Laysan_Albatross`.

    Raises:
        InputError: if a file is missing or two disagree, and which.
    """
    names, classes = _column(root / IMAGES), _column(root / CLASSES)
    labels = _of_images(root, LABELS, names, classes)
    splits = _of_images(root, SPLIT, names, ("0", "1"))
    places = {number: place for place, number in enumerate(classes)}
    return Listing(
        classes=tuple(name.partition(".")[2] or name for name in classes.values()),
        paths=listed_files(root / "images", names.values(), root / IMAGES),
        labels=torch.tensor([places[labels[image]] for image in names]),
        given=torch.tensor([TRAIN if splits[image] == "1" else TEST for image in names]),
        is_annotated=True,
    )


def cub_boxes(root: Path) -> dict[str, Box]:
    """Return the box around the bird of each image, by the image's path relative to the folder.

    Args:
        root: the folder of CUB-200-2011; its bounding_boxes.txt has left, top, width and height.

    Returns:
        Left, top, right and bottom in pixels of the image file, corners inclusive: right = left + width − 1.

    Raises:
        InputError: if a file is missing, two disagree, or a box is not four numbers.
    """
    names = _column(root / IMAGES)
    texts = _of_images(root, BOXES, names)
    return {f"images/{name}": _box(root / BOXES, image, texts[image]) for image, name in names.items()}


def _column(path: Path) -> dict[str, str]:
    """Return what a file says of each number: every line is a number, a space and the rest."""
    column: dict[str, str] = {}
    for line in read_lines(path):
        number, _, rest = line.partition(" ")
        if not number.isdecimal() or not rest:
            raise InputError(f"{path} has the line {line!r}, but lines are a number, a space and what belongs to it")
        if number in column:
            raise InputError(f"{path} has number {number} twice: unpack the data set again, whole")
        column[number] = rest.strip()
    if not column:
        raise InputError(f"{path} is empty: unpack the data set again, whole")
    return column


def _of_images(root: Path, file: str, names: dict[str, str], allowed: Container[str] | None = None) -> dict[str, str]:
    """Return what a file says of each image, which it must say of those in images.txt and of no other."""
    column = _column(root / file)
    different = sorted(column.keys() ^ names.keys(), key=int)
    if different:
        where = (file, IMAGES) if different[0] in column else (IMAGES, file)
        raise InputError(
            f"{root}: {len(different)} images stand in one of {IMAGES} and {file} alone; the first, {different[0]}, in "
            f"{where[0]} and not in {where[1]}: unpack the data set again, whole"
        )
    wrong = [image for image, value in column.items() if allowed is not None and value not in allowed]
    if wrong:
        means = "0 (test) or 1 (training)" if file == SPLIT else f"a number in {CLASSES}"
        raise InputError(f"{root / file} says {column[wrong[0]]!r} of image {wrong[0]}, but it must be {means}")
    return column


def _box(path: Path, image: str, text: str) -> Box:
    try:
        left, top, width, height = map(float, text.split())
    except ValueError:
        raise InputError(f"{path} says {text!r} of image {image}, but a box is four numbers") from None
    return left, top, left + width - 1, top + height - 1
