"""Evaluations of a group -> one table: a row for each variant, a column for each headline, and which cell is bold.

Bold is the best of a column where it counts: where its paired test against the first row, after Holm's correction for
all comparisons of the column, is below 5 %; and the first row itself where that holds for all others.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heedful.report.formats import markdown_cell
from heedful.report.found import Evaluated, Headline, Question, evaluated
from heedful.report.labels import thing
from heedful.report.numbers import mean_and_deviation, plural
from heedful.report.results import Experiment, Group
from heedful.statistics import SIGNIFICANCE, Paired, Summary, holm, paired, summary

MOST_NAMED = 5  # files in a note

Seeds = Mapping[int, float]
"""Seed -> value."""


@dataclass(frozen=True)
class Cell:
    """A variant's number: over which of its finished runs, and whether it is the best, and counts."""

    summary: Summary | None
    num_runs: int
    bold: bool
    unit: str

    @property
    def text(self) -> str:
        """The mean and the deviation, two digits after the point for percent, else three."""
        return mean_and_deviation(self.summary, 2 if self.unit == "%" else 3)

    @property
    def gap(self) -> str:
        """What is missing: "2 of 3 seeds", or nothing."""
        num_seeds = self.summary.num_seeds if self.summary else 0
        return f"{num_seeds} of {self.num_runs} seeds" if 0 < num_seeds < self.num_runs else ""


@dataclass(frozen=True)
class Column:
    """One headline of one question, a cell for each row of the group; `place` is what was measured on what."""

    place: str
    headline: Headline
    cells: list[Cell]

    @property
    def heading(self) -> str:
        """The headline with its unit."""
        return f"{self.headline.name} {self.headline.unit}".rstrip()


@dataclass(frozen=True)
class Table:
    """A group's evaluations: labels of the rows, columns, and what a reader must know."""

    labels: list[str]
    columns: list[Column]
    notes: list[str]


def table(group: Group) -> Table | None:
    """Return the summary of a group's evaluations; None if there is no file of any."""
    everything = evaluated(group)
    columns = [
        _column(group, everything, question, headline)
        for question in everything.questions
        for headline in _headlines(everything, question)
    ]
    if not columns and not everything.left_out:
        return None
    return Table([row.label for row in group.rows], columns, _notes(group, everything, columns))


def files(experiment: Experiment) -> dict[str, str]:
    """Return what `evaluations.csv` and `evaluations.md` hold; neither is there where no run was evaluated."""
    tables = [(group, table(group)) for group in experiment.groups]
    text = "\n".join(f"### {group.title}\n\n{as_markdown(found)}" for group, found in tables if found)
    return {"evaluations.csv": as_csv(experiment), "evaluations.md": text} if text else {}


def as_csv(experiment: Experiment) -> str:
    """Return a line for each run and headline, every number at full precision."""
    lines = [
        [row.name, seed, question.protocol, question.data, headline.name, repr(value), headline.unit, headline.better,
         "; ".join(" ".join(option) for option in question.options)]
        for group in experiment.groups
        for everything in [evaluated(group)]
        for row in group.rows
        for seed, answers in everything.by_row[row.label].items()
        for question, found in answers.items()
        for headline, value in found.values.items()
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "seed", "protocol", "data", "headline", "value", "unit", "better", "options"])
    writer.writerows(lines)
    return text.getvalue()


def _headlines(everything: Evaluated, question: Question) -> list[Headline]:
    found = everything.of(question)
    return list(
        dict.fromkeys(headline for seeds in found.values() for each in seeds.values() for headline in each.values)
    )


def _column(group: Group, everything: Evaluated, question: Question, headline: Headline) -> Column:
    found = everything.of(question)
    values: list[Seeds] = [
        {seed: each.values[headline] for seed, each in found.get(row.label, {}).items() if headline in each.values}
        for row in group.rows
    ]
    best = best_that_counts(values, headline.better)
    cells = [
        Cell(summary(list(seeds.values())) if seeds else None, len(row.runs), place == best, headline.unit)
        for place, (row, seeds) in enumerate(zip(group.rows, values, strict=True))
    ]
    return Column(everything.title(question), headline, cells)


def best_that_counts(values: Sequence[Seeds], better: str) -> int | None:
    """Return the place of the best row if it counts, see above; None if it does not, or no row has values.

    Args:
        values: of each row, the first being what the others are compared with.
        better: `lower` or `higher`.
    """
    sign = 1 if better == "lower" else -1
    means = {place: sign * summary(list(seeds.values())).mean for place, seeds in enumerate(values) if seeds}
    best = min(means, key=lambda place: means[place], default=0)
    pairs = [_pair(seeds, values[0]) for seeds in values[1:]]
    corrected = holm([math.nan if pair is None else pair.p_value for pair in pairs])
    # Over the seeds that both have, which need not be those of the means.
    leads = [0.0 if pair is None else sign * pair.difference * (1 if best == 0 else -1) for pair in pairs]
    deciding = list(zip(corrected, leads, strict=True))[slice(None) if best == 0 else slice(best - 1, best)]
    return best if deciding and all(p < SIGNIFICANCE and lead > 0 for p, lead in deciding) else None


def _pair(ours: Seeds, theirs: Seeds) -> Paired | None:
    common = sorted(ours.keys() & theirs.keys())
    return paired([ours[seed] for seed in common], [theirs[seed] for seed in common]) if common else None


def _notes(group: Group, everything: Evaluated, columns: Sequence[Column]) -> list[str]:
    return [
        *_on_bold(group, columns),
        *_on_questions(everything, thing(group.rows[0].settings)),
        *_on_files(everything),
    ]


def _on_bold(group: Group, columns: Sequence[Column]) -> list[str]:
    if not columns:
        return []
    most = max(cell.summary.num_seeds for column in columns for cell in column.cells if cell.summary)
    if most == 1:
        return ["1 seed cannot tell a difference from chance, so that nothing is bold."]
    first = group.rows[0].label
    return [
        "Mean ± deviation over seeds. Bold is the best of a column where it counts: its paired t-test against "
        f"{first} (of {first} itself: those of all others) is below 5 % after Holm's correction for the column."
    ]


def _on_questions(everything: Evaluated, thing: str) -> list[str]:
    found = []
    for question in everything.questions:
        number = [plural(question.num_images, thing)] if question.num_images else []
        options = [f"{name.replace('_', ' ')} {value}" for name, value in question.options]
        found.append(f"{everything.title(question)}: {'; '.join([*number, *options])}.")
    return found


def _on_files(everything: Evaluated) -> list[str]:
    files = everything.left_out
    if not files:
        return []
    named = ", ".join(files[:MOST_NAMED]) + (", ..." if len(files) > MOST_NAMED else "")
    return [f"{plural(len(files), 'file')} left out, damaged or of an older heedful: {named}: evaluate again."]


def as_markdown(found: Table) -> str:
    """Return a GitHub-flavoured Markdown table, the arrow in a heading says which way is better, and the notes."""
    arrows = {"lower": "↓", "higher": "↑"}
    headings = [f"{column.heading} {arrows[column.headline.better]} ({column.place})" for column in found.columns]
    lines = ["| variant | " + " | ".join(map(markdown_cell, headings)) + " |", "| :-- |" + " --: |" * len(headings)]
    for place, label in enumerate(found.labels):
        cells = [_marked(column.cells[place]) for column in found.columns]
        lines.append(f"| {markdown_cell(label)} | " + " | ".join(cells) + " |")
    notes = [f"- {markdown_cell(note)}" for note in found.notes]
    return "\n".join([*(lines if found.columns else []), "", *notes]) + "\n"


def _marked(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.bold else cell.text
    return f"{text} ({cell.gap})" if cell.gap else text
