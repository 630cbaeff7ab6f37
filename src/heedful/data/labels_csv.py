"""A folder with a `labels.csv` → what it lists: images with several labels each, or none.

The first line names the columns. The first column is the path of an image, relative to the folder; each further one is
a class, 1 where it is in the image and 0 where it is not. A column `split`, if there is one, says train, val or test:

    path,cat,dog,split
    photos/1.jpg,1,0,train
    photos/2.jpg,1,1,train
    photos/3.jpg,0,0,test
"""

import csv
from pathlib import Path

import torch

from heedful.data.listing import SPLIT_NAMES, Listing, listed_files, val_as_test
from heedful.data.pool import TRAIN
from heedful.errors import InputError, unknown

FILE = "labels.csv"
SPLIT = "split"

OR_RENAME = "; or rename the file, if the class folders hold the labels"

Row = tuple[int, list[str]]
"""The number of a line, from 1, and its cells."""


def has_labels_csv(root: Path) -> bool:
    """Return whether the folder has such a file."""
    return (root / FILE).is_file()


def list_labels_csv(root: Path) -> Listing:
    """Return the images that a folder's `labels.csv` lists, in its order.

    As in other folders, val is the test split where there is a val but no test.

    Raises:
        InputError: if the file is not as this module describes, or an image is listed twice or does not exist.
    """
    path = root / FILE
    header, rows = _rows(path)
    place = header.index(SPLIT, 1) if SPLIT in header[1:] else None
    columns = [column for column in range(1, len(header)) if column != place]
    classes = tuple(header[column] for column in columns)
    _check_classes(path, classes)
    labels = [_numbers(path, row, columns, classes) for row in rows]
    given = [TRAIN if place is None else _part(path, row, place) for row in rows]
    return Listing(
        classes=classes,
        paths=listed_files(root, [cells[0] for _, cells in rows], path),
        labels=torch.tensor(labels),
        given=val_as_test(torch.tensor(given)),
        is_annotated=True,
    )


def _rows(path: Path) -> tuple[list[str], list[Row]]:
    """Return the first line and the others, without spaces around the cells; blank lines are left out."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a table in UTF-8 separated by commas ({error}): save it as CSV") from error
    if len(rows) < 2:
        raise InputError(f"{path} lists no image: below the first line, path,cat,dog, each line is one, 1.jpg,1,0")
    (_, header), *rest = rows
    for line, cells in rest:
        if len(cells) != len(header):
            raise InputError(f"{path}, line {line}: {len(cells)} cells, but the first line names {len(header)} columns")
    return header, rest


def _check_classes(path: Path, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise InputError(
            f"{path} names {len(classes)} classes in its first line, but must name two or more, separated by commas: "
            f"path,cat,dog{OR_RENAME}"
        )
    for number, name in enumerate(classes):
        if not name or name in classes[:number]:
            raise InputError(
                f"{path} has {name!r} twice or blank in its first line: give each class a name of its own{OR_RENAME}"
            )


def _numbers(path: Path, row: Row, columns: list[int], classes: tuple[str, ...]) -> list[int]:
    line, cells = row
    for name, column in zip(classes, columns, strict=True):
        if cells[column] not in ("0", "1"):
            raise InputError(
                f"{path}, line {line}: {cells[column]!r} for class {name!r}, but it must be 1 (in the image) or "
                f"0{OR_RENAME}"
            )
    return [int(cells[column]) for column in columns]


def _part(path: Path, row: Row, place: int) -> int:
    line, cells = row
    if cells[place].lower() not in SPLIT_NAMES:
        raise unknown("split", cells[place], ("train", "val", "test"), where=f"{path}, line {line}: ")
    return SPLIT_NAMES[cells[place].lower()]
