"""Where the objects of image files are: boxes or masks, brought to the square that the network sees.

Beside a folder of images, see `heedful.evaluate.object_data`, there is one of two:

- `boxes.csv`, a line for each object, both corners belonging to the box, in pixels of the upright image from 0:

      path,left,top,right,bottom
      cat/1.jpg,12,0,63,40

- `masks/`, with a PNG of the size of the image under the image's own path, `masks/cat/1.png`, not 0 on the object,
  or of a colour that is not black.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from PIL import ExifTags, Image

from heedful.data.folder import LARGEST_IN_MEMORY
from heedful.data.images import opened
from heedful.errors import InputError

BOXES, MASKS = "boxes.csv", "masks"
COLUMNS = ("path", "left", "top", "right", "bottom")

Box = tuple[float, float, float, float]
Mask = Bool[np.ndarray, "size size"]
Boxes = Int[np.ndarray, "boxes 4"]


@dataclass(frozen=True, eq=False)
class Objects:
    """Boxes or masks of image files.

    Args:
        root: folder to which the paths are relative.
        boxes: path -> boxes of its objects; None if there are masks.
        masks: folder of the masks; None if there are boxes.
        without_area: number of boxes that were left out, since their corners are in one row or column of pixels, or the
            wrong way round.
    """

    root: Path
    boxes: Mapping[str, tuple[Box, ...]] | None = None
    masks: Path | None = None
    without_area: int = 0

    @property
    def kind(self) -> str:
        """`boxes` or `masks`."""
        return BOXES.removesuffix(".csv") if self.masks is None else MASKS

    def find(self, path: Path, size: int) -> tuple[Mask, Boxes]:
        """Return the mask of an image's objects in the square that the network sees, and their boxes there.

        The mask of boxes is true within any of them; with masks there are no boxes. The mask is false everywhere where
        the image has no object, or it lies outside the square.

        Args:
            path: of the image file.
            size: of the square.

        Raises:
            InputError: if a mask cannot be read, or has another size than the image.
        """
        name = path.relative_to(self.root)
        if self.masks is not None:
            return _mask_of(self.masks / name.with_suffix(".png"), path, size), np.zeros((0, 4), dtype=np.int64)
        assert self.boxes is not None
        given = self.boxes.get(name.as_posix(), ())
        boxes = boxes_in_square(given, upright_size(path), size) if given else np.zeros((0, 4), dtype=np.int64)
        return filled(boxes, size), boxes


def from_boxes(root: Path, lines: Iterable[tuple[str, Box]]) -> Objects:
    """Return the objects of a list of paths and boxes, less those without area, which are counted.

    Args:
        root: folder to which the paths are relative.
        lines: path and (left, top, right, bottom); a path may come more than once.
    """
    boxes: dict[str, tuple[Box, ...]] = {}
    without_area = 0
    for name, box in lines:
        if box[2] > box[0] and box[3] > box[1]:
            boxes[name] = (*boxes.get(name, ()), box)
        else:
            without_area += 1
    return Objects(root, boxes=boxes, without_area=without_area)


def read_boxes(path: Path) -> Iterator[tuple[str, Box]]:
    """Yield path and box of each line of a `boxes.csv`.

    Raises:
        InputError: if the file cannot be read, its first line is not as above, or a line does not hold four numbers.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = tuple(cell.strip() for cell in next(reader, []))
            lines = [(reader.line_num, cells) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a table in UTF-8 separated by commas ({error}): save it as CSV") from error
    if header != COLUMNS:
        raise InputError(f"{path} begins with {','.join(header)!r}, but its first line must be {','.join(COLUMNS)}")
    for number, cells in lines:
        try:
            left, top, right, bottom = map(float, cells[1:])
            if not math.isfinite(left + top + right + bottom):
                raise ValueError
        except ValueError:
            raise InputError(
                f"{path}, line {number}: {','.join(cells)!r}, but a line is {','.join(COLUMNS)}, with four numbers"
            ) from None
        yield cells[0].strip(), (left, top, right, bottom)


def boxes_in_square(boxes: Iterable[Box], image_size: tuple[int, int], size: int) -> Boxes:
    """Return boxes of an image as (left, top, right, bottom) in pixels of the square, corners belonging to them.

    A pixel of the square is in a box if its centre is. Boxes that have none are left out.

    Args:
        boxes: in pixels of the upright image, corners belonging to them.
        image_size: width and height of the image.
        size: side of the square.
    """
    left, top, width, height = window(*image_size, size)
    start, scale = np.array([left, top]), size / np.array([width, height])
    given = np.array(list(boxes), dtype=np.float64).reshape(-1, 4)
    # Pixel p reaches from p to p + 1, so a box from the left edge of its first pixel to the right edge of its last.
    low = np.ceil((given[:, :2] - start) * scale - 0.5).clip(min=0)
    high = (np.ceil((given[:, 2:] + 1 - start) * scale - 0.5) - 1).clip(max=size - 1)
    return np.concatenate([low, high], 1)[(low <= high).all(1)].astype(np.int64)


def filled(boxes: Boxes, size: int) -> Mask:
    """Return a mask that is true in all the boxes."""
    mask = np.zeros((size, size), dtype=bool)
    for left, top, right, bottom in boxes:
        mask[top : bottom + 1, left : right + 1] = True
    return mask


def window(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Return left, top, width and height of the part of an image that the data part scales to the square.

    Of images in memory (to LARGEST_IN_MEMORY pixels) it is the middle square. Files are read at 256/224 of the size,
    and the middle of that is cut out.

    Args:
        width: of the upright image.
        height: likewise.
        size: side of the square.
    """
    side = min(width, height)
    if size <= LARGEST_IN_MEMORY:
        return (width - side) / 2, (height - side) / 2, side, side
    read = round(size * 256 / 224)
    scaled = [read if length == side else int(read * length / side) for length in (width, height)]
    cut = [round((length - size) / 2) for length in scaled]
    per_pixel = width / scaled[0], height / scaled[1]
    return cut[0] * per_pixel[0], cut[1] * per_pixel[1], size * per_pixel[0], size * per_pixel[1]


def _mask_of(path: Path, image: Path, size: int) -> Mask:
    if not path.is_file():
        return np.zeros((size, size), dtype=bool)
    try:
        with Image.open(path) as mask:
            # Of a palette the numbers count, and of colours whether they are black; not how opaque they are.
            plain = mask if mask.mode in ("1", "L", "P", "I", "I;16") else mask.convert("RGB")
            pixels = np.asarray(plain) != 0
    # Pillow's readers raise almost anything on broken bytes.
    except Exception as error:
        raise InputError(f"mask {path} cannot be read ({error}): mend it or remove it") from error
    if pixels.ndim == 3:
        pixels = pixels.any(2)
    width, height = upright_size(image)
    if pixels.shape != (height, width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise InputError(f"mask {path} has {found} pixels, but its image {width} x {height}: they must be equal")
    left, top, width_seen, height_seen = window(width, height, size)
    seen = (left, top, left + width_seen, top + height_seen)
    grey = Image.fromarray(pixels.astype(np.uint8) * 255)
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR, box=seen)) >= 128


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image as it is seen, which a camera's note may turn."""
    with opened(path) as image:
        width, height = image.size
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (height, width) if is_turned else (width, height)
