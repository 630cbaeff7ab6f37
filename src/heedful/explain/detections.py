"""Pictures of what a detector finds in images, and of what its feature pyramid attends to, on the page of `explain`."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from heedful import files
from heedful.data.box_batches import scaled_size
from heedful.data.boxes import upright_size
from heedful.data.images import read_rgb
from heedful.errors import InputError
from heedful.evaluate.cost import chosen_device
from heedful.evaluate.detected import Panel, Picture, Row, Seen, detections, drawn, mask_rows, seen
from heedful.explain.batches import Report, Task, carry_out, check_batch_size, tasks_of
from heedful.explain.images import pixels
from heedful.explain.page import DETECTIONS, Entry, Failure, Found, Outcome
from heedful.explain.subject import card_of
from heedful.models.cards import DetectorCard
from heedful.models.saved import load
from heedful.report.figures import png, style
from heedful.surgery.stages import SMALLEST_SIDE


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector, and how sure it must be of what is shown."""

    model: nn.Module
    card: DetectorCard
    score: float

    @property
    def title(self) -> str:
        """What it is, for people."""
        return self.card.model if self.card.variant == "none" else f"{self.card.model} with {self.card.variant}"

    def read(self, path: Path) -> Picture:
        """Return the pixels of a file as the network sees them, as when it was trained or tested."""
        height, width = scaled_size(upright_size(path), self.card.image_size)
        image = read_rgb(path, 2 * min(height, width)).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)

    def sees(self, pictures: Sequence[Picture]) -> list[Seen]:
        """Return what it finds in pictures."""
        images = [torch.tensor(picture).permute(2, 0, 1).float() / 255 for picture in pictures]
        return seen(self.model, images, least_score=self.score) if images else []


def is_detector(model: str | Path) -> bool:
    """Return whether this is a saved network that finds objects."""
    return isinstance(card_of(model), DetectorCard)


def explain_detections(
    paths: Sequence[str | Path],
    model: str | Path,
    *,
    out: str | Path,
    score: float = 0.5,
    batch_size: int = 4,
    device: str = "auto",
    report: Report = lambda done, total: None,
) -> Outcome:
    """Draw what a detector finds in each image, and write the pictures, the boxes as arrays, and a page of all of them.

    Into `out` go `index.html` and for each image NAME.png and NAME.detections.npz (`image`, `boxes`, (n, 4), left, top,
    right, bottom in its pixels, `classes`, `names`, `scores` and, of gates in the feature pyramid that weigh places,
    `masks/SITE`, (h, w)). An image that cannot be read is named on the page; the others are done.

    Args:
        paths: image files, and folders of them at any depth.
        model: a detector's run, a folder of `save_pretrained`, or the id of a saved network on the Hub.
        out: a folder, new or of an earlier call.
        score: the least of what is shown, in [0, 1).
        batch_size: images at a time.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "mps".
        report: called with the number of images done and of all.

    Returns:
        What the page says.

    Raises:
        InputError: before anything is written, for what cannot be used; and, after what was done is on the page, if a
            batch needs too much memory.
    """
    check_batch_size(batch_size)
    if not 0 <= score < 1:
        raise InputError(f"score is {score:g}, but it must be in [0, 1), for example 0.5")
    out, where = Path(out), chosen_device(device)
    tasks = tasks_of(paths, out)
    detector = _detector(model, score, where)
    side = detector.card.image_size
    levels = tuple(detector.sees([np.zeros((side, side, 3), np.uint8)])[0].masks)
    return carry_out(
        Outcome(detector.title, [], _asked(score, levels), len(tasks), DETECTIONS, levels),
        tasks,
        lambda batch: _batch(batch, detector, out),
        out,
        batch_size=batch_size,
        report=report,
    )


def _detector(model: str | Path, score: float, where: torch.device) -> Detector:
    card = card_of(model)
    if not isinstance(card, DetectorCard):
        raise InputError(f"{model} finds no objects: give the run of a detector, or draw maps of classes")
    return Detector(load(model).to(where), card, score)


def _asked(score: float, levels: tuple[str, ...]) -> dict[str, str]:
    asked = {"objects": f"of score {score:g} or more"}
    places = f"{SMALLEST_SIDE} × {SMALLEST_SIDE} places or more"
    return asked if not levels else asked | {"attention": f"of the feature pyramid, where it has {places}"}


def _batch(tasks: Sequence[Task], detector: Detector, out: Path) -> Iterator[Entry | Failure]:
    read = [pixels(path, detector.read) for path, _, _ in tasks]
    try:
        answers = iter(detector.sees([picture for picture, _ in read if picture is not None]))
    except torch.OutOfMemoryError:
        raise InputError(f"batch_size: {len(tasks)} images at a time need too much memory, give fewer") from None
    for task, (picture, reason) in zip(tasks, read, strict=True):
        yield Failure(task[1], reason) if picture is None else _written(task, picture, next(answers), detector, out)


def _written(task: Task, picture: Picture, found: Seen, detector: Detector, out: Path) -> Entry:
    """Write an image's picture and boxes, and return what the page says of it."""
    _, name, stem = task
    height, width, _ = picture.shape
    pair = (Panel(picture, "image", f"{width} × {height} pixels"), detections(picture, found.boxes, detector.score))
    with style():
        figure = drawn([Row(pair, 2), *mask_rows(picture, found.masks)], detector.card.classes)
    files.write(out / f"{stem}.png", png(figure))
    names = [detector.card.classes[label] for label in found.boxes.labels]
    files.write(out / f"{stem}.detections.npz", _arrays(picture, found, names))
    size = round(100 * figure.get_figwidth()), round(100 * figure.get_figheight())
    assert found.boxes.scores is not None
    objects = [Found(*each) for each in zip(names, found.boxes.scores.tolist(), strict=True)]
    return Entry(name=name, stem=stem, size=size, truth="", found=objects)


def _arrays(picture: Picture, found: Seen, names: Sequence[str]) -> bytes:
    boxes = found.boxes
    assert boxes.scores is not None
    arrays: dict[str, NDArray[Any]] = {
        "image": picture,
        "boxes": boxes.corners,
        "classes": boxes.labels,
        "names": np.array(names, dtype=str),
        "scores": boxes.scores,
        **{f"masks/{site}": mask for site, mask in found.masks.items()},
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stub takes any name for allow_pickle
    return content.getvalue()
