"""Trained runs, evaluated on their own test images or on other data."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from heedful import data, files
from heedful.data.batches import Channels
from heedful.data.dataset import ImageArray, ImageFiles, Split
from heedful.data.folder import list_folder
from heedful.data.pool import Pool
from heedful.data.splits import Division, divide
from heedful.errors import InputError, unknown
from heedful.evaluate.classification import classification
from heedful.evaluate.maps import Numbers, batches_of, evaluate_maps
from heedful.evaluate.object_data import Sample, objects_of, sample_of
from heedful.models.saved import ModelCard, load, read_card

DIVISION = ("limit", "val_fraction", "train_per_class", "test_per_class")
"""Settings that decide which images are for testing."""

PROTOCOLS = ("classification", "maps")
FILE = "{}.json"


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A network with what it was trained on.

    Args:
        folder: of the run.
        card: of the network.
        seed: of the run; None for a network that was saved without one.
        settings: of the run; empty for such a network.
        fingerprint: of the run's data; None if not known.
    """

    folder: Path
    card: ModelCard
    seed: int | None
    settings: Mapping[str, Any]
    fingerprint: str | None

    @property
    def name(self) -> str:
        """The last two parts of the folder, such as none/seed-0."""
        return "/".join(self.folder.resolve().parts[-2:])


def read_run(folder: Path) -> TrainedRun:
    """Return the run of a folder, or the network that was saved there without a run.

    Raises:
        InputError: if there is none, it is not finished, or a file is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}: give a run's folder, such as runs/digits/runs/none/seed-0")
    if (folder / "recipe.yaml").is_file():
        raise InputError(f"{folder} is an experiment: give one or more of its runs, such as {folder}/runs/none/seed-0")
    if not (folder / "run.yaml").is_file():
        return TrainedRun(folder, read_card(folder), None, {}, None)
    if not (folder / "result.json").is_file():
        raise InputError(f"the run in {folder} is not finished: continue it with the command that began it")
    try:
        run = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        fingerprint = result["data"].get("fingerprint")
        return TrainedRun(folder, read_card(folder), int(run["seed"]), dict(run["settings"]), fingerprint)
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"run.yaml or result.json in {folder} is damaged ({error!r}): train the run again") from error


def own_images(run: TrainedRun, read: Callable[..., Pool] = data.read) -> Sample:
    """Return the test images of a run: those that its error was measured on, with their objects if they have any.

    Args:
        run: the run.
        read: `heedful.data.read`, or one that remembers what it read.

    Raises:
        InputError: if the data are not there any more or have changed, or the run's data are not known.
    """
    if run.seed is None:
        raise InputError(f"{run.folder} does not say on which data the network was trained: give --data")
    source = run.settings["data"]
    root = Path(source).expanduser() if Path(source).expanduser().is_dir() else None
    size = run.settings.get("image_size") or (run.card.image_size if root else None)
    pool = read(source, size, skip_bad_images=run.settings.get("skip_bad_images", False))
    if pool.fingerprint != run.fingerprint:
        raise InputError(
            f"{source} has changed since the run in {run.folder} was trained, so that its test images are not known "
            "any more: restore it, or give other images by --data"
        )
    division = Division(run.seed, **{key: run.settings[key] for key in DIVISION if key in run.settings})
    test = divide(pool.labels, pool.given, pool.classes, division)[2]
    split: Split
    if isinstance(pool.images, Tensor):
        split = ImageArray(pool.images[test], pool.labels[test])
    else:
        split = ImageFiles(tuple(pool.images[i] for i in test.tolist()), pool.labels[test], pool.image_size)
    if root is None:
        return Sample(pool.name, split)
    skipped = {root / name for name in pool.skipped}
    paths = [path for path in list_folder(root).paths if path not in skipped]
    return Sample(pool.name, split, tuple(paths[i] for i in test.tolist()), objects_of(root))


def evaluate_runs(
    folders: Sequence[Path],
    *,
    on: str = "classification",
    source: str | None = None,
    layer: str | None = None,
    method: str = "grad-cam",
    limit: int | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[TrainedRun], None] = lambda run: None,
    done: Callable[[str, Numbers], None] = lambda folder, numbers: None,
) -> dict[str, Numbers]:
    """Return what is found of each run, by its folder.

    `run` in what is found is the run's name, or its folder where several of the runs have that name.

    Args:
        folders: of runs, one or more.
        on: `classification`: error and loss, on one crop of each image; or `maps`: see
            `heedful.evaluate.maps.evaluate_maps`.
        source: data, see `heedful.evaluate.object_data`; None, or a run's own data: the run's test images.
        layer: of the maps; None: the last that has 4 x 4 places.
        method: of the maps.
        limit: at most so many images, evenly spaced.
        device: where to compute.
        report: called before each run.
        done: called after each run, with its folder and what was found of it.

    Raises:
        InputError: if an argument is wrong, or a run or the data cannot be used.
    """
    if on not in PROTOCOLS:
        raise unknown("protocol", on, PROTOCOLS)
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    # Runs mostly share their data. Of this call alone, so that a change of the files is seen by the next.
    read = functools.lru_cache(maxsize=1)(data.read)
    found: dict[str, Numbers] = {}
    for run in runs:
        report(run)
        if source is None or _is_own(run, source):
            sample = own_images(run, read)
        else:
            sample = sample_of(source, run.card.classes, run.card.image_size)
        sample = sample.limited(limit)
        model = load(run.folder).to(device)
        numbers = (
            _classified(model, run.card, sample)
            if on == "classification"
            else evaluate_maps(model, sample, *_statistics(run.card), layer=layer, method=method)
        )
        folder = str(run.folder)
        found[folder] = {"run": run.name if names.count(run.name) == 1 else folder, **numbers}
        done(folder, found[folder])
    return found


def write(found: Mapping[str, Numbers], on: str, out: Path | None = None) -> list[Path]:
    """Write what `evaluate_runs` found: all of it into one file, or of each run into its folder; return the files.

    A run's folder gets `classification.json`, or `maps.json` and its KS chart, `ks.png`.

    Args:
        found: by folder.
        on: as for `evaluate_runs`.
        out: the one file, or a folder for it; None: the runs' folders.
    """
    if out is not None:
        path = out / FILE.format(on) if out.is_dir() else out
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, _json(found))
        return [path]
    paths = []
    for folder, numbers in found.items():
        paths.append(Path(folder) / FILE.format(on))
        files.write(paths[-1], _json(numbers))
        if on == "maps":
            paths.append(Path(folder) / "ks.png")
            files.write(paths[-1], _chart(numbers))
    return paths


def _is_own(run: TrainedRun, source: str) -> bool:
    """Return whether a source is what the run was trained on: then only its test images are new to it."""
    trained = run.settings.get("data")
    if trained is None or source == trained:
        return source == trained
    root, own = (Path(each).expanduser().resolve() for each in (source, trained))
    return own.exists() and own in (root, root / "images")


def _classified(model: nn.Module, card: ModelCard, sample: Sample) -> Numbers:
    mean, deviation = _statistics(card)
    batches = batches_of(sample.split, mean, deviation, next(model.parameters()).device)
    return {"data": sample.name, "num_images": len(sample.split), **classification(model, batches)}


def _statistics(card: ModelCard) -> tuple[Channels, Channels]:
    if card.in_channels != 3:
        raise InputError(f"this network takes images of {card.in_channels} channels, but images are read as RGB, of 3")
    red, green, blue = card.mean
    red_deviation, green_deviation, blue_deviation = card.deviation
    return (red, green, blue), (red_deviation, green_deviation, blue_deviation)


def _chart(numbers: Numbers) -> bytes:
    import io

    import numpy as np

    from heedful.evaluate.separation import Separation, ks_chart

    curves = {name: np.array(values) for name, values in numbers["chart"].items()}
    content = io.BytesIO()
    ks_chart(
        {numbers["run"]: Separation(numbers["ks"], numbers["ks_at"], numbers["ks_true_is_higher"], **curves)}
    ).savefig(content, dpi=150)
    return content.getvalue()


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)
