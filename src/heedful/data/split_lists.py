"""Class folders with lists of the training and test images, `train.txt` and `test.txt` → what they list.

A line is the path of an image, relative to the folder of class folders: CLASS/file. The lists lie beside the class
folders, or, as Caltech-101's archive has a folder for them, beside that:

    train.txt  test.txt  101_ObjectCategories/ant/image_0001.jpg ...

There may be a `val.txt`, too. Images that no list has are left out.
"""

from pathlib import Path, PurePosixPath

import torch

from heedful.data.class_folders import entries
from heedful.data.listing import SPLIT_NAMES, Listing, val_as_test
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError

LISTS = {TRAIN: "train.txt", VAL: "val.txt", TEST: "test.txt"}

Line = tuple[Path, int]
"""A list, and the number of a line in it, from 1."""


def has_split_lists(root: Path) -> bool:
    """Return whether the folder has train.txt and test.txt or val.txt, and no folders train/, val/ or test/."""
    there = {part for part, name in LISTS.items() if (root / name).is_file()}
    has_folders = any(path.is_dir() and path.name.lower() in SPLIT_NAMES for path in entries(root))
    return TRAIN in there and len(there) > 1 and not has_folders


def list_split_lists(root: Path) -> Listing:
    """Return the images in the order of the lists; a class is the first folder of an image's path.

    As in other folders, val is the test split where there is a val but no test.

    Raises:
        InputError: if a list is empty, a line is no path of an image in a class folder or stands there twice, or fewer
            than two classes are listed.
    """
    listed = {part: _listed(root / name) for part, name in LISTS.items()}
    base = _base(root, listed[TRAIN][0][1])
    given: dict[str, int] = {}
    lines: dict[str, Line] = {}
    for part, of_part in listed.items():
        for line, image in of_part:
            _check(base, image, line, lines.get(image))
            given[image], lines[image] = part, line
    names = [PurePosixPath(image).parts[0] for image in given]
    classes = tuple(sorted(set(names)))
    if len(classes) < 2:
        raise InputError(f"the lists in {root} have one class, {classes[0]!r}, but there must be two or more")
    return Listing(
        classes=classes,
        paths=tuple(base / image for image in given),
        labels=torch.tensor([classes.index(name) for name in names]),
        given=val_as_test(torch.tensor(list(given.values()))),
        is_annotated=True,
    )


def _base(root: Path, image: str) -> Path:
    """Return the folder of class folders, which holds the image: the root, or a folder in it."""
    places = [root, *(path for path in entries(root) if path.is_dir())]
    return next((place for place in places if (place / image).is_file()), root)


def _listed(path: Path) -> list[tuple[Line, str]]:
    """Return the lines of a list that are not blank; none if there is no such list."""
    if not path.is_file():
        return []
    try:
        texts = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): it must be text in UTF-8, a path in each line") from error
    stripped = [(number, text.strip()) for number, text in enumerate(texts, start=1)]
    found = [((path, number), str(PurePosixPath(text))) for number, text in stripped if text]
    if not found:
        raise InputError(f"{path} is empty: list images in it, as CLASS/file in each line, or remove it")
    return found


def _check(base: Path, image: str, line: Line, before: Line | None) -> None:
    where = f"{line[0]}, line {line[1]}: {image}"
    relative = PurePosixPath(image)
    if relative.is_absolute() or ".." in relative.parts or len(relative.parts) < 2:
        raise InputError(f"{where} must be CLASS/file, relative to {base}")
    if before is not None:
        raise InputError(f"{where} is in line {before[1]} of {before[0].name} already: keep one of them")
    if not (base / image).is_file():
        raise InputError(f"{where} does not exist in {base}: add it, or take it out of the list")
