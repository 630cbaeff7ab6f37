"""What a folder of detection data lists, whatever its layout: images and boxes as written, before a file is opened."""

from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class ListedImage:
    """An image and what is written of it.

    Args:
        path: the image file, whether it exists or not.
        where: what lists it, for messages.
        part: TRAIN, VAL or TEST; TRAIN where nothing is said.
        size: height and width as written; None if they are not.
        boxes: (x1, y1, x2, y2) in pixels from the image's left upper corner, x2 ≥ x1 and y2 ≥ y1.
        labels: class numbers of the boxes, from 0.
        crowd: whether a box is not to be trained on, and ignored in evaluation.
    """

    path: Path
    where: str
    part: int
    size: tuple[int, int] | None
    boxes: tuple[Box, ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class BoxListing:
    """The images of a folder.

    Args:
        classes: class names; a label is a place in this tuple.
        images: one each.
    """

    classes: tuple[str, ...]
    images: tuple[ListedImage, ...]
