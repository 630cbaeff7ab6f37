"""The page of explained images: their pictures, how to read them, what could not be read, and how it was made."""

from collections import Counter
from dataclasses import dataclass, field

from heedful.explain.question import Question
from heedful.maps.classes import Top
from heedful.maps.figure import percent
from heedful.maps.smoothing import NUM_COPIES
from heedful.report.numbers import listed, plural
from heedful.report.template import rendered
from heedful.surgery.stages import SMALLEST_SIDE

MARK = '<meta name="generator" content="heedful explain">'
"""By which a later call knows that it may replace the page."""

MAPS, DETECTIONS = "explain/page.html.j2", "explain/detections.html.j2"

SMOOTHED = {
    "none": "",
    "flip": ", mean of the image and its mirror image",
    "noise": f", mean of {NUM_COPIES} copies with noise",
}


@dataclass(frozen=True)
class Found:
    """A class that was mapped, or an object: name, probability or score, and whether it is the true class."""

    name: str
    probability: float
    is_true: bool = False


@dataclass(frozen=True)
class Entry:
    """An explained image.

    Args:
        name: its path, as it is shown.
        stem: of the files made of it: STEM.png and STEM.maps.npz or STEM.detections.npz.
        size: width and height of the picture on the page, in pixels.
        truth: name of the true class, or empty.
        found: the mapped classes, or the objects that were found.
    """

    name: str
    stem: str
    size: tuple[int, int]
    truth: str
    found: list[Found]


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """All that was found; the page says it.

    Args:
        title: of the network.
        warnings: what a reader of the pictures must know.
        asked: name -> value of what was asked.
        num_images: that were asked about.
        template: of the page.
        levels: layers whose places the network weighs itself.
        entries: the explained images.
        failures: those that could not be read.
    """

    title: str
    warnings: list[str]
    asked: dict[str, str]
    num_images: int
    template: str = MAPS
    levels: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def page(outcome: Outcome) -> str:
    """Return the page as HTML; its pictures lie beside it."""
    values = {
        "outcome": outcome,
        "mark": MARK,
        "state": _state(outcome),
        "has_truth": any(entry.truth for entry in outcome.entries),
        "alternative": _alternative,
        "counted": counted,
        "percent": percent,
    }
    return rendered(outcome.template, values)


def _state(outcome: Outcome) -> str:
    done, failed = len(outcome.entries), len(outcome.failures)
    text = plural(done, "image") if done == outcome.num_images else f"{done} of {outcome.num_images} images"
    stopped = ", then stopped" if done + failed < outcome.num_images else ""
    return text + (f", {failed} could not be read" if failed else "") + stopped


def asked(question: Question, levels: tuple[str, ...]) -> dict[str, str]:
    """Return what was asked about class maps, in words; levels as of an `Outcome`."""
    layers = [
        f"{layer} ({height} × {width} places)"
        for layer, (height, width) in zip(question.layers, question.places, strict=True)
    ]
    told = {"maps": question.method + SMOOTHED[question.smooth], "layers": listed(layers), "classes": _which(question)}
    return told if not levels else told | {"attention": f"the network's own, at {listed(list(levels))}"}


def _which(question: Question) -> str:
    if not isinstance(question.classes, Top):
        return question.text
    k = question.classes.k
    return f"of each image the {k} with the highest scores" if k > 1 else "of each image the one with the highest score"


def coarse(question: Question) -> str:
    """Return a warning if a layer's maps are so small that they show next to nothing."""
    small = [
        layer for layer, places in zip(question.layers, question.places, strict=True) if min(places) < SMALLEST_SIDE
    ]
    if not small:
        return ""
    return (
        f"Maps of less than {SMALLEST_SIDE} × {SMALLEST_SIDE} places, as those of {listed(small)}, show next to "
        "nothing: choose an earlier layer, or a network for larger images."
    )


def counted(entry: Entry) -> str:
    """Return how many objects of each class were found, the most frequent class first."""
    counts = Counter(found.name for found in entry.found)
    return listed([f"{count} × {name}" for name, count in counts.most_common()]) or "nothing"


def _alternative(entry: Entry) -> str:
    """Describe a picture in words."""
    maps = [f"{found.name} {percent(found.probability)}" for found in entry.found]
    truth = f" The true class is {entry.truth}." if entry.truth else ""
    return f"{entry.name} and its maps of {listed(maps)}.{truth}"
