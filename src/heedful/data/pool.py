"""A pool: all the images of one source before they are divided, with the division that the source gives, if any."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

TRAIN, VAL, TEST = 0, 1, 2
PARTS = ("train", "val", "test")
LEFT_OUT = -1


@dataclass(frozen=True, eq=False)
class Pool:
    """What a source yields; `heedful.data.load` divides it into a `DataSet`.

    Args:
        name: "digits", or the name of the folder or file.
        classes: class names; a label is a place in this tuple.
        images: uint8 RGB images in memory, or the files that hold them.
        labels: class numbers, from 0; of images with several labels, 1 per class that is there, else 0.
        given: TEST where the source says that an image is for testing, VAL where for validation, TRAIN elsewhere.
        image_size: side of the square images, in pixels.
        fingerprint: hex digest of what decides the data.
        augmentation: the names of the augmentations that suit the data.
        moments: for files, each image's mean and mean square per channel, of values in [0, 1].
        skipped: images that could not be read and were left out.
        ignored: files that are not images.
    """

    name: str
    classes: tuple[str, ...]
    images: UInt8[Tensor, "count 3 height width"] | tuple[Path, ...]
    labels: Int64[Tensor, "count"] | Int64[Tensor, "count classes"]
    given: Int64[Tensor, "count"]
    image_size: int
    fingerprint: str
    augmentation: tuple[str, ...] = ("flip", "shift")
    moments: Float64[Tensor, "count 2 3"] | None = None
    skipped: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
