"""The page: one HTML file that holds everything, asks no server for anything, and says the answer first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heedful.report import numbers, sentences
from heedful.report.evaluated import evaluations
from heedful.report.figures import Look, looks
from heedful.report.formats import Column, columns, gaps
from heedful.report.labels import thing
from heedful.report.parts import Part, charts, evidence
from heedful.report.results import Experiment, Group, Row, scaled
from heedful.report.summary import Table, table
from heedful.report.tables import Comparison, compare
from heedful.report.template import rendered

OUR_OWN = ("variant", "model", "data")  # settings that the tables and headings show already


@dataclass(frozen=True)
class Section:
    """All that the page says about one group."""

    group: Group
    anchor: str
    answer: str
    comparisons: list[Comparison]
    sentences: list[str]
    columns: list[Column]
    notes: list[str]
    evaluations: Table | None
    parts: list[Part]


def page(experiment: Experiment) -> str:
    """Return the experiment's page as HTML."""
    look = looks([row.label for row in experiment.rows])
    values = {
        "experiment": experiment,
        "scaled": scaled(experiment.scale) if experiment.scale != 1 else "",
        "state": _state(experiment),
        "sections": [_section(group, look, f"group-{i}") for i, group in enumerate(experiment.groups, start=1)],
        "colours": {label: colour for label, (colour, _, _) in look.items()},
        "verdict": _verdict,
        "gaps": gaps,
        "settings": _settings(experiment.rows),
        "data": _data(experiment),
        "environment": _environment(experiment.rows),
        "commands": _commands(experiment),
    }
    return rendered("report/page.html.j2", values)


def _section(group: Group, look: Mapping[str, Look], anchor: str) -> Section:
    comparisons = compare(group)
    return Section(
        group=group,
        anchor=anchor,
        answer=sentences.answer(comparisons),
        comparisons=comparisons,
        sentences=[sentences.sentence(comparison, comparisons[0]) for comparison in comparisons],
        columns=columns(comparisons),
        notes=sentences.notes(group, comparisons),
        evaluations=table(group),
        parts=[*charts(group, comparisons, look), *evidence(group, look), *evaluations(group, look)],
    )


def _verdict(comparison: Comparison) -> str:
    if not sentences.counts(comparison) or comparison.paired is None:
        return ""
    return "lower" if comparison.paired.difference < 0 else "higher"


def _state(experiment: Experiment) -> list[str]:
    finished = sum(len(row.runs) for row in experiment.rows)
    total = len(experiment.rows) * len(experiment.seeds)
    failed = sum(len(row.failures) for row in experiment.rows)
    seconds = sum(run.cost.train_seconds for row in experiment.rows for run in row.runs)
    return [
        f"seeds {numbers.listed([str(seed) for seed in sorted(experiment.seeds)])}",
        f"{finished} of {total} runs finished" + (f", {failed} failed" if failed else ""),
        f"{numbers.duration(seconds)} of training",
    ]


def _settings(rows: Sequence[Row]) -> tuple[dict[str, str], list[str], list[tuple[str, list[str]]]]:
    """Return the settings that all rows share, the names of those that differ, and these row by row."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row.settings) if name not in OUR_OWN]
    values = {name: [_written(row.settings.get(name)) for row in rows] for name in names}
    differing = [name for name in names if len(set(values[name])) > 1]
    shared = {name: values[name][0] for name in names if name not in differing}
    return shared, differing, [(row.name, [values[name][i] for name in differing]) for i, row in enumerate(rows)]


def _data(experiment: Experiment) -> list[dict[str, Any]]:
    """Return one description per data set, of its first finished run."""
    rows = {row.data: row for row in reversed(experiment.rows) if row.runs}
    return [
        {
            "name": name,
            "classes": [str(each) for each in run.data.get("classes", [])],
            "sizes": [run.data.get(f"{split}_images", "?") for split in ("train", "val", "test")],
            "thing": thing(row.settings),
            "size": _size(run.data),
            "augmentation": _written(run.data.get("augmentation", "?")),
            "skipped": [str(path) for path in run.data.get("skipped_images", [])],
            "fingerprint": run.data.get("fingerprint", "unknown"),
        }
        for name, row in reversed(rows.items())
        for run in row.runs[:1]
    ]


def _size(data: Mapping[str, Any]) -> str:
    """Return the size of an image, or of a clip's streams."""
    if "shapes" in data:
        return ", ".join(f"{stream} {' × '.join(map(str, shape))}" for stream, shape in data["shapes"].items())
    return f"{data.get('image_size', '?')} pixels"


def _environment(rows: Sequence[Row]) -> dict[str, str]:
    """Return what the runs were made with; where they differ, every value."""
    runs = [run for row in rows for run in row.runs]
    names = dict.fromkeys(name for run in runs for name in run.environment)
    return {name: "; ".join(dict.fromkeys(_written(run.environment.get(name)) for run in runs)) for name in names}


def _commands(experiment: Experiment) -> list[str]:
    given = experiment.folder
    folder = given.name if given.is_absolute() else given.as_posix()  # a page that is passed on names no machine's path
    return [experiment.command or f"heedful run {folder}/recipe.yaml", f"heedful report {folder}"]


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)
