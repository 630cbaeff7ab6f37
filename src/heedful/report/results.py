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

NEEDED = {"name", "variant", "model", "data"}  # of every row of a recipe
CURVES = ("train_loss", "train_error", "val_loss", "val_error")


@dataclass(frozen=True)
class Metrics:
    """What a run reached: errors in percent, `best_epoch` counted from 1; no top-5 error below 6 classes."""

    test_error: float
    test_loss: float
    val_error: float
    val_loss: float
    best_epoch: int
    test_top5_error: float | None = None


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
    """The paper's top-1 error in percent, and its deviation where the paper has one."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """One row of the recipe with what its seeds left: finished runs, failures, and seeds that are not done.

    `label` is the variant, or the row's name where two rows of a group have the same variant.
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


@dataclass(frozen=True)
class Group:
    """The rows of one model on one data set, in the recipe's order; the first is what the others are compared with."""

    model: str
    data: str
    scale: float
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """The model and the data, and how much a scaled experiment was shrunk."""
        return f"{self.model} on {self.data}" + (f", {scaled(self.scale)}" if self.scale != 1 else "")


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
        """The rows that share model and data, groups in the order of their first rows."""
        keys = dict.fromkeys((row.model, row.data) for row in self.rows)
        return tuple(
            Group(model, data, self.scale, tuple(row for row in self.rows if (row.model, row.data) == (model, data)))
            for model, data in keys
        )


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
    labels = _labels(recipe["rows"])
    rows = tuple(_row(out, spec, label, seeds) for spec, label in zip(recipe["rows"], labels, strict=True))
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
    """Return a run's training curves by name (`CURVES`), one number per epoch; none if `metrics.csv` is missing.

    Raises:
        InputError: if the file is damaged.
    """
    path = run.folder / "metrics.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        return {name: np.array([float(line[name]) for line in lines]) for name in CURVES}
    except (KeyError, TypeError, ValueError) as error:
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


def _labels(specs: list[dict[str, Any]]) -> list[str]:
    keys = [(spec["model"], spec["data"], spec["variant"]) for spec in specs]
    return [
        str(spec["variant"] if keys.count(key) == 1 else spec["name"]) for spec, key in zip(specs, keys, strict=True)
    ]


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
        # A result may lack the top-5 error alone; what it has beyond these fields is none of the report's business.
        found = {"test_top5_error": None, **result["metrics"]}
        metrics = Metrics(**{name: found[name] for name in Metrics.__dataclass_fields__})
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
    value = spec.get("top1_error") if isinstance(spec, dict) else None
    if value is None:
        return None
    numbers = value if isinstance(value, list) else [value]
    return Expected(float(numbers[0]), float(numbers[1]) if len(numbers) > 1 and numbers[1] is not None else None)


def _damaged(path: Path, error: Exception) -> InputError:
    repair = "restore it" if path.name == "recipe.yaml" else "delete its folder and give the experiment's command again"
    reason = " ".join(str(error).split())
    return InputError(f"{str(path)!r} is damaged ({type(error).__name__}: {reason}): {repair}")
