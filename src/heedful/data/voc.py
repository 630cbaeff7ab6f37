"""PASCAL VOC as its archive unpacks (Everingham et al.) → what it lists: images with several labels each."""

from pathlib import Path
from xml.etree import ElementTree

import torch

from heedful.data.listing import Listing, listed_files, read_lines, val_as_test
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError

FOLDERS = ("JPEGImages", "Annotations")
SETS = Path("ImageSets") / "Main"


def is_voc(root: Path) -> bool:
    """Return whether the folder holds JPEGImages/ and Annotations/."""
    return all((root / name).is_dir() for name in FOLDERS)


def list_voc(root: Path) -> Listing:
    """Return the images of train.txt, val.txt and test.txt; the classes are the names in the annotations, sorted.

    The test labels of VOC 2012 are not public, so val is its test split, as in Wang et al. (2019), table 8: 5,717
    images outside the test split and 5,823 in it. test.txt counts where each of its images has an annotation, as in
    VOC 2007.

    A class is in an image if an object of it is, also one that is marked difficult or truncated: it is there, so
    ICASC must not take it for an absent class that confuses. VOC's own evaluation ignores a class in an image where all
    its objects are difficult, so a mean average precision found here is not quite VOC's.

    Raises:
        InputError: if there is no train.txt, or an annotation or image is missing or broken.
    """
    parts = {key: root / SETS / f"{name}.txt" for key, name in ((TRAIN, "train"), (VAL, "val"), (TEST, "test"))}
    names = {key: _names(path) for key, path in parts.items() if key == TRAIN or path.is_file()}
    if TEST in names and not all(_annotation(root, name).is_file() for name in names[TEST]):
        del names[TEST]
    everything = [name for listed in names.values() for name in listed]
    shown = [_shown(_annotation(root, name)) for name in everything]
    classes = sorted({name for there in shown for name in there})
    if len(classes) < 2:
        raise InputError(f"{root / 'Annotations'} names {len(classes)} classes, so there is nothing to tell apart")
    return Listing(
        classes=tuple(classes),
        paths=listed_files(root / "JPEGImages", [f"{name}.jpg" for name in everything], root / SETS),
        labels=torch.tensor([[int(name in there) for name in classes] for there in shown]),
        given=val_as_test(torch.tensor([key for key, listed in names.items() for _ in listed])),
        is_annotated=True,
    )


def _names(path: Path) -> list[str]:
    """Return the names of the images that a set lists: the first word of each line."""
    names = [line.split()[0] for line in read_lines(path)]
    if not names:
        raise InputError(f"{path} lists no image: unpack the data set again, whole")
    return names


def _annotation(root: Path, name: str) -> Path:
    return root / "Annotations" / f"{name}.xml"


def _shown(path: Path) -> set[str]:
    """Return the classes of the objects that an annotation describes; an object's parts are no classes."""
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
    except FileNotFoundError:
        raise InputError(f"annotation {path} does not exist: add it, or take the image out of {SETS}") from None
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"annotation {path} cannot be read ({error}): unpack the data set again") from error
    names = {(item.findtext("name") or "").strip() for item in objects}
    if "" in names:
        raise InputError(f"annotation {path} has an object without a name: mend it")
    return names
