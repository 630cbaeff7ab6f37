"""Pictures of what a network heeds in images: maps of its highest classes, one page, many images in batches."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from heedful import files
from heedful.errors import InputError
from heedful.evaluate.cost import chosen_device
from heedful.explain.batches import Report, Task, carry_out, check_batch_size, tasks_of
from heedful.explain.images import pixels
from heedful.explain.page import Entry, Failure, Found, Outcome, asked, coarse
from heedful.explain.question import Question, question
from heedful.explain.subject import Subject, subject
from heedful.maps.attention import Explained
from heedful.maps.figure import figure, probabilities
from heedful.models.pay_attention import PayAttention
from heedful.report.figures import png, style

__all__ = ["Outcome", "explain"]

MOST_SHOWN = 10
"""Classes of an image in its picture and on the page; the arrays have all."""

Pixels = UInt8[np.ndarray, "height width 3"]

Masks = dict[str, NDArray[np.float32]]
"""Level -> weight of each place of an image, (h, w); empty for a network that has none."""


def explain(
    paths: Sequence[str | Path],
    model: str | Path,
    *,
    out: str | Path,
    layers: Sequence[str] | None = None,
    method: str = "grad-cam",
    classes: str = "top5",
    smooth: str = "none",
    pretrained: bool = True,
    batch_size: int = 16,
    device: str = "auto",
    report: Report = lambda done, total: None,
) -> Outcome:
    """Draw what a network heeds in each image, and write the pictures, the maps as arrays, and a page of all of them.

    Into `out` go `index.html` and for each image NAME.png and NAME.maps.npz (`image`, `classes`, `names`,
    `probabilities`, for each layer `maps/LAYER`, (K, h, w) float32, not normalised, and of a network that pays
    attention `masks/LEVEL`, (h, w), the weights of its places). An image that cannot be read
    is named on the page; the others are done. Where an image's folder has the name of a class, that is its true class.

    Args:
        paths: image files, and folders of them at any depth.
        model: a run's folder or one of `save_pretrained`, a name of timm's, or the id of a saved network on the Hub.
        out: a folder, new or of an earlier call.
        layers: dotted names of modules; None: the last with at least 4 x 4 places.
        method: a name in `heedful.maps.attention.METHODS`.
        classes: "topK" for the K highest of each image, or names or numbers of classes by commas.
        smooth: "none"; "flip": mean over the image and its mirror image; "noise": over 16 noisy copies.
        pretrained: for a name of timm's: its pretrained weights, else random ones, of which the page warns.
        batch_size: images at a time; memory grows with it, not with the number of images.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "mps".
        report: called with the number of images done and of all.

    Returns:
        What the page says.

    Raises:
        InputError: before anything is written, for what cannot be used; and, after what was done is on the page, if a
            batch needs too much memory.
    """
    check_batch_size(batch_size)
    out, where = Path(out), chosen_device(device)
    tasks = tasks_of(paths, out)
    network = subject(model, pretrained=pretrained)
    network.model.to(where)
    what = question(network, layers=layers, method=method, classes=classes, smooth=smooth)
    levels, warnings = _levels(network), [text for text in (network.warning, coarse(what)) if text]
    return carry_out(
        Outcome(network.title, warnings, asked(what, levels), len(tasks), levels=levels),
        tasks,
        lambda batch: _batch(batch, network, what, out),
        out,
        batch_size=batch_size,
        report=report,
    )


def _levels(network: Subject) -> tuple[str, ...]:
    return network.model.layers if isinstance(network.model, PayAttention) else ()


def _batch(tasks: Sequence[Task], network: Subject, what: Question, out: Path) -> Iterator[Entry | Failure]:
    read = [pixels(path, network.read) for path, _, _ in tasks]
    answers = _answers([picture for picture, _ in read if picture is not None], network, what)
    for task, (picture, reason) in zip(tasks, read, strict=True):
        yield Failure(task[1], reason) if picture is None else _written(task, picture, next(answers), network, out)


def _answers(pictures: Sequence[Pixels], network: Subject, what: Question) -> Iterator[tuple[Explained, Masks]]:
    """Yield the maps of each picture and the network's own masks, computed for all at once."""
    if not pictures:
        return
    device = next(network.model.parameters()).device
    try:
        images = network.normalised(np.stack(pictures)).to(device)
        answer, masks = what.answer(network.model, images), _masks(network.model, images)
    except torch.OutOfMemoryError:
        raise InputError(f"batch_size: {len(pictures)} images at a time need too much memory, give fewer") from None
    for n in range(len(pictures)):
        one = slice(n, n + 1)
        maps = {layer: found[one].cpu() for layer, found in answer.maps.items()}
        own = {level: found[n].cpu().numpy() for level, found in masks.items()}
        yield Explained(maps, answer.classes[one].cpu(), answer.scores[one].cpu()), own


@torch.no_grad()
def _masks(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    return model.masks(images) if isinstance(model, PayAttention) else {}


def _written(task: Task, picture: Pixels, answers: tuple[Explained, Masks], network: Subject, out: Path) -> Entry:
    """Write an image's picture and maps, and return what the page says of it."""
    path, name, stem = task
    answer, masks = answers
    label = _true_class(path, network)
    with style():
        drawn = figure(
            picture[None], answer, network.classes, labels=[label], most=MOST_SHOWN,
            multi_label=network.multi_label, masks=[masks],
        )  # fmt: skip
    files.write(out / f"{stem}.png", png(drawn))
    numbers, parts = answer.classes[0].tolist(), probabilities(answer, multi_label=network.multi_label)[0]
    names = [network.classes[number] for number in numbers]
    files.write(out / f"{stem}.maps.npz", _arrays(picture, answer, masks, names, parts))
    return Entry(
        name=name,
        stem=stem,
        size=(round(100 * drawn.get_figwidth()), round(100 * drawn.get_figheight())),
        truth="" if label is None else network.classes[label],
        found=[
            Found(network.classes[number], float(part), number == label)
            for number, part in zip(numbers[:MOST_SHOWN], parts, strict=False)
        ],
    )


def _true_class(path: Path, network: Subject) -> int | None:
    numbers = network.numbers(path.absolute().parent.name)
    return numbers[0] if len(numbers) == 1 else None


def _arrays(
    picture: Pixels, answer: Explained, masks: Masks, names: Sequence[str], parts: NDArray[np.float64]
) -> bytes:
    arrays: dict[str, NDArray[Any]] = {
        "image": picture,
        "classes": answer.classes[0].numpy(),
        "names": np.array(names),
        "probabilities": parts,
        **{f"maps/{layer}": found[0].float().numpy() for layer, found in answer.maps.items()},
        **{f"masks/{level}": mask for level, mask in masks.items()},
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stub takes any name for allow_pickle
    return content.getvalue()
