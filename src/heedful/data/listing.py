"""What a folder of images lists, whatever its layout: files, labels and given splits, before any image is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int64
from torch import Tensor

from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError

SPLIT_NAMES = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST, "testing": TEST,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a folder.

    Args:
        classes: class names; a label is a place in this tuple.
        paths: the image files.
        labels: class numbers, from 0; of images with several labels, 1 per class that is there, else 0.
        given: TRAIN, VAL or TEST per image; TRAIN where the folder does not say.
        ignored: files that are not images, relative to the folder.
        is_annotated: labels or splits stand in files of their own, not in the images' paths.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Int64[Tensor, "count"] | Int64[Tensor, "count classes"]
    given: Int64[Tensor, "count"]
    ignored: tuple[str, ...] = ()
    is_annotated: bool = False


def val_as_test(given: Int64[Tensor, "count"]) -> Int64[Tensor, "count"]:
    """Return the splits with val for test where there is no test, as in ImageNet and VOC 2012."""
    return given if (given == TEST).any() else given.masked_fill(given == VAL, TEST)


def listed_files(folder: Path, names: Iterable[str], listed_in: Path) -> tuple[Path, ...]:
    """Return the files of those names.

    Args:
        folder: holds the files.
        names: paths relative to the folder.
        listed_in: the file that lists them, for the messages.

    Raises:
        InputError: if a file is listed twice, leads out of the folder or does not exist.
    """
    paths: dict[Path, None] = {}
    for name in names:
        path = folder / name
        if Path(name).is_absolute() or ".." in path.parts[len(folder.parts) :]:
            raise InputError(f"{listed_in} lists {name}, but paths must be relative to {folder} and stay in it")
        if path in paths:
            raise InputError(f"{listed_in} lists {name} twice: keep one of them")
        paths[path] = None
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        more = f", and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise InputError(
            f"{len(missing)} of {len(paths)} files that {listed_in} lists do not exist: {', '.join(missing[:10])}"
            f"{more}; add them, or take them out of the list"
        )
    return tuple(paths)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
        InputError: if it is missing, or no text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): unpack the data set again, whole") from error
