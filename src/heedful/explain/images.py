"""Image files: those that were meant, what to call them and what is made of them, and one file read."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from heedful.data.images import SUFFIXES
from heedful.errors import InputError
from heedful.explain.subject import Reader

LONGEST_NAME = 60  # characters: with four bytes each and an ending, still a file name
MOST_ELONGATED = 50
"""Length over width of a picture: scaled to a network's width, one of 20,000 x 1 pixels would be five million long."""


def image_files(paths: Sequence[str | Path], *, without: Path | None = None) -> list[Path]:
    """Return the image files that were named, and those in the folders that were named, at any depth, in sorted order.

    Args:
        paths: files, whatever their ending, and folders, of which files with an image's ending are taken.
        without: a folder below which no file is taken from another folder.

    Raises:
        InputError: if a path does not exist, a folder holds no image, or no path is given.
    """
    if not paths:
        raise InputError("no image to explain: name image files or folders")
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        files = list(_within(path, without)) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path} holds no images: name files, or a folder with {', '.join(sorted(SUFFIXES))}")
        found |= dict.fromkeys(files)
    return list(found)


def _within(folder: Path, without: Path | None) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if without is not None and Path(parent).resolve().is_relative_to(without.resolve()):
            folders.clear()
            continue
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent) / name


def shown_names(paths: Sequence[Path]) -> list[str]:
    """Return each file's path below the folder that all share: it tells them apart, and names no machine's folders."""
    absolute = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute])
    names = [Path(os.path.relpath(path, shared)).as_posix() for path in absolute]
    # Names that are no Unicode can be opened, but not written into a page.
    return [name.encode(errors="replace").decode() for name in names]


def stems(names: Sequence[str]) -> list[str]:
    """Return for each shown name one for the files that are made of it, without an ending, all different.

    They differ in more than capitals, since there are file systems that tell no capitals apart.
    """
    taken: set[str] = set()
    chosen = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", os.path.splitext(name.replace("/", "-"))[0])
        stem = plain = plain[-LONGEST_NAME:].strip(".-") or "image"
        number = 2
        while stem.casefold() in taken:
            stem, number = f"{plain}-{number}", number + 1
        taken.add(stem.casefold())
        chosen.append(stem)
    return chosen


def pixels(path: Path, read: Reader) -> tuple[UInt8[np.ndarray, "height width 3"] | None, str]:
    """Return what the network sees of a file and "", or None and why it cannot be read."""
    try:
        _check_shape(path)
        return read(path), ""
    # Pillow's readers raise almost anything on broken bytes: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        return None, "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__


def _check_shape(path: Path) -> None:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as header:
                width, height = header.size
    except Image.DecompressionBombError:
        return  # how large is too large, `read` says
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise InputError(f"its {width} x {height} pixels are more than {MOST_ELONGATED} times as long as wide: crop it")
