"""What is asked of a network about every image: layers, method, classes and smoothing, checked before the first one."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heedful.errors import InputError, unknown
from heedful.explain.subject import Subject
from heedful.maps.attention import METHODS, Explained, explained
from heedful.maps.classes import Top, top
from heedful.maps.record import last_layer
from heedful.maps.smoothing import Explain, flip_averaged, noise_averaged

SMOOTHINGS: dict[str, Callable[[Explain, Tensor, Tensor | Top], Explained]] = {
    "none": lambda explain, images, classes: explain(images, classes),
    "flip": flip_averaged,
    "noise": noise_averaged,
}
"""Name -> what asks for the maps of images and classes, once or more often."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about every image.

    Args:
        layers: dotted names.
        places: height and width of each layer's maps.
        classes: the same ones for every image, or its highest.
        text: the classes as they were asked for.
        method: a name in `METHODS`.
        smooth: a name in `SMOOTHINGS`.
    """

    layers: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    classes: Top | tuple[int, ...]
    text: str
    method: str
    smooth: str

    def answer(self, model: torch.nn.Module, images: Tensor) -> Explained:
        """Return the maps of a batch, normalised as the network takes it."""
        chosen = self.classes
        classes = chosen if isinstance(chosen, Top) else torch.tensor([chosen] * len(images), device=images.device)

        def explain(images: Tensor, classes: Tensor | Top) -> Explained:
            return explained(model, images, layers=self.layers, classes=classes, method=self.method)

        with warnings.catch_warnings():
            # The page says how many places each layer has.
            warnings.filterwarnings("ignore", message="layer .* puts out 1 x 1 places")
            return SMOOTHINGS[self.smooth](explain, images, classes)


def question(
    subject: Subject, *, layers: Sequence[str] | None, method: str, classes: str, smooth: str
) -> Question:  # fmt: skip
    """Return the question, asked once about a grey image, so that what cannot be answered is known at once.

    Args:
        subject: the network.
        layers: dotted names; None: the last one with at least 4 x 4 places.
        method: a name in `METHODS`.
        classes: `topK` for the K highest of each image, or names or numbers of classes by commas.
        smooth: a name in `SMOOTHINGS`.

    Raises:
        InputError: if a name is unknown, a class is not there, or a layer has no maps of the image.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if smooth not in SMOOTHINGS:
        raise unknown("smoothing", smooth, SMOOTHINGS)
    device = next(subject.model.parameters()).device
    grey = torch.zeros(1, 3, *subject.size, device=device)
    asked = tuple(dict.fromkeys(name.strip() for name in layers or [last_layer(subject.model, grey)]))
    wanted = chosen(classes, subject)
    trial = Question(asked, (), (0,), "0", "grad-cam", "none").answer(subject.model, grey)
    places = tuple((found.shape[2], found.shape[3]) for found in trial.maps.values())
    for layer, grid in zip(asked, places, strict=True):
        _check_grid(layer, grid, subject.size)
    return Question(asked, places, wanted, classes, method, smooth)


def _check_grid(layer: str, places: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise InputError if a layer's grid is not one of places in the image, as the tokens of a transformer are not."""
    (rows, columns), (height, width) = places, size
    if not 0.5 < rows * width / (columns * height) < 2:
        raise InputError(
            f"layer {layer!r} puts out {rows} x {columns} numbers for images of {height} x {width} pixels, which is no "
            "map of them: name a convolution's layer (--layers), or take a convolutional network"
        )


def chosen(text: str, subject: Subject) -> Top | tuple[int, ...]:
    """Return the classes that a text names: `topK`, or names and numbers by commas.

    A class of that name goes before the class of that number.

    Raises:
        InputError: if there is no such class, several have the name, or a number is out of range.
    """
    if match := re.fullmatch(r"top(\d+)", text.strip()):
        return top(min(int(match[1]), len(subject.classes)))
    if len(subject.numbers(text)) == 1:  # its name may hold commas
        return (subject.numbers(text)[0],)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"classes is {text!r}: give top5, or names or numbers of classes by commas")
    return tuple(dict.fromkeys(_number(name, subject) for name in names))


def _number(name: str, subject: Subject) -> int:
    found = subject.numbers(name)
    if len(found) > 1:
        raise InputError(f"classes: {name!r} is the name of classes {', '.join(map(str, found))}: give one's number")
    if found:
        return found[0]
    if not re.fullmatch(r"-?\d+", name):
        raise unknown("class", name, dict.fromkeys([*subject.classes, *subject.other_names]))
    if not 0 <= int(name) < len(subject.classes):
        raise InputError(f"classes: {name} is out of range: this network has classes 0 to {len(subject.classes) - 1}")
    return int(name)
