"""A group's runs -> one comparison per row; and all runs as CSV. How a table is written is in `formats.py`."""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from heedful.report.results import Cost, Expected, Experiment, Group, Row, Run
from heedful.statistics import Paired, Summary, holm, paired, summary

IDENTITY = ("row", "variant", "model", "data", "seed")
METRICS = (
    "test_error", "test_top5_error", "test_map", "test_map50", "test_map75", "test_auc", "test_loss", "val_error",
    "val_loss", "best_epoch",
)  # fmt: skip
OF_SOME = ("test_map", "test_map50", "test_map75", "test_auc")  # columns of experiments alone that have them
COST = ("parameters", "flops", "train_seconds", "epoch_seconds", "inference_seconds")


@dataclass(frozen=True)
class Comparison:
    """One row's numbers, and its paired difference to the group's first row.

    Args:
        label: the variant, or the row's name where variants repeat.
        error: test error in percent over the finished seeds; None if no run is finished.
        top5: likewise, where every finished run has it.
        paired: the difference to the first row over the seeds that both finished; None for the first row itself and
            where no seed is common.
        holm_p: the t-test's p-value, corrected for all comparisons of the group.
        num_comparisons: how many those are.
        parameters: of the whole network.
        flops: per image, two per multiply-add.
        train_ratio: median training epoch, relative to the first row's; nan if unknown.
        inference_ratio: time per image, likewise.
        expected: the paper's value.
        failed: seeds whose loss became NaN or infinite.
        unfinished: seeds that are not done.
        unpaired: seeds left out of the difference because only one side finished them.
        error_name: what the error is: see `Group`.
        auc: the mean area under the ROC curve, in [0, 1], where images have several classes each.
        map50: the mean average precision at an overlap of 0.5, in percent, of detection.
    """

    label: str
    error: Summary | None
    top5: Summary | None
    paired: Paired | None
    holm_p: float
    num_comparisons: int
    parameters: int | None
    flops: int | None
    train_ratio: float
    inference_ratio: float
    expected: Expected | None
    failed: tuple[int, ...]
    unfinished: tuple[int, ...]
    unpaired: tuple[int, ...]
    error_name: str = "top-1 error"
    auc: Summary | None = None
    map50: Summary | None = None


def compare(group: Group) -> list[Comparison]:
    """Compare every row of a group with its first row, seed by seed; the first comparison is that row itself."""
    reference, *others = group.rows
    pairs = [None, *(_pair(row, reference) for row in others)]
    corrected = holm([math.nan if pair is None else pair.p_value for pair in pairs])
    num_comparisons = sum(not math.isnan(p) for p in corrected)
    return [
        _comparison(row, group, pair, p, num_comparisons)
        for row, pair, p in zip(group.rows, pairs, corrected, strict=True)
    ]


def as_csv(experiment: Experiment) -> str:
    """Return one line per run, every number at full precision: rows in the recipe's order, seeds ascending, times last.

    A failed run has a line without numbers. Errors are in percent, `flops` and `inference_seconds` per image.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = [name for name in METRICS if name not in OF_SOME or _is_there(experiment, name)]
    writer.writerow([*IDENTITY, *metrics, *COST])
    for row in experiment.rows:
        lines = {run.seed: _numbers(run, metrics) for run in row.runs}
        lines |= {failure.seed: [""] * len([*metrics, *COST]) for failure in row.failures}
        for seed, numbers in sorted(lines.items()):
            writer.writerow([row.name, row.notation, row.model, row.data, seed, *numbers])
    return text.getvalue()


def _is_there(experiment: Experiment, name: str) -> bool:
    return any(getattr(run.metrics, name) is not None for row in experiment.rows for run in row.runs)


def _numbers(run: Run, metrics: list[str]) -> list[str]:
    values = [getattr(run.metrics, name) for name in metrics] + [getattr(run.cost, name) for name in COST]
    return ["" if value is None else repr(value) for value in values]


def _errors(row: Row) -> dict[int, float]:
    return {run.seed: run.metrics.test_error for run in row.runs}


def _pair(row: Row, reference: Row) -> Paired | None:
    ours, theirs = _errors(row), _errors(reference)
    common = sorted(ours.keys() & theirs.keys())
    return paired([ours[seed] for seed in common], [theirs[seed] for seed in common]) if common else None


def _comparison(row: Row, group: Group, pair: Paired | None, holm_p: float, num_comparisons: int) -> Comparison:
    reference = group.rows[0]
    return Comparison(
        label=row.label,
        error=summary(list(_errors(row).values())) if row.runs else None,
        top5=_summary([run.metrics.test_top5_error for run in row.runs]),
        paired=pair,
        holm_p=holm_p,
        num_comparisons=num_comparisons,
        parameters=row.runs[0].cost.parameters if row.runs else None,
        flops=row.runs[0].cost.flops if row.runs else None,
        # Of epochs rather than whole runs: a resumed run, or one on a machine busy for a while, is no slower network.
        train_ratio=_ratio(row, reference, lambda cost: cost.epoch_seconds),
        inference_ratio=_ratio(row, reference, lambda cost: cost.inference_seconds),
        expected=row.expected,
        failed=tuple(failure.seed for failure in row.failures),
        unfinished=row.unfinished,
        unpaired=tuple(sorted(_errors(row).keys() ^ _errors(reference).keys())),
        error_name=group.error_name,
        auc=_summary([run.metrics.test_auc for run in row.runs]),
        map50=_summary([run.metrics.test_map50 for run in row.runs]),
    )


def _summary(values: list[float | None]) -> Summary | None:
    known = [value for value in values if value is not None]
    return summary(known) if known and len(known) == len(values) else None


def _ratio(row: Row, reference: Row, seconds: Callable[[Cost], float]) -> float:
    ours, theirs = ([seconds(run.cost) for run in each.runs] for each in (row, reference))
    return median(ours) / median(theirs) if ours and theirs and median(theirs) > 0 else math.nan
