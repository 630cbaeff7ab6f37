"""Result files -> frozen dataclasses: what an experiment's folder holds, with nothing trained and nothing guessed.

The folder: `recipe.yaml` and, for each row and seed, `runs/<row>/seed-<k>/` with `result.json` (the run is done) or
`failure.json` (its loss became NaN or infinite), `metrics.csv` (one line per epoch) and `evidence.npz` (pictures).
"""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from heedful.errors import InputError
from heedful.report.labels import labels, notation, protocol

NEEDED = {"name", "variant", "model", "data"}  # of every row of a recipe
CURVES = ("train_loss", "train_error", "val_loss", "val_error")
ALWAYS = ("train_loss", "val_error")  # of any task


@dataclass(frozen=True)
class Metrics:
    """What a run reached: errors in percent, `best_epoch` counted from 1; no top-5 error below 6 classes.

    Where images have several classes each, `test_map` is the mean average precision in percent, the errors are 100 less
    such a number, `test_auc` is in [0, 1], and `test_classes_left_out` counts the classes that no test image shows. Of
    detection they are COCO's average precisions, over all overlaps and at those of 0.5 and 0.75, and there is no loss.
    """

    test_error: float
    val_error: float
    best_epoch: int
    test_loss: float | None = None
    val_loss: float | None = None
    test_top5_error: float | None = None
    test_map: float | None = None
    test_map50: float | None = None
    test_map75: float | None = None
    test_auc: float | None = None
    test_classes_left_out: int = 0


@dataclass(frozen=True)
class Cost:
    """What a run cost: `flops` and `inference_seconds` per image, `epoch_seconds` for the median training epoch."""

    parameters: int
    flops: int
    train_seconds: float
    epoch_seconds: float
    inference_seconds: float


@dataclass(frozen=True)
class Run:
    """One row trained with one seed: `data` and `environment` as `result.json` has them."""

    seed: int
    metrics: Metrics
    cost: Cost
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    folder: Path = field(repr=False)


@dataclass(frozen=True)
class Failure:
    """A run whose loss became NaN or infinite."""

    seed: int
    message: str


@dataclass(frozen=True)
class Expected:
    """The paper's error in percent, top-1 or 100 − mAP, and its deviation where the paper has one."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """One row of the recipe with what its seeds left: finished runs, failures, and seeds that are not done.

    `label` is the variant with its objective, as `se@icasc`, or the row's name where two rows of a group share these.
    """

    name: str
    label: str
    variant: str
    model: str
    data: str
    settings: Mapping[str, Any]
    expected: Expected | None
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]
    unfinished: tuple[int, ...]

    @property
    def notation(self) -> str:
        """The variant and the objective, see `heedful.report.labels`."""
        return notation(self.settings)


@dataclass(frozen=True)
class Group:
    """The rows of one model on one data set by one protocol, in the recipe's order.

    The first row is what the others are compared with.
    """

    model: str
    data: str
    protocol: str
    scale: float
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """The model, the data and the protocol, and how much a scaled experiment was shrunk."""
        words = [f"{self.model} on {self.data}", self.protocol, scaled(self.scale) if self.scale != 1 else ""]
        return ", ".join(word for word in words if word)

    @property
    def task(self) -> str:
        """What is trained; see `heedful.train.settings.Settings`."""
        return str(self.rows[0].settings.get("task", "classification"))

    @property
    def several_classes(self) -> bool:
        """Whether an image may show several classes."""
        return any(run.metrics.test_map is not None for row in self.rows for run in row.runs)

    @property
    def error_name(self) -> str:
        """What the error is: 100 − mAP where images have several classes each."""
        return "100 − mAP" if self.several_classes else "top-1 error"


@dataclass(frozen=True)
class Experiment:
    """Everything in an experiment's folder, rows in the recipe's order.

    `scale` below 1 means that the experiment was shrunk to that fraction of the epochs and images asked for.
    """

    title: str
    paper: str | None
    scale: float
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    command: str | None
    folder: Path

    @property
    def groups(self) -> tuple[Group, ...]:
        """The rows that share model, data and protocol, groups in the order of their first rows."""
        found: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.model, row.data, protocol(row.settings)), []).append(row)
        return tuple(Group(*key, self.scale, tuple(rows)) for key, rows in found.items())


def read(out: Path) -> Experiment:
    """Read an experiment's folder, finished or not.

    Args:
        out: the folder that `heedful compare` or `heedful run` was given as `--out`.

    Raises:
        InputError: if there is no such folder, it holds no recipe or no finished run, or a file in it is damaged.
    """
    if not out.is_dir():
        raise InputError(f"no folder {str(out)!r}: give the --out of a comparison, or make one with heedful compare")
    recipe = _recipe(out / "recipe.yaml")
    seeds = tuple(recipe["seeds"])
    rows = tuple(
        _row(out, spec, label, seeds) for spec, label in zip(recipe["rows"], labels(recipe["rows"]), strict=True)
    )
    if not any(row.runs for row in rows):
        raise InputError(f"{str(out)!r} holds no finished run: continue it with the command that began it, same --out")
    return Experiment(
        title=str(recipe.get("title") or "Comparison"),
        paper=recipe.get("paper"),
        scale=float(recipe.get("scale", 1.0)),
        seeds=seeds,
        rows=rows,
        command=recipe.get("command"),
        folder=out,
    )


def scaled(scale: float) -> str:
    """Return the words that label whatever a scaled experiment shows."""
    return f"scaled to {scale:g} of the epochs and images"


def curves(run: Run) -> dict[str, NDArray[np.float64]]:
    """Return a run's training curves by name (of `CURVES`), one number per epoch; none if `metrics.csv` is missing.

    Raises:
        InputError: if the file is damaged.
    """
    path = run.folder / "metrics.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        there = [name for name in CURVES if name in ALWAYS or name in lines[0]]
        return {name: np.array([float(line[name]) for line in lines]) for name in there}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{str(path.parent)!r} holds no recipe.yaml: it is not the --out of a comparison")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not recipe["seeds"] or not all(isinstance(seed, int) for seed in recipe["seeds"]):
            raise ValueError(f"seeds are {recipe['seeds']!r}")
        if not recipe["rows"] or not all(row.keys() >= NEEDED for row in recipe["rows"]):
            raise ValueError(f"no rows, or one without {', '.join(sorted(NEEDED))}")
        return dict(recipe)
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise _damaged(path, error) from error


def _row(out: Path, spec: dict[str, Any], label: str, seeds: tuple[int, ...]) -> Row:
    runs, failures, unfinished = [], [], []
    for seed in seeds:
        folder = out / "runs" / spec["name"] / f"seed-{seed}"
        if (folder / "result.json").is_file():
            runs.append(_run(folder, seed))
        elif (folder / "failure.json").is_file():
            failures.append(Failure(seed, str(_json(folder / "failure.json").get("message", "no message"))))
        else:
            unfinished.append(seed)
    settings = {key: value for key, value in spec.items() if key not in ("name", "expected")}
    return Row(
        name=spec["name"],
        label=label,
        variant=str(spec["variant"]),
        model=str(spec["model"]),
        data=str(spec["data"]),
        settings=settings,
        expected=_expected(spec.get("expected")),
        runs=tuple(runs),
        failures=tuple(failures),
        unfinished=tuple(unfinished),
    )


def _run(folder: Path, seed: int) -> Run:
    path = folder / "result.json"
    result = _json(path)
    try:
        # What a result has beyond these fields is none of the report's business.
        found = result["metrics"]
        metrics = Metrics(**{name: found[name] for name in Metrics.__dataclass_fields__ if name in found})
        cost = Cost(**{name: result["cost"][name] for name in Cost.__dataclass_fields__})
        if not math.isfinite(metrics.test_error):
            raise ValueError(f"test_error is {metrics.test_error}")
        return Run(seed, metrics, cost, result["data"], result["environment"], folder)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _expected(spec: Any) -> Expected | None:
    found = spec if isinstance(spec, dict) else {}
    value = found.get("top1_error", found.get("map"))
    if value is None:
        return None
    mean, deviation = (*value, None)[:2] if isinstance(value, list) else (value, None)
    error = float(mean) if "top1_error" in found else 100 - float(mean)
    return Expected(error, None if deviation is None else float(deviation))


def _damaged(path: Path, error: Exception) -> InputError:
    repair = "restore it" if path.name == "recipe.yaml" else "delete its folder and give the experiment's command again"
    reason = " ".join(str(error).split())
    return InputError(f"{str(path)!r} is damaged ({type(error).__name__}: {reason}): {repair}")
