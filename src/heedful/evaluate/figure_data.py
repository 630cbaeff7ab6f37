"""Images with a mask of the figure in each, as weakly supervised segmentation is scored on.

Three ways in which such data lie in a folder:

    horses/images/horse/1.jpg      horses/masks/horse/1.png           class folders, or none
    weizmann/rgb/horse001.jpg      weizmann/mask/horse001.png         the Weizmann horses
    Data/Horse100/0001.jpg         Data/Horse100/GroundTruth/0001.png Object Discovery; or one of its folders alone
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool
from numpy import ndarray

from heedful.data.class_folders import entries
from heedful.data.images import SUFFIXES
from heedful.errors import InputError
from heedful.evaluate.object_data import Sample, read_files
from heedful.evaluate.objects import Objects, upright_size

SIDE_BY_SIDE = (("images", "masks"), ("rgb", "mask"))
"""Folder of the images, and that of the masks beside it."""

TRUTH = "GroundTruth"
LAYOUTS = "images/CLASS/1.jpg with masks/CLASS/1.png, rgb/1.jpg with mask/1.png, or CLASS/1.jpg with " + (
    f"CLASS/{TRUTH}/1.png"
)


@dataclass(frozen=True, eq=False)
class Figures:
    """Images, and where the figure is in each.

    Args:
        sample: the images; a label is a place in `groups`.
        groups: names of the class folders, or the name of the data where there are none.
        masks: image file -> mask file.
    """

    sample: Sample
    groups: tuple[str, ...]
    masks: Mapping[Path, Path]

    def limited(self, limit: int | None) -> "Figures":
        """Return at most so many of the images, evenly spaced.

        Raises:
            InputError: if the limit is less than 1.
        """
        return replace(self, sample=self.sample.limited(limit))

    def mask(self, number: int) -> Bool[ndarray, "size size"]:
        """Return the figure of an image in the square that the network sees.

        Raises:
            InputError: if the mask cannot be read.
        """
        assert self.sample.paths is not None
        path = self.sample.paths[number]
        return Objects(path.parent, masks=self.masks[path].parent).find(path, self.sample.image_size)[0]


def figures_of(source: str, image_size: int) -> Figures:
    """Return the images and masks of a folder.

    Args:
        source: the folder.
        image_size: side in pixels of the square that the network sees.

    Raises:
        InputError: if there is no such folder, it has none of the three layouts, or an image cannot be read, has no
            mask, or one of another size.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise InputError(f"{source}: no such folder; give one with {LAYOUTS}")
    found = list(_listed(root))
    if not found:
        raise InputError(f"{source} holds no images with masks: put them there as {LAYOUTS}")
    _check(found)
    groups = tuple(dict.fromkeys(each.group for each in found))
    paths = [each.image for each in found]
    labels = torch.tensor([groups.index(each.group) for each in found])
    sample = Sample(root.resolve().name, read_files(paths, labels, image_size), tuple(paths))
    return Figures(sample, groups, {each.image: each.mask for each in found})


class _Figure(NamedTuple):
    image: Path
    mask: Path
    group: str


def _listed(root: Path) -> Iterator[_Figure]:
    name = root.resolve().name
    for images, masks in ((root / first, root / second) for first, second in SIDE_BY_SIDE):
        if images.is_dir() and masks.is_dir():
            for path in _images(images):
                inside = path.relative_to(images)
                group = inside.parts[0] if len(inside.parts) > 1 else name
                yield _Figure(path, masks / inside.with_suffix(".png"), group)
            return
    for folder in [root, *filter(Path.is_dir, entries(root))]:
        if (folder / TRUTH).is_dir():
            for path in filter(_is_image, entries(folder)):
                yield _Figure(path, folder / TRUTH / f"{path.stem}.png", folder.resolve().name)


def _images(folder: Path) -> Iterator[Path]:
    """Yield the images at any depth; unlike `rglob` it follows links to folders."""
    for path in entries(folder):
        if path.is_dir():
            yield from _images(path)
        elif _is_image(path):
            yield path


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _check(found: list[_Figure]) -> None:
    """Raise InputError if a mask is missing or of another size than its image, before the first is looked at."""
    missing = [each for each in found if not each.mask.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"image {missing[0].image} lacks its mask {missing[0].mask}{more}: add it, all black "
            "if the image has no figure, or remove the image"
        )
    for image, mask, _ in found:
        (width, height), (mask_width, mask_height) = _size(image), _size(mask)
        if (width, height) != (mask_width, mask_height):
            raise InputError(
                f"mask {mask} has {mask_width} x {mask_height} pixels, but its image {width} x {height}: they must be "
                "equal"
            )


def _size(path: Path) -> tuple[int, int]:
    try:
        return upright_size(path)
    # Pillow's readers raise almost anything on broken bytes.
    except Exception as error:
        raise InputError(f"{path} cannot be read ({error}): mend or remove it") from error
