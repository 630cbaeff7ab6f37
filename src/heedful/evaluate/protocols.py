"""The evaluations by name: what each can be told, and how it goes from a trained network to what is found of it."""

import io
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from heedful import data
from heedful.data.batches import Channels
from heedful.data.boxes import read_boxes
from heedful.data.load import NAMES
from heedful.errors import InputError, unknown
from heedful.evaluate.attacks import NUM_STEPS
from heedful.evaluate.classification import classification
from heedful.evaluate.figure_data import LAYOUTS
from heedful.evaluate.found import Found, Headline, Numbers
from heedful.evaluate.maps import batches_of, evaluate_maps
from heedful.evaluate.object_data import Sample
from heedful.evaluate.on_boxes import ReadBoxes, found_boxes
from heedful.evaluate.on_clips import clip_errors
from heedful.evaluate.on_objects import localization
from heedful.evaluate.robustness import EPSILONS, robustness
from heedful.evaluate.runs import Read, TrainedRun, images_of, statistics_of
from heedful.evaluate.segmentation import segmentation
from heedful.evaluate.transfer import transfer
from heedful.models.cards import ClipCard


@dataclass(frozen=True)
class Asked:
    """What an evaluation can be told; each uses some of it, see `PROTOCOLS`.

    Args:
        source: data, see `heedful.evaluate.object_data`; None: the run's own test images.
        limit: at most so many images, evenly spaced.
        layer: of class maps; None: the last that has 4 x 4 places.
        method: of class maps.
        epsilons: sizes of attacks, ascending, in [0, 1]: 1/255 is one step of a pixel.
        steps: of PGD.
        corruptions: whether to measure common corruptions too.
        fuse: how the masks of several levels become one: product, mean or a level's name.
        train_per_class: images of each class that the SVM learns from; None: see `heedful.evaluate.transfer`.
        num_seeds: draws of these.
    """

    source: str | None = None
    limit: int | None = None
    layer: str | None = None
    method: str = "grad-cam"
    epsilons: tuple[float, ...] = EPSILONS
    steps: int = NUM_STEPS
    corruptions: bool = False
    fuse: str = "product"
    train_per_class: int | None = None
    num_seeds: int = 5


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated.

    Args:
        model: in evaluation mode, on the device where to compute.
        run: where it comes from.
        read: `heedful.data.read`, or one that remembers what it read.
        read_boxes: likewise, of images with boxes.
    """

    model: nn.Module
    run: TrainedRun
    read: Read = data.read
    read_boxes: ReadBoxes = read_boxes

    def prepared(self, asked: Asked) -> tuple[Sample, Channels, Channels]:
        """Return the images asked for, and mean and deviation of the channels to normalise them with."""
        return images_of(self.run, asked.source, self.read).limited(asked.limit), *statistics_of(self.run.image_card)


@dataclass(frozen=True)
class Protocol:
    """One evaluation.

    Args:
        evaluate: from a network and what is asked to what is found.
        options: names of what it uses of `Asked`, besides the source.
        needs: what the source must be; empty where the run's own test images do.
        several_classes: whether the run's own images may have several classes each.
        tasks: of the runs that it can measure.
    """

    evaluate: Callable[[Subject, Asked], Found]
    options: tuple[str, ...]
    needs: str = ""
    several_classes: bool = False
    tasks: tuple[str, ...] = ("classification",)


DOES = {"classification": "classifies images", "clips": "classifies clips", "detection": "finds objects"}
"""Task -> what a network of it does, in words."""


def check(on: str, asked: Asked) -> Protocol:
    """Return the protocol of this name.

    Raises:
        InputError: if there is none, it does not use what is asked, or the data are missing.
    """
    if on not in PROTOCOLS:
        raise unknown("protocol", on, PROTOCOLS)
    protocol = PROTOCOLS[on]
    for field in fields(asked):
        if field.name not in ("source", *protocol.options) and getattr(asked, field.name) != field.default:
            users = ", ".join(name for name, each in PROTOCOLS.items() if field.name in each.options)
            raise InputError(f"{on} does not use {_option(field.name)}: leave it out, or evaluate on {users}")
    if asked.source is None and protocol.needs:
        raise InputError(f"{on} needs other data than the run's own: give {protocol.needs}")
    if asked.source is not None:
        _require_source(asked.source)
    return protocol


def check_task(on: str, task: str, name: str) -> None:
    """Raise an InputError if a protocol cannot measure networks of a task.

    Args:
        on: name of the protocol.
        task: such as `detection`.
        name: of a run, for the message.
    """
    if task not in PROTOCOLS[on].tasks:
        able = ", ".join(each for each, protocol in PROTOCOLS.items() if task in protocol.tasks)
        raise InputError(f"{name} {DOES[task]}, which {on} cannot measure: evaluate on {able}")


def _option(name: str) -> str:
    """Return the command line's word for a field of `Asked`."""
    return f"--{name.removeprefix('num_').replace('_', '-')}"


def _require_source(source: str) -> None:
    if source not in NAMES and not (source and Path(source).expanduser().exists()):
        raise InputError(f"{source}: no such file or folder; the names that are known are {', '.join(NAMES)}")


def _detection(subject: Subject, asked: Asked) -> Found:
    return found_boxes(subject.model, subject.run, asked.source, asked.limit, subject.read_boxes)


def _classification(subject: Subject, asked: Asked) -> Found:
    if isinstance(subject.run.card, ClipCard):
        return clip_errors(subject.model, subject.run, asked.source, asked.limit)
    sample, mean, deviation = subject.prepared(asked)
    batches = batches_of(sample.split, mean, deviation, next(subject.model.parameters()).device)
    numbers: Numbers = {"data": sample.name, "num_images": len(sample.split), **classification(subject.model, batches)}
    if "map" in numbers:
        return Found(numbers, (Headline("mAP", numbers["map"], "%", "higher"),))
    return Found(numbers, (Headline("error", numbers["error"], "%", "lower"),))


def _maps(subject: Subject, asked: Asked) -> Found:
    numbers = evaluate_maps(subject.model, *subject.prepared(asked), layer=asked.layer, method=asked.method)
    ks = numbers["ks"] if numbers["ks_true_is_higher"] else -numbers["ks"]
    pxap = numbers.get("localisation", {}).get("pxap")
    headlines = (("KS", ks, "higher"), ("insertion", numbers["insertion"], "higher"),
                 ("deletion", numbers["deletion"], "lower"), ("PxAP", pxap, "higher"))  # fmt: skip
    return Found(
        numbers,
        tuple(Headline(name, value, "", better) for name, value, better in headlines if value is not None),
        pictures={"ks": _ks_chart(subject.run.name, numbers)},
    )


def _ks_chart(title: str, numbers: Numbers) -> bytes:
    from heedful.evaluate.separation import Separation, ks_chart

    curves: dict[str, Any] = {name: np.array(values) for name, values in numbers["chart"].items()}
    found = Separation(numbers["ks"], numbers["ks_at"], numbers["ks_true_is_higher"], **curves)
    content = io.BytesIO()
    ks_chart({title: found}).savefig(content, format="png", dpi=150)
    return content.getvalue()


def _robustness(subject: Subject, asked: Asked) -> Found:
    sample, mean, deviation = subject.prepared(asked)
    return robustness(
        subject.model,
        sample,
        mean,
        deviation,
        epsilons=asked.epsilons,
        steps=asked.steps,
        corruptions=asked.corruptions,
        classes=subject.run.card.classes,
    )


def _localization(subject: Subject, asked: Asked) -> Found:
    return localization(subject.model, *subject.prepared(asked), layer=asked.layer, method=asked.method)


def _transfer(subject: Subject, asked: Asked) -> Found:
    assert asked.source is not None
    return transfer(
        subject.model,
        subject.run.image_card,
        asked.source,
        train_per_class=asked.train_per_class,
        num_seeds=asked.num_seeds,
        device=next(subject.model.parameters()).device,
        read=subject.read,
    )


def _segmentation(subject: Subject, asked: Asked) -> Found:
    assert asked.source is not None
    return segmentation(
        subject.model,
        subject.run.image_card,
        asked.source,
        fuse=asked.fuse,
        layer=asked.layer,
        limit=asked.limit,
        device=next(subject.model.parameters()).device,
    )


PROTOCOLS = {
    "classification": Protocol(_classification, ("limit",), several_classes=True, tasks=("classification", "clips")),
    "detection": Protocol(_detection, ("limit",), tasks=("detection",)),
    "maps": Protocol(_maps, ("limit", "layer", "method")),
    "localization": Protocol(_localization, ("limit", "layer", "method")),
    "robustness": Protocol(_robustness, ("limit", "epsilons", "steps", "corruptions")),
    "transfer": Protocol(
        _transfer,
        ("train_per_class", "num_seeds"),
        needs="a folder of class folders or of domains, or an .npz",
        several_classes=True,
    ),
    "segmentation": Protocol(
        _segmentation,
        ("limit", "fuse", "layer"),
        needs=f"a folder with {LAYOUTS}",
    ),
}
