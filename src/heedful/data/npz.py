"""An .npz file with `images`, `labels` and perhaps `test` and `classes` → a pool of images."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from heedful.data.images import resize, to_channels_first
from heedful.data.pool import TEST, TRAIN, Pool
from heedful.errors import InputError

KEYS = ("images", "labels", "test", "classes")


def read_npz(path: Path, *, image_size: int | None) -> Pool:
    """Return the pool of an .npz file; nothing in it is unpickled.

    Args:
        path: holds `images` uint8 (N, H, W, 3) or (N, H, W), `labels` integers (N,) from 0, and perhaps `test` bool
            (N,), true for the test split, and `classes`, the class names as strings. Where images have several labels,
            or none: `labels` integers (N, C), 1 for each class that is there, else 0, and `classes`, C strings.
        image_size: side in pixels, to which the images' middle squares are scaled; None: as they are, if square.

    Raises:
        InputError: if an array is missing or not as described, there are fewer than two classes, or the images are
            not square and no image size is given.
    """
    arrays = _arrays(path)
    images = _checked_images(path, arrays["images"], image_size)
    count = len(images)
    labels = _checked_labels(path, arrays["labels"], count)
    classes = _classes(path, arrays.get("classes"), labels)
    given = np.full(count, TRAIN)
    if "test" in arrays:
        given[_checked_test(path, arrays["test"], count)] = TEST
    tensor = to_channels_first(images)
    with path.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    return Pool(
        name=path.stem,
        classes=classes,
        images=tensor if image_size is None else resize(tensor, image_size),
        labels=torch.from_numpy(labels),
        given=torch.from_numpy(given),
        image_size=image_size or images.shape[1],
        fingerprint=fingerprint,
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the file's arrays by name."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(
                    f"{path} holds one array and no names: save it with numpy.savez(images=..., labels=...)"
                )
            missing = [key for key in KEYS[:2] if key not in archive]
            if missing:
                raise InputError(
                    f"{path} has no {' and no '.join(map(repr, missing))}: it needs 'images' and 'labels', and has "
                    f"{', '.join(archive.files) or 'nothing'}"
                )
            return {key: archive[key] for key in KEYS if key in archive}
    except InputError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise InputError(
                f"{path} holds pickled objects, which are not loaded: save plain arrays (classes as strings, "
                "numpy.array(names, dtype=str))"
            ) from error
        raise InputError(f"{path} is not an .npz file that numpy can read ({error}): save it again") from error


def _checked_images(path: Path, images: np.ndarray, image_size: int | None) -> np.ndarray:
    allowed = "images must be uint8 (N, H, W, 3) or (N, H, W)"
    if images.dtype != np.uint8:
        raise InputError(f"{path}: images are {images.dtype}, but {allowed}, from 0 to 255")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        channels_first = images.ndim == 4 and images.shape[1] == 3
        repair = "; move the channels last: images.transpose(0, 2, 3, 1)" if channels_first else ""
        raise InputError(f"{path}: images have shape {images.shape}, but {allowed}{repair}")
    if images.size == 0:
        raise InputError(f"{path}: images have shape {images.shape}: there is no pixel in them")
    height, width = images.shape[1:3]
    if image_size is None and height != width:
        raise InputError(
            f"{path}: images are {height} × {width} pixels, not square: give an image size, to which their middle "
            "square is scaled"
        )
    return images


def _checked_labels(path: Path, labels: np.ndarray, count: int) -> np.ndarray:
    several = labels.ndim == 2 and labels.shape[0] == count and labels.shape[1] > 1
    if labels.shape != (count,) and not several:
        raise InputError(
            f"{path}: labels have shape {labels.shape}, but must have ({count},): one for each image, or ({count}, "
            "classes): 1 for each class that is in an image, else 0"
        )
    if labels.dtype.kind not in "iu":
        raise InputError(f"{path}: labels are {labels.dtype}, but must be integers: class numbers from 0, or 0 and 1")
    if several:
        wrong = labels[(labels != 0) & (labels != 1)]
        if wrong.size:
            raise InputError(f"{path}: labels hold {wrong[0]}, but with a column for each class they must be 0 or 1")
        return labels.astype(np.int64)
    if labels.min() < 0:
        raise InputError(f"{path}: labels go down to {labels.min()}, but class numbers start at 0")
    if labels.min() == labels.max():
        raise InputError(f"{path}: all labels are {labels[0]}, but there must be two classes or more to tell apart")
    return labels.astype(np.int64)


def _classes(path: Path, classes: np.ndarray | None, labels: np.ndarray) -> tuple[str, ...]:
    """Return the class names: those given, or the numbers."""
    if classes is None:
        return _numbers(path, labels)
    if classes.dtype.kind != "U" or classes.ndim != 1:
        raise InputError(
            f"{path}: classes are {classes.dtype} of shape {classes.shape}, but must be strings, one for each class"
        )
    if labels.ndim == 2 and labels.shape[1] != len(classes):
        raise InputError(
            f"{path}: labels have {labels.shape[1]} columns, but there are {len(classes)} classes: name each column"
        )
    if labels.ndim == 1 and labels.max() >= len(classes):
        raise InputError(
            f"{path}: labels go up to {labels.max()}, but with {len(classes)} classes the last is {len(classes) - 1}"
        )
    return tuple(map(str, classes))


def _numbers(path: Path, labels: np.ndarray) -> tuple[str, ...]:
    if labels.ndim == 2:
        raise InputError(
            f"{path}: labels have shape {labels.shape}, so that each column is a class: name them in 'classes', an "
            f"array of {labels.shape[1]} strings"
        )
    if labels.max() >= len(labels):
        raise InputError(
            f"{path}: labels go up to {labels.max()} with {len(labels)} images, but class numbers must leave none "
            "out: number the classes 0, 1, 2, ..."
        )
    return tuple(map(str, range(int(labels.max()) + 1)))


def _checked_test(path: Path, test: np.ndarray, count: int) -> np.ndarray:
    if test.dtype != np.bool_ or test.shape != (count,):
        raise InputError(
            f"{path}: test is {test.dtype} of shape {test.shape}, but must be bool ({count},): one for each image"
        )
    if not test.any() or test.all():
        raise InputError(
            f"{path}: test is {'true' if test.all() else 'false'} for every image, but must part training images from "
            "test images: leave it out to have the test split drawn"
        )
    return test
