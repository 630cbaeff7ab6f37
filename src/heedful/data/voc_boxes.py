"""Boxes in PASCAL VOC's XML (Everingham et al., 2010), as its archive unpacks → what it lists, with line numbers.

VOC counts pixels from 1, and both corners belong to the box: pixel k reaches from k − 1 to k, so the box reaches from
xmin − 1 to xmax. That keeps VOC's own width, xmax − xmin + 1, and is how detectron2 reads it. A box of one pixel has an
area, then. Corners that were counted from 0 come out 1 pixel larger to the left and above, and are clipped at 0.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from heedful.data.box_listing import Box, BoxListing, ListedImage
from heedful.data.images import SUFFIXES
from heedful.data.listing import read_lines
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.data.voc import SETS
from heedful.errors import InputError

Found = dict[str, tuple[int, str]]
"""Tag below an element → its line and text; under "" the element's own."""


@dataclass(frozen=True)
class _Object:
    name: str
    box: Box
    is_difficult: bool


def list_voc_boxes(root: Path) -> BoxListing:
    """Return the images of ImageSets/Main and their boxes; the classes are the names of the objects, sorted.

    The sets are train.txt (without it trainval.txt), val.txt and test.txt; test.txt counts where each of its images has
    an annotation. Without ImageSets/Main, every image with an annotation is for training. An object's parts are no
    objects. A box that is marked difficult is crowd.

    Args:
        root: holds JPEGImages/ and Annotations/.

    Raises:
        InputError: if a set or an annotation is missing or broken, or an image is in two sets.
    """
    parts, files = _parts(root), _images(root)
    annotations = {name: _annotation(root, name) for name in parts}
    read = {name: _read(path) for name, path in annotations.items()}
    classes = sorted({item.name for _, objects in read.values() for item in objects})
    if not classes:
        raise InputError(f"{root / 'Annotations'} has no object, so there is nothing to detect: add boxes")
    images = [
        ListedImage(
            path=files.get(name, root / "JPEGImages" / f"{name}.jpg"),
            where=str(annotations[name]),
            part=parts[name],
            size=size,
            boxes=tuple(item.box for item in objects),
            labels=tuple(classes.index(item.name) for item in objects),
            crowd=tuple(item.is_difficult for item in objects),
        )
        for name, (size, objects) in read.items()
    ]
    return BoxListing(tuple(classes), tuple(images))


def _annotation(root: Path, name: str) -> Path:
    return root / "Annotations" / f"{name}.xml"


def _parts(root: Path) -> dict[str, int]:
    """Return name of image → split."""
    if not (root / SETS).is_dir():
        return {path.stem: TRAIN for path in sorted((root / "Annotations").glob("*.xml"))}
    train, val, test = (root / SETS / f"{name}.txt" for name in ("train", "val", "test"))
    files = {TRAIN: train, VAL: val, TEST: test}
    if not train.is_file():
        files = {TRAIN: root / SETS / "trainval.txt", TEST: test}
    names = {part: _names(path) for part, path in files.items() if part == TRAIN or path.is_file()}
    # `Path.is_file` raises where a name is too long to be one.
    if not all(os.path.isfile(_annotation(root, name)) for name in names.get(TEST, [])):
        del names[TEST]
    parts: dict[str, int] = {}
    for part, name in ((part, name) for part, listed in names.items() for name in listed):
        if name in parts:
            raise InputError(f"{files[part]} lists {name}, which {files[parts[name]].name} lists already: keep one")
        parts[name] = part
    return parts


def _names(path: Path) -> list[str]:
    """Return the names of the images that a set lists: the first word of each line."""
    return [line.split()[0] for line in read_lines(path)]


def _images(root: Path) -> dict[str, Path]:
    """Return name → file, for the images are not always JPEGs."""
    files: dict[str, Path] = {}
    for path in sorted((root / "JPEGImages").iterdir()):
        if path.suffix.lower() in SUFFIXES:
            if path.stem in files:
                raise InputError(f"{path} and {files[path.stem].name} have one annotation: remove one of them")
            files[path.stem] = path
    return files


def _read(path: Path) -> tuple[tuple[int, int] | None, list[_Object]]:
    """Return height and width as an annotation has them (None if it has not) and its objects."""
    sides: dict[str, str] = {}
    objects: list[Found] = []
    for tags, line, text in _elements(path):
        if tags == "object":
            objects.append({"": (line, "")})
        elif tags.startswith("object/"):
            objects[-1].setdefault(tags.removeprefix("object/"), (line, text))
        elif tags.startswith("size/"):
            sides[tags.removeprefix("size/")] = text
    height, width = (int(text) if text.isdecimal() else 0 for text in (sides.get(k, "") for k in ("height", "width")))
    # Some tools write 0 × 0 where they did not look.
    return (height, width) if height and width else None, [_object(path, found) for found in objects]


def _elements(path: Path) -> list[tuple[str, int, str]]:
    """Return tags below the root, line and text of each element, in order: ElementTree forgets the lines."""
    parser = expat.ParserCreate()
    elements: list[tuple[list[str], int, list[str]]] = []
    open_elements: list[int] = []

    def start(tag: str, _: dict[str, str]) -> None:
        above = elements[open_elements[-1]][0] if open_elements else []
        open_elements.append(len(elements))
        elements.append(([*above, tag], parser.CurrentLineNumber, []))

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = lambda text: elements[open_elements[-1]][2].append(text)
    try:
        parser.Parse(path.read_bytes(), True)
    except FileNotFoundError:
        raise InputError(f"annotation {path} does not exist: add it, or take the image out of {SETS}") from None
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise InputError(f"{path}, line {error.lineno}: no XML ({reason}): unpack the data set again") from error
    except (OSError, ValueError, LookupError) as error:  # the last two: encodings that expat does not know
        raise InputError(f"annotation {path} cannot be read ({error}): save it as UTF-8") from error
    return [("/".join(tags[1:]), line, "".join(text).strip()) for tags, line, text in elements]


def _object(path: Path, found: Found) -> _Object:
    line = found[""][0]
    name = found.get("name", (line, ""))[1]
    if not name:
        raise InputError(f"{path}, line {line}: an object without a name: mend it")
    left, top, right, bottom = (_corner(path, found, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise InputError(
            f"{path}, line {line}: a {name} from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), but xmax must be at "
            "least xmin and ymax at least ymin: mend it"
        )
    return _Object(name, (left - 1, top - 1, right, bottom), found.get("difficult", (line, "0"))[1] == "1")


def _corner(path: Path, found: Found, key: str) -> float:
    line, text = found.get(f"bndbox/{key}", (found[""][0], ""))
    try:
        value = float(text)
        if math.isfinite(value):
            return value
    except ValueError:
        pass
    raise InputError(f"{path}, line {line}: {key} is {text!r}, but must be a number: mend it")
