"""Boxes in COCO's JSON (Lin et al., "Microsoft COCO", 2014), in the folders that are common → what they list."""

import json
import os
import re
from pathlib import Path
from typing import Any

from heedful.data.box_listing import Box, BoxListing, ListedImage
from heedful.data.listing import SPLIT_NAMES
from heedful.data.pool import TRAIN
from heedful.errors import InputError

SPLIT_FILE = re.compile(r"(?:instances_)?([a-z]+?)(?:_?(?:19|20)\d\d)?")
BESIDE = "_annotations.coco.json"
UNDIVIDED = ("annotations/instances_default.json", "annotations.json", BESIDE)


def coco_files(root: Path) -> dict[Path, int]:
    """Return the JSON files of a folder, each with its split; none if the folder is in none of these layouts.

    - annotations/instances_train2017.json, instances_val2017.json: COCO's own, of any year or none;
    - train.json, val.json, test.json, in the folder or in annotations/;
    - train/_annotations.coco.json, valid/..., test/...: Roboflow's;
    - annotations.json, _annotations.coco.json or annotations/instances_default.json: one file, not divided.
    """
    for pattern in ("annotations/*.json", "*.json", f"*/{BESIDE}"):
        parts = {path: _part(path) for path in sorted(root.glob(pattern))}
        files = {path: part for path, part in parts.items() if part is not None}
        if files:
            return files
    return {root / name: TRAIN for name in UNDIVIDED if (root / name).is_file()}


def _part(path: Path) -> int | None:
    named = SPLIT_FILE.fullmatch((path.parent.name if path.name == BESIDE else path.stem).lower())
    return SPLIT_NAMES.get(named[1]) if named else None


def list_coco_boxes(root: Path) -> BoxListing:
    """Return the images of the JSON files and their boxes; the classes are the training file's categories by id.

    Ids may have gaps, as COCO's have: its 80 classes are numbered to 90. Categories of one name are one class. A box is
    [x, y, width, height] in pixels from the image's left upper corner; `iscrowd` says crowd. The images lie in
    train2017/, images/train2017/ or images/ (for instances_train2017.json) or in the folder itself; Roboflow's beside
    their JSON.

    Raises:
        InputError: if a file is broken, an entry is not as COCO has it, or an image is listed twice.
    """
    files = _one_a_split(root)
    contents = {part: _content(path) for part, path in files.items()}
    named = {part: _categories(files[part], content["categories"]) for part, content in contents.items()}
    classes = tuple(dict.fromkeys(named[TRAIN].values()))
    images: dict[Path, ListedImage] = {}
    for part, content in contents.items():
        labels = _labels(files[part], named[part], classes, files[TRAIN])
        for image in _images(root, files[part], part, content, labels):
            if image.path in images:
                raise InputError(f"{image.where} is {image.path}, as {images[image.path].where} is: keep one of them")
            images[image.path] = image
    return BoxListing(classes, tuple(images.values()))


def _one_a_split(root: Path) -> dict[int, Path]:
    """Return split → JSON file, training first."""
    parts = coco_files(root)
    files = {part: path for path, part in sorted(parts.items(), key=lambda item: item[1])}
    listed = ", ".join(path.relative_to(root).as_posix() for path in parts)
    if len(files) < len(parts):
        raise InputError(f"{root} has several JSON files for one split: {listed}; leave one for each")
    if TRAIN not in files:
        raise InputError(f"{root} has {listed}, but no JSON file for training: add instances_train.json or train.json")
    return files


def _content(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: no JSON ({error.msg}): unpack the data set again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): unpack the data set again") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path} has no list {key!r}, as COCO's files have: is it another format?")
    return content


def _categories(path: Path, categories: list[Any]) -> dict[int, str]:
    """Return id → name, in order of id."""
    names: dict[int, str] = {}
    for place, entry in enumerate(categories):
        where = f"{path}: categories[{place}]"
        number, name = _field(entry, "id", int, where), _field(entry, "name", str, where)
        if number in names:
            raise InputError(f"{where} has id {number}, as {names[number]!r} has: give each its own")
        names[number] = name
    if not names:
        raise InputError(f"{path} has no category, so there is nothing to detect: add them")
    return dict(sorted(names.items()))


def _labels(path: Path, named: dict[int, str], classes: tuple[str, ...], train: Path) -> dict[int, int]:
    """Return category id → class number."""
    for name in named.values():
        if name not in classes:
            raise InputError(f"{path} has category {name!r}, which {train} has not: give both the same categories")
    return {number: classes.index(name) for number, name in named.items()}


def _images(
    root: Path, file: Path, part: int, content: dict[str, list[Any]], labels: dict[int, int]
) -> list[ListedImage]:
    numbers = _image_numbers(file, content["images"])
    objects: list[list[tuple[Box, int, bool]]] = [[] for _ in numbers]
    for place, entry in enumerate(content["annotations"]):
        where = f"{file}: annotations[{place}]"
        number, category = _field(entry, "image_id", int, where), _field(entry, "category_id", int, where)
        if number not in numbers:
            raise InputError(f"{where}{_id(entry)} has image_id {number}, but no image has this id: mend or remove it")
        if category not in labels:
            known = ", ".join(map(str, sorted(labels)[:12])) + (", ..." if len(labels) > 12 else "")
            raise InputError(
                f"{where}{_id(entry)} has category_id {category}, but the categories have {known}: mend it"
            )
        objects[numbers[number]].append((_box(entry, where), labels[category], _is_crowd(entry, where)))
    folder = _folder(root, file, content["images"])
    return [
        ListedImage(
            path=folder / entry["file_name"],
            where=f"{file}: images[{place}]{_id(entry)}",
            part=part,
            size=_size(entry),
            boxes=tuple(box for box, _, _ in objects[place]),
            labels=tuple(label for _, label, _ in objects[place]),
            crowd=tuple(is_crowd for _, _, is_crowd in objects[place]),
        )
        for place, entry in enumerate(content["images"])
    ]


def _image_numbers(file: Path, images: list[Any]) -> dict[int, int]:
    """Return image id → place in the list."""
    if not images:
        raise InputError(f"{file} lists no image: add some, or remove the file")
    numbers: dict[int, int] = {}
    for place, entry in enumerate(images):
        where = f"{file}: images[{place}]"
        number, name = _field(entry, "id", int, where), _field(entry, "file_name", str, where)
        if number in numbers:
            raise InputError(f"{where} has id {number}, as images[{numbers[number]}] has: give each its own")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{where} has file_name {name!r}, but it must be relative to the folder, and stay in it")
        numbers[number] = place
    return numbers


def _folder(root: Path, file: Path, images: list[Any]) -> Path:
    """Return the first of the usual folders that holds any of the images."""
    # `Path.is_file` raises where a name is too long to be one.
    name = file.stem.removeprefix("instances_")
    folders = [root / name, root / "images" / name, root / "images", root]
    if file.name == BESIDE:
        folders = [file.parent]
    return next(
        (f for f in folders if any(map(os.path.isfile, (f / entry["file_name"] for entry in images)))), folders[0]
    )


def _field(entry: object, key: str, kind: type, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or value == "":
        wanted = {"int": "a whole number", "str": "a text"}[kind.__name__]
        raise InputError(f"{where}{_id(entry)} has {key} {value!r}, but must have {wanted}: mend it")
    return value


def _id(entry: object) -> str:
    return f" (id {entry['id']!r})" if isinstance(entry, dict) and "id" in entry else ""


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Return height and width as written; None if they are not, or are 0, as some tools write."""
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and height and width else None


def _box(entry: dict[str, Any], where: str) -> Box:
    box = entry.get("bbox")
    # NaN is not below anything.
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) and abs(v) < 1e9 for v in box)):
        raise InputError(f"{where}{_id(entry)} has bbox {box!r}, but must have [x, y, width, height]: mend it")
    left, top, width, height = map(float, box)
    if width < 0 or height < 0:
        raise InputError(f"{where}{_id(entry)} has bbox {box}, but width and height must be 0 or more: mend it")
    return left, top, left + width, top + height


def _is_crowd(entry: dict[str, Any], where: str) -> bool:
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InputError(f"{where}{_id(entry)} has iscrowd {crowd!r}, but must have 0 or 1: mend it")
    return bool(crowd)
