"""Pictures of what a detector finds in images, and of what its feature pyramid attends to, on the page of `explain`."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from heedful import files
from heedful.data.box_batches import read_scaled
from heedful.data.boxes import upright_size
from heedful.errors import InputError
from heedful.evaluate.cost import chosen_device
from heedful.evaluate.detected import Panel, Picture, Row, Seen, detections, drawn, mask_rows, seen
from heedful.explain.batches import Report, Task, carry_out, tasks_of
from heedful.explain.images import pixels
from heedful.explain.page import DETECTIONS, Entry, Failure, Found, Outcome
from heedful.explain.subject import card_of
from heedful.models.cards import DetectorCard
from heedful.models.saved import load
from heedful.report.figures import png, style
from heedful.surgery.stages import SMALLEST_SIDE

NO_PLACES = (
    "Nothing in this network's feature pyramid weighs places, as cbam does: the pictures show what was found, and not "
    "where attention lies."
)


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
        return read_scaled(path, upright_size(path), self.card.image_size)

    def sees(self, picture: Picture) -> Seen:
        """Return what it finds in a picture."""
        return seen(self.model, torch.tensor(picture).permute(2, 0, 1).float() / 255, least_score=self.score)


def is_detector(model: str | Path) -> bool:
    """Return whether this is a saved network that finds objects."""
    return isinstance(card_of(model), DetectorCard)


def explain_detections(
    paths: Sequence[str | Path],
    model: str | Path,
    *,
    out: str | Path,
    score: float = 0.5,
    device: str = "auto",
    report: Report = lambda done, total: None,
) -> Outcome:
    """Draw what a detector finds in each image, and write the pictures, the boxes as arrays, and a page of all of them.

    Into `out` go `index.html` and for each image NAME.png and NAME.detections.npz (`image`, `boxes`, (n, 4), left, top,
    right, bottom in its pixels, `classes`, `names`, `scores` and, of gates in the feature pyramid that weigh places,
    `masks/GATE`, float16, of each pixel). An image that cannot be read is named on the page; the others are done.

    Args:
        paths: image files, and folders of them at any depth.
        model: a detector's run, a folder of `save_pretrained`, or the id of a saved network on the Hub.
        out: a folder, new or of an earlier call.
        score: the least of what is shown, in [0, 1).
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "mps".
        report: called with the number of images done and of all.

    Returns:
        What the page says.

    Raises:
        InputError: before anything is written, for what cannot be used; and, after what was done is on the page, if an
            image needs too much memory.
    """
    if not 0 <= score < 1:
        raise InputError(f"score is {score:g}, but it must be in [0, 1), for example 0.5")
    out, where = Path(out), chosen_device(device)
    tasks = tasks_of(paths, out)
    detector = _detector(model, score, where)
    side = detector.card.image_size
    levels = tuple(detector.sees(np.zeros((side, side, 3), np.uint8)).masks)
    return carry_out(
        Outcome(detector.title, [] if levels else [NO_PLACES], _asked(score, levels), len(tasks), DETECTIONS, levels),
        tasks,
        lambda batch: (_explained(task, detector, out) for task in batch),
        out,
        batch_size=1,  # what is found in an image must not depend on those beside it
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


def _explained(task: Task, detector: Detector, out: Path) -> Entry | Failure:
    path, name, _ = task
    picture, reason = pixels(path, detector.read)
    if picture is None:
        return Failure(name, reason)
    try:
        return _written(task, picture, detector.sees(picture), detector, out)
    except torch.OutOfMemoryError:
        raise InputError(f"{path} needs more memory than this device has: give --device cpu") from None


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
        **{f"masks/{gate}": mask.astype(np.float16) for gate, mask in found.masks.items()},
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stub takes any name for allow_pickle
    return content.getvalue()
