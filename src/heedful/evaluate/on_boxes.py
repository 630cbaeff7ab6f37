"""From a trained detector to what it finds in its own test images, or in others: the protocol `detection`."""

import io
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from heedful.data.box_batches import box_batches
from heedful.data.boxes import Boxed, BoxPool, divide_boxes, read_boxes
from heedful.data.pool import TEST
from heedful.errors import InputError, unknown
from heedful.evaluate.detected import Boxes, Panel, Picture, Row, detections, drawn, mask_rows, seen, to_pixels
from heedful.evaluate.detection import detection
from heedful.evaluate.found import Found, Headline
from heedful.evaluate.runs import TrainedRun, is_own, require_unchanged
from heedful.models.cards import DetectorCard

NUM_SHOWN = 4
LEAST_SCORE = 0.5
"""Of the detections that are drawn; the metrics count all."""

HEADLINES = {"mAP": "map", "mAP@0.5": "map50", "mAP@0.75": "map75"}

ReadBoxes = Callable[..., BoxPool]
"""`heedful.data.boxes.read_boxes`, or one that remembers what it read."""


def found_boxes(
    model: nn.Module, run: TrainedRun, source: str | None, limit: int | None, read: ReadBoxes = read_boxes
) -> Found:
    """Return COCO's metrics of a detector, and a picture of what it found in a few images.

    Args:
        model: in evaluation mode, on the device where to compute.
        run: where it comes from.
        source: a folder, as for `read_boxes`, of which the test split is taken, or all where there is none; None: the
            run's own test images.
        limit: at most so many images, evenly spaced.
        read: `read_boxes`, or one that remembers what it read.

    Raises:
        InputError: if the data cannot be used, or no image has a box.
    """
    card = run.card
    assert isinstance(card, DetectorCard)
    if source is None or is_own(run, source):
        name, everything = own_boxes(run, read)
    else:
        name, everything = _others(source, card.classes, read)
    images = spaced(everything, limit)
    if all(image.crowd.all() for image in images):
        raise InputError(f"none of {len(images)} images of {name} has a box, so there is nothing to measure: add some")
    numbers = detection(model, box_batches(images, 1, image_size=card.image_size), card.classes)
    headlines = [Headline(text, numbers[key], "%", "higher") for text, key in HEADLINES.items()]
    picture = sheet(model, spaced(images, NUM_SHOWN), card)
    return Found(
        {"data": name, "num_images": len(images), **numbers}, tuple(headlines), pictures={"detections": picture}
    )


def own_boxes(run: TrainedRun, read: ReadBoxes = read_boxes) -> tuple[str, tuple[Boxed, ...]]:
    """Return the name of a run's data, and its test images; `read` as for `found_boxes`.

    Raises:
        InputError: if the data are not there any more or have changed, or the run's data are not known.
    """
    if run.seed is None:
        raise InputError(f"{run.folder} does not say on which data the network was trained: give --data")
    source, settings = run.settings["data"], run.settings
    assert isinstance(run.card, DetectorCard)
    pool = read(source, skip_bad_images=settings.get("skip_bad_images", False))
    require_unchanged(run, source, pool.fingerprint)
    chosen = {key: settings[key] for key in ("limit", "val_fraction") if key in settings}
    return pool.name, divide_boxes(pool, seed=run.seed, image_size=run.card.image_size, **chosen).test


def _others(source: str, classes: Sequence[str], read: ReadBoxes) -> tuple[str, tuple[Boxed, ...]]:
    """Return name and images of a folder that has no part in the training, labelled by the run's classes."""
    pool = read(source)
    unseen = (pool.given == TEST) if (pool.given == TEST).any() else torch.ones_like(pool.given, dtype=torch.bool)
    numbers = _numbers(pool, classes, source)
    chosen = [pool.images[n] for n in unseen.nonzero().flatten().tolist()]
    return pool.name, tuple(
        Boxed(each.path, each.boxes, numbers[each.labels], each.crowd, each.size) for each in chosen
    )


def _numbers(pool: BoxPool, classes: Sequence[str], source: str) -> Tensor:
    """Return for each class of a pool its number in the run."""
    for name in pool.classes:
        if name not in classes:
            raise unknown("class", name, classes, where=f"{source} has other classes than the run: ")
    return torch.tensor([classes.index(name) for name in pool.classes])


def spaced(images: tuple[Boxed, ...], limit: int | None) -> tuple[Boxed, ...]:
    """Return at most so many of the images, evenly spaced."""
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}, but it must be at least 1")
    if limit is None or limit >= len(images):
        return images
    return tuple(images[n * len(images) // limit] for n in range(limit))


def sheet(model: nn.Module, images: tuple[Boxed, ...], card: DetectorCard) -> bytes:
    """Draw images, as PNG: the true boxes beside what was found, and below the masks of the FPN that weigh places.

    Args:
        model: as for `found_boxes`.
        images: one or more.
        card: of the model.
    """
    rows: list[Row] = []
    for pictures, targets in box_batches(images, 1, image_size=card.image_size):
        pixels, found = to_pixels(pictures[0]), seen(model, pictures[0], least_score=LEAST_SCORE)
        name = images[int(targets[0]["image"])].path.stem
        rows += [Row((_true(pixels, name, targets[0]), detections(pixels, found.boxes, LEAST_SCORE)), 2)]
        rows += mask_rows(pixels, found.masks)
    content = io.BytesIO()
    drawn(rows, card.classes).savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def _true(pixels: Picture, name: str, target: dict[str, Tensor]) -> Panel:
    """Return the picture of the true boxes; crowds are left out, since they are not to be found one by one."""
    single = ~target["crowd"]
    boxes = Boxes(target["boxes"][single].numpy(), target["labels"][single].numpy() - 1)
    return Panel(pixels, name, f"true boxes: {len(boxes.labels)}", boxes)
