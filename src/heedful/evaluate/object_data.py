"""Images to evaluate on, with boxes or masks where they lie beside them.

A folder for `heedful evaluate --data` has `images/` with a folder for each class, named as the run's classes are, and
`boxes.csv` or `masks/` beside it, see `heedful.evaluate.objects`:

    horses/images/horse/1.jpg
    horses/masks/horse/1.png

Whatever `heedful compare` trains on will do as well, without objects if there are none: a folder of class folders,
CUB-200-2011 (with its boxes), an .npz file, a name. So does Tiny ImageNet as it unpacks, with its boxes. Of data with a
test split (or one for validation, if that is all) the other images are left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from heedful import data
from heedful.data.class_folders import entries
from heedful.data.cub200 import BOXES as CUB_BOXES
from heedful.data.cub200 import cub_boxes
from heedful.data.dataset import ImageArray, ImageFiles, Split
from heedful.data.folder import LARGEST_IN_MEMORY, LAYOUTS
from heedful.data.images import SUFFIXES, read_square, to_channels_first
from heedful.data.listing import SPLIT_NAMES, read_lines
from heedful.data.pool import TEST, VAL
from heedful.errors import InputError, unknown
from heedful.evaluate.objects import BOXES, MASKS, Box, Objects, from_boxes, read_boxes

TINY_VAL = Path("val") / "val_annotations.txt"


@dataclass(frozen=True, eq=False)
class Sample:
    """Images to evaluate on.

    Args:
        name: of the data.
        split: the images, with labels by the run's classes.
        paths: the file of each image; None if there are none.
        objects: where the objects are in them; None if that is not known.
    """

    name: str
    split: Split
    paths: tuple[Path, ...] | None = None
    objects: Objects | None = None

    @property
    def image_size(self) -> int:
        """Side of the square that the network sees, in pixels."""
        return self.split.images.shape[3] if isinstance(self.split, ImageArray) else self.split.image_size

    def limited(self, limit: int | None) -> "Sample":
        """Return at most so many of the images, evenly spaced, since data often stand in the order of their classes.

        Raises:
            InputError: if the limit is less than 1.
        """
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}, but it must be at least 1")
        count = len(self.split)
        if limit is None or limit >= count:
            return self
        index = torch.arange(limit) * count // limit
        paths = None if self.paths is None else _picked(self.paths, index)
        return replace(self, split=_part(self.split, index), paths=paths)


def sample_of(source: str, classes: Sequence[str], image_size: int) -> Sample:
    """Return all images of a source that has no part in the training, or of its test split.

    Of a run's own data see `heedful.evaluate.runs.own_images`.

    Args:
        source: a folder, an .npz file or a name, as for `heedful.data.load`.
        classes: of the run; the source may have fewer.
        image_size: of the run.

    Raises:
        InputError: if there is no such source, it has a class that the run has not, or an image cannot be read.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        return _of_pool(source, classes, image_size)
    objects: Objects | None
    if (root / TINY_VAL).is_file():
        paths, names, objects = _tiny_imagenet(root)
    else:
        root = root / "images" if is_beside_objects(root / "images") else root
        (paths, names), objects = _listed(root), objects_of(root)
    labels = _numbers(names, classes, source)
    return Sample(Path(source).resolve().name, read_files(paths, labels, image_size), tuple(paths), objects)


def objects_of(root: Path) -> Objects | None:
    """Return the boxes or masks of a folder of images, or None: in it, or beside it if it is called `images`.

    Args:
        root: the folder of images, to which paths of boxes and masks are relative.

    Raises:
        InputError: if a file of boxes is damaged.
    """
    if (root / CUB_BOXES).is_file():
        return from_boxes(root, cub_boxes(root).items())
    for place in (root, root.parent) if root.name == "images" else (root,):
        if (place / BOXES).is_file():
            return from_boxes(root, read_boxes(place / BOXES))
        if (place / MASKS).is_dir():
            return Objects(root, masks=place / MASKS)
    tiny = sorted(root.glob("*/*_boxes.txt"))
    return from_boxes(root, (line for path in tiny for line in _tiny_boxes(path))) if tiny else None


def is_beside_objects(images: Path) -> bool:
    """Return whether this is a folder of images with boxes or masks beside it."""
    beside = images.parent
    return images.is_dir() and ((beside / BOXES).is_file() or (beside / MASKS).is_dir())


def _of_pool(source: str, classes: Sequence[str], image_size: int) -> Sample:
    pool = data.read(source, image_size)
    if pool.labels.ndim == 2:
        raise InputError(f"{source} has images with several classes, but other data must have one class each")
    assert isinstance(pool.images, Tensor)
    chosen = _unseen(pool.given)
    labels = _numbers([pool.classes[label] for label in pool.labels[chosen].tolist()], classes, source)
    return Sample(pool.name, ImageArray(pool.images[chosen], labels))


def _listed(root: Path) -> tuple[list[Path], list[str]]:
    """Return the files and the classes of a folder of images."""
    for recognises, lists in LAYOUTS:
        if recognises(root):
            listing = lists(root)
            if listing.labels.ndim == 2:
                raise InputError(f"{root} has images with several classes, but other data must have one class each")
            chosen = _unseen(listing.given)
            return list(_picked(listing.paths, chosen)), [listing.classes[i] for i in listing.labels[chosen].tolist()]
    # Not listed as training data are, which have two classes at least.
    splits = {SPLIT_NAMES.get(path.name.lower()): path for path in entries(root) if path.is_dir()}
    part = splits.get(TEST) or splits.get(VAL) or root
    folders = [path for path in entries(part) if path.is_dir() and path != root / MASKS]
    pairs = [(path, folder.name) for folder in folders for path in sorted(folder.rglob("*")) if _is_image(path)]
    if not pairs:
        raise InputError(f"{part} holds no class folders with images: put the images of class cat into {part / 'cat'}")
    return [path for path, _ in pairs], [name for _, name in pairs]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _unseen(given: Int64[Tensor, "count"]) -> Tensor:
    """Return which images are the test split, or all where there is none."""
    return ((given == TEST) if (given == TEST).any() else torch.ones_like(given, dtype=torch.bool)).nonzero().flatten()


def _numbers(names: Sequence[str], classes: Sequence[str], source: str) -> Int64[Tensor, "count"]:
    places = {name: number for number, name in enumerate(classes)}
    for name in dict.fromkeys(names):
        if name not in places:
            raise unknown("class", name, classes, where=f"{source} has other classes than the run: ")
    return torch.tensor([places[name] for name in names])


def read_files(paths: Sequence[Path], labels: Int64[Tensor, "count"], image_size: int) -> Split:
    """Return the squares of image files, as a run of that size sees them: small ones in memory.

    Raises:
        InputError: if an image that is held in memory cannot be read.
    """
    if image_size > LARGEST_IN_MEMORY:
        return ImageFiles(tuple(paths), labels, image_size)
    return ImageArray(to_channels_first(np.stack([_square(path, image_size) for path in paths])), labels)


def _square(path: Path, image_size: int) -> np.ndarray:
    try:
        return read_square(path, image_size)
    # Pillow's readers raise almost anything on broken bytes.
    except Exception as error:
        raise InputError(f"image {path} cannot be read ({error}): mend or remove it") from error


def _tiny_imagenet(root: Path) -> tuple[list[Path], list[str], Objects]:
    """Return files, classes and boxes of Tiny ImageNet's validation images."""
    rows = [line.split("\t") for line in read_lines(root / TINY_VAL)]
    if any(len(row) != 6 for row in rows):
        raise InputError(
            f"{root / TINY_VAL}: a line is an image, a class and four corners: unpack the data again, whole"
        )
    folder = root / TINY_VAL.parent / "images"
    lines = [(row[0], _corners(root / TINY_VAL, row[2:])) for row in rows]
    return [folder / row[0] for row in rows], [row[1] for row in rows], from_boxes(folder, lines)


def _tiny_boxes(path: Path) -> Iterable[tuple[str, Box]]:
    """Yield path and box of each image of one class of Tiny ImageNet's training images."""
    for line in read_lines(path):
        name, *corners = line.split("\t")
        yield f"{path.parent.name}/images/{name}", _corners(path, corners)


def _corners(path: Path, texts: Sequence[str]) -> Box:
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError:
        raise InputError(f"{path}: {' '.join(texts)!r} is no box: unpack the data again, whole") from None
    return left, top, right, bottom


def _part(split: Split, index: Tensor) -> Split:
    if isinstance(split, ImageArray):
        return ImageArray(split.images[index], split.labels[index])
    return ImageFiles(_picked(split.paths, index), split.labels[index], split.image_size)


def _picked(paths: Sequence[Path], index: Tensor) -> tuple[Path, ...]:
    return tuple(paths[i] for i in index.tolist())
