"""Evaluations of runs, read from the files that `heedful evaluate` left in their folders; what cannot be read is named.

A file is `PROTOCOL.json`, of the run's own test images, or `PROTOCOL-DATA.json`: numbers, and among them `protocol`,
`data`, `options`, `headlines`, `curves` and `pictures`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.report.results import Group, Run

OF_TRAINING = ("result.json", "failure.json", "model.json")
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Headline:
    """A number for a table; `better` is `lower` or `higher`, and `unit` is `%` or empty."""

    name: str
    unit: str
    better: str


@dataclass(frozen=True)
class Curves:
    """Lines over a common axis: name -> a value for each of `x`."""

    title: str
    x_name: str
    y_name: str
    x: tuple[float, ...]
    lines: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Question:
    """What was measured; only what answers the same question is compared.

    Args:
        protocol: such as robustness.
        data: the name of the data.
        source: the file's name, less its ending: data of the run's own and others may have one name.
        options: in words, in the order of the protocol, without those that were not given.
        place: where other data than the run's own lay; empty for those.
        num_images: how many there were: a folder may have grown since.
    """

    protocol: str
    data: str
    source: str
    options: tuple[tuple[str, str], ...]
    place: str = ""
    num_images: int | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one file holds."""

    question: Question
    values: Mapping[Headline, float]
    curves: tuple[Curves, ...]
    pictures: Mapping[str, Path]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The evaluations of a group's runs.

    Args:
        by_row: label -> seed -> question -> what was found.
        left_out: files that cannot be read, and why.
    """

    by_row: Mapping[str, Mapping[int, Mapping[Question, Evaluation]]]
    left_out: tuple[str, ...]

    @property
    def questions(self) -> list[Question]:
        """What was asked of any run, each once."""
        return list(dict.fromkeys(q for seeds in self.by_row.values() for found in seeds.values() for q in found))

    def apart(self, question: Question) -> str:
        """Return in words the options, and what of the data, in which a question differs from others of its file."""
        others = [dict(_told(q)) for q in self.questions if q != question and q.source == question.source]
        return ", ".join(
            f"{name} {value}".strip()
            for name, value in _told(question)
            if any(each.get(name) != value for each in others)
        )

    def title(self, question: Question) -> str:
        """Return protocol and data, and what sets the question apart from others on the same data."""
        return ", ".join(filter(None, (f"{question.protocol} on {question.data}", self.apart(question))))

    def of(self, question: Question) -> dict[str, dict[int, Evaluation]]:
        """Return what was found of one question, by label and seed; rows without any are left out."""
        found = {
            label: {seed: answers[question] for seed, answers in seeds.items() if question in answers}
            for label, seeds in self.by_row.items()
        }
        return {label: seeds for label, seeds in found.items() if seeds}


def _told(question: Question) -> list[tuple[str, str]]:
    """Return what may set a question apart: name and value."""
    images = [] if question.num_images is None else [("", f"{question.num_images} images")]
    place = [("from", question.place)] if question.place else []
    return [*question.options, *images, *place]


def evaluated(group: Group) -> Evaluated:
    """Return what the folders of a group's finished runs hold."""
    left_out: list[str] = []
    by_row = {row.label: {run.seed: _of_run(run, left_out) for run in row.runs} for row in group.rows}
    return Evaluated(by_row, tuple(left_out))


def _of_run(run: Run, left_out: list[str]) -> dict[Question, Evaluation]:
    found = {}
    for path in sorted(run.folder.glob("*.json"), key=lambda path: path.stem):
        if path.name in OF_TRAINING:
            continue
        try:
            evaluation = _evaluation(path)
            found[evaluation.question] = evaluation
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            # Of an OSError its reason alone: a page that is passed on names no machine's path.
            reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
            left_out.append(f"{'/'.join(path.parts[-3:])} ({type(error).__name__}: {reason})")
    return found


def _evaluation(path: Path) -> Evaluation:
    content = json.loads(path.read_text(encoding="utf-8"))
    options = tuple((name, _written(value)) for name, value in content["options"].items() if value is not None)
    return Evaluation(
        question=Question(
            str(content["protocol"]),
            str(content["data"]),
            path.stem,
            options,
            content["source"] or "",
            content.get("num_images"),
        ),
        values=dict(_headline(each) for each in content["headlines"]),
        curves=tuple(_curves(each) for each in content["curves"]),
        pictures={str(name): _picture(path.parent / Path(file).name) for name, file in content["pictures"].items()},
    )


def _headline(spec: Mapping[str, Any]) -> tuple[Headline, float]:
    value = float(spec["value"])
    if not math.isfinite(value) or spec["better"] not in ("lower", "higher"):
        raise ValueError(f"{spec['name']} is {value}, and better if {spec['better']}")
    return Headline(str(spec["name"]), str(spec["unit"]), spec["better"]), value


def _curves(spec: Mapping[str, Any]) -> Curves:
    x = tuple(map(float, spec["x"]))
    lines = {str(name): tuple(map(float, values)) for name, values in spec["lines"].items()}
    if any(len(values) != len(x) for values in lines.values()):
        raise ValueError(f"a line of {spec['title']!r} has not {len(x)} values")
    return Curves(str(spec["title"]), str(spec["x_name"]), str(spec["y_name"]), x, lines)


def _picture(path: Path) -> Path:
    with path.open("rb") as file:
        if file.read(len(PNG)) != PNG:
            raise ValueError(f"{path.name} is no PNG")
    return path


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Return a number; parts of the range of a pixel, 1/255, 2/255, ..., as people write them."""
    levels = 255 * value
    return f"{round(levels)}/255" if 0 < levels < 255 and abs(levels - round(levels)) < 1e-6 else f"{value:g}"
