"""Images with boxes: a folder in COCO's or PASCAL VOC's layout, read once → divided into three splits, seed by seed."""

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from PIL import ExifTags
from torch import Tensor

from heedful.data.box_listing import BoxListing, ListedImage
from heedful.data.coco_boxes import UNDIVIDED, coco_files, list_coco_boxes
from heedful.data.images import check_image_size, opened, read_rgb
from heedful.data.listing import val_as_test
from heedful.data.pool import PARTS, TRAIN
from heedful.data.splits import Division, divide
from heedful.data.voc import is_voc
from heedful.data.voc_boxes import list_voc_boxes
from heedful.errors import InputError

SMALLEST_STEP = 0.01
"""Pixels below which a length counts as none: COCO's numbers have two decimals."""

LAYOUTS: tuple[tuple[Callable[[Path], object], Callable[[Path], BoxListing]], ...] = (
    (coco_files, list_coco_boxes),
    (is_voc, list_voc_boxes),
)
"""How a layout is recognised and listed."""


@dataclass(frozen=True, eq=False)
class Boxed:
    """An image file and the boxes in it.

    Args:
        path: the file.
        boxes: (x1, y1, x2, y2) in pixels of the upright image, within it, x2 > x1 and y2 > y1.
        labels: class numbers of the boxes, from 0.
        crowd: not to be trained on, and ignored in evaluation: COCO's iscrowd, VOC's difficult.
        size: height and width in pixels.
    """

    path: Path
    boxes: Float32[Tensor, "count 4"]
    labels: Int64[Tensor, "count"]
    crowd: Bool[Tensor, "count"]
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class BoxPool:
    """All images of a folder before they are divided.

    Args:
        name: of the folder.
        classes: class names; a label is a place in this tuple.
        images: one each; none twice.
        given: TRAIN, VAL or TEST per image, as the folder says; TRAIN where it does not.
        fingerprint: hex digest of what decides the data.
        skipped: images that could not be used and were left out, relative to the folder.
        dropped: number of boxes that were left out ("no area", "outside the image") or cut to the image ("clipped").
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[Boxed, ...]
    given: Int64[Tensor, "count"]
    fingerprint: str
    skipped: tuple[str, ...]
    dropped: dict[str, int]


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """Three splits that share no image.

    Args:
        name: of the folder.
        classes: class names; a label is a place in this tuple.
        train: the images to learn from.
        val: the images to choose the best epoch by.
        test: the images to report on.
        fingerprint: hex digest of what decides the data, whatever the splits drawn from it.
        image_size: shorter side in pixels that the network sees; the longer is at most twice that.
        skipped: as of a `BoxPool`.
        dropped: likewise, of all images.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Boxed, ...]
    val: tuple[Boxed, ...]
    test: tuple[Boxed, ...]
    fingerprint: str
    image_size: int
    skipped: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)


def read_boxes(source: str | Path, *, skip_bad_images: bool = False) -> BoxPool:
    """Return the images and boxes of a folder; each image is decoded once, so that training meets no broken one.

    The layouts, in the folder or in the one folder within it that has one: COCO's JSON (see `coco_files`), PASCAL VOC's
    XML (see `list_voc_boxes`). Where there is a val but no test, val is the test split. An image may have no box.
    Boxes are clipped to the image; those without area or wholly outside are left out. All are counted in `dropped`.

    Args:
        source: the folder.
        skip_bad_images: leave images out that are missing, cannot be read, or have another size than is written of
            them, and list them, rather than raise.

    Raises:
        InputError: if the layout is not one of these, a file is broken or not as described (with the line or the number
            of the entry), an image is missing or cannot be read, or has another size than is written of it.
    """
    root, lists = _place(Path(source).expanduser())
    listing = lists(root)
    with ThreadPoolExecutor() as threads:
        sizes, reasons = zip(*threads.map(_size_of, listing.images), strict=True)
    bad = [image for image, reason in zip(listing.images, reasons, strict=True) if reason is not None]
    if bad and not (skip_bad_images and len(bad) < len(listing.images)):
        raise _unusable([f"{image.path} of {image.where}" for image in bad], [r for r in reasons if r is not None])
    good = [i for i, reason in enumerate(reasons) if reason is None]
    dropped: Counter[str] = Counter()
    images = tuple(_boxed(listing.images[i], sizes[i], dropped) for i in good)
    given = val_as_test(torch.tensor([listing.images[i].part for i in good]))
    return BoxPool(
        name=Path(source).expanduser().resolve().name,
        classes=listing.classes,
        images=images,
        given=given,
        fingerprint=_fingerprint(root, listing.classes, images, given),
        skipped=tuple(image.path.relative_to(root).as_posix() for image in bad),
        dropped=dict(dropped),
    )


def divide_boxes(
    pool: BoxPool,
    *,
    seed: int,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    limit: float | int | None = None,
    image_size: int = 800,
) -> DetectionSet:
    """Return a pool's three splits: those given, and those drawn from the training images.

    One image of each class that the training images show is kept for training, as for images with several labels.

    Args:
        pool: what was read.
        seed: decides what is drawn; at least 0.
        val_fraction: drawn for validation, of the images outside a given test split, in (0, 1).
        test_fraction: drawn for testing if no test split is given, in (0, 1).
        limit: use only so many of the images outside a given test split (int), or that fraction of them (float).
        image_size: shorter side in pixels that the network sees, 8 to 4096; 800 is that of torchvision's detectors.

    Raises:
        InputError: if a number is out of range, there are too few images, or a split has no box.
    """
    check_image_size(image_size)
    division = Division(seed, limit, val_fraction, test_fraction)
    shown = torch.stack([_shown(image, len(pool.classes)) for image in pool.images])
    trained = shown[pool.given == TRAIN].sum(dim=0) > 0
    if not trained.any():
        raise InputError(f"{pool.name} has no training image with a box, so there is nothing to learn: add boxes")
    names = tuple(name for name, has_images in zip(pool.classes, trained.tolist(), strict=True) if has_images)
    indices = divide(shown[:, trained], pool.given, names, division)
    for part, index in zip(PARTS, indices, strict=True):
        if not shown[index].any():
            raise InputError(
                f"{pool.name}: none of the {len(index)} images of the {part} split has a box, so nothing can be "
                "measured: take a larger fraction or another seed, or add boxes"
            )
    train, val, test = (tuple(pool.images[i] for i in index.tolist()) for index in indices)
    return DetectionSet(
        name=pool.name,
        classes=pool.classes,
        train=train,
        val=val,
        test=test,
        fingerprint=pool.fingerprint,
        image_size=image_size,
        skipped=pool.skipped,
        dropped=pool.dropped,
    )


def upright_size(path: Path) -> tuple[int, int]:
    """Return height and width of an image as it is seen, which a camera's note may turn."""
    with opened(path) as image:
        width, height = image.size
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (width, height) if is_turned else (height, width)


def _place(root: Path) -> tuple[Path, Callable[[Path], BoxListing]]:
    """Return the folder in which a layout is recognised, and the function that lists it."""
    if not root.is_dir():
        raise InputError(f"{root} is no folder: give one with boxes in COCO's or PASCAL VOC's layout")
    for inside in ([root], [path for path in sorted(root.iterdir()) if path.is_dir()]):
        found = [(path, lists) for path in inside for recognises, lists in LAYOUTS if recognises(path)]
        if len(found) > 1 and root not in inside:
            names = ", ".join(path.name for path, _ in found)
            raise InputError(f"{root} holds several sets of images with boxes: give one of {names}")
        if found:
            return found[0]
    raise InputError(
        f"{root} has no boxes in a layout that is known: COCO's (annotations/instances_train*.json, train.json or "
        f"train/_annotations.coco.json, or one file for all: {', '.join(UNDIVIDED)}) or PASCAL VOC's (JPEGImages/ and "
        "Annotations/)"
    )


def _size_of(listed: ListedImage) -> tuple[tuple[int, int], str | None]:
    """Return height and width of an image, and why it cannot be used (None if it can)."""
    try:
        if not listed.path.is_file():
            return (0, 0), "does not exist"
        size = upright_size(listed.path)
        read_rgb(listed.path, 1)  # every byte of a JPEG is read, but an eighth of its pixels made
    # Pillow's readers raise almost anything on broken bytes: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        return (0, 0), "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__
    if listed.size is not None and listed.size != size:
        wrong = f"written to be {listed.size[1]} x {listed.size[0]}, but has {size[1]} x {size[0]} pixels"
        return size, f"{wrong}, so that its boxes would be wrong"
    return size, None


def _unusable(names: list[str], reasons: list[str]) -> InputError:
    shown = "; ".join(f"{name} ({reason})" for name, reason in zip(names[:10], reasons[:10], strict=True))
    more = f"; and {len(names) - 10} more" if len(names) > 10 else ""
    return InputError(
        f"images that cannot be used: {shown}{more}; mend or add them, take them out of the lists, or pass "
        "--skip-bad-images"
    )


def _boxed(listed: ListedImage, size: tuple[int, int], dropped: Counter[str]) -> Boxed:
    """Return the image with the boxes that are in it; count in `dropped` what was left out or clipped."""
    written = torch.tensor(listed.boxes, dtype=torch.float64).view(-1, 4)
    boxes = clipped(written, size)
    has_area, is_inside = _has_area(written), _has_area(boxes)
    kept = has_area & is_inside
    moved = (boxes - written).abs().amax(dim=1) > SMALLEST_STEP
    kinds = {"no area": ~has_area, "outside the image": has_area & ~is_inside, "clipped": kept & moved}
    dropped.update({kind: int(there.sum()) for kind, there in kinds.items() if there.any()})
    return Boxed(
        path=listed.path,
        boxes=boxes[kept].float(),
        labels=torch.tensor(listed.labels, dtype=torch.int64)[kept],
        crowd=torch.tensor(listed.crowd, dtype=torch.bool)[kept],
        size=size,
    )


def clipped(boxes: Float64[Tensor, "count 4"], size: tuple[int, int]) -> Float64[Tensor, "count 4"]:
    """Return the boxes cut to an image of that height and width."""
    height, width = size
    return boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height], dtype=boxes.dtype))


def _has_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_STEP).all(dim=1)


def _shown(image: Boxed, num_classes: int) -> Int64[Tensor, "classes"]:
    """Return 1 for each class that has a box to train on, else 0."""
    return (image.labels[~image.crowd].bincount(minlength=num_classes) > 0).long()


def _fingerprint(root: Path, classes: tuple[str, ...], images: tuple[Boxed, ...], given: Tensor) -> str:
    """Return a digest of the images' names and sizes, boxes, labels and splits."""
    lines = [
        f"{image.path.relative_to(root).as_posix()} {image.path.stat().st_size} {part} {image.boxes.tolist()} "
        f"{image.labels.tolist()} {image.crowd.tolist()}"
        for image, part in zip(images, given.tolist(), strict=True)
    ]
    return hashlib.sha256("\n".join([str(classes), *sorted(lines)]).encode()).hexdigest()
