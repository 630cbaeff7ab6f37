"""Trained runs, evaluated; and the files that hold what was found of them."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from heedful import data, files
from heedful.data.boxes import read_boxes
from heedful.errors import InputError
from heedful.evaluate.curves import drawn
from heedful.evaluate.found import Found
from heedful.evaluate.on_boxes import ReadBoxes
from heedful.evaluate.protocols import PROTOCOLS, Asked, Subject, check, check_task
from heedful.evaluate.runs import Read, TrainedRun, is_own, read_run
from heedful.models.saved import load

NOTHING_MORE = Asked()
MOST_READ = 8
"""Data that are kept while several runs are evaluated: the domains of PACS, and more."""


def evaluate_runs(
    folders: Sequence[Path],
    *,
    on: str = "classification",
    asked: Asked = NOTHING_MORE,
    device: torch.device | str = "cpu",
    report: Callable[[TrainedRun], None] = lambda run: None,
    done: Callable[[str, Found], None] = lambda folder, found: None,
) -> dict[str, Found]:
    """Return what is found of each run, by its folder.

    `run` among the numbers is the run's name, or its folder where several of the runs have that name.

    Args:
        folders: of runs, one or more.
        on: name of a protocol, see `heedful.evaluate.protocols.PROTOCOLS`.
        asked: what the protocol is told.
        device: where to compute.
        report: called before each run.
        done: called after each run, with its folder and what was found of it.

    Raises:
        InputError: if an argument is wrong, or a run or the data cannot be used.
    """
    check(on, asked)
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        check_task(on, run.card.task, str(run.folder))
    names = [run.name for run in runs]
    # Runs mostly share their data. Of this call alone, so that a change of the files is seen by the next.
    read = functools.lru_cache(maxsize=MOST_READ)(data.read)
    boxes = functools.lru_cache(maxsize=1)(read_boxes)  # of which pixels stay in memory
    everything: dict[str, Found] = {}
    for run in runs:
        report(run)
        found = evaluate_run(run, on=on, asked=asked, device=device, read=read, read_boxes=boxes)
        folder = str(run.folder)
        name = run.name if names.count(run.name) == 1 else folder
        everything[folder] = replace(found, numbers={**found.numbers, "run": name})
        done(folder, everything[folder])
    return everything


def evaluate_run(
    run: TrainedRun,
    *,
    on: str,
    asked: Asked = NOTHING_MORE,
    device: torch.device | str = "cpu",
    read: Read = data.read,
    read_boxes: ReadBoxes = read_boxes,
) -> Found:
    """Return what is found of one run; arguments as for `evaluate_runs`, and readers as for `Subject`."""
    protocol = check(on, asked)
    check_task(on, run.card.task, str(run.folder))
    found = protocol.evaluate(Subject(load(run.folder).to(device), run, read, read_boxes), asked)
    return replace(found, numbers={"run": run.name, **found.numbers})


def write(everything: Mapping[str, Found], on: str, asked: Asked = NOTHING_MORE, out: Path | None = None) -> list[Path]:
    """Write what `evaluate_runs` found: all of it into one file, or of each run into its folder; return the files.

    A run's folder gets `PROTOCOL.json`, or `PROTOCOL-DATA.json` for other data than its own, and beside it pictures and
    curves.

    Args:
        everything: by folder.
        on: as for `evaluate_runs`.
        asked: likewise.
        out: the one file, or a folder for it, which gets no pictures; None: the runs' folders.

    Raises:
        InputError: if the file is there already, of other data that have the same name.
    """
    if out is not None:
        path = out / f"{on}.json" if out.is_dir() else out
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, _json({folder: _plain(found, on, asked) for folder, found in everything.items()}))
        return [path]
    return [path for folder, found in everything.items() for path in _write_run(Path(folder), found, on, asked)]


def is_evaluated(run: TrainedRun, on: str, asked: Asked) -> bool:
    """Return whether the run's folder holds what this evaluation finds, with the same options.

    Raises:
        InputError: if it holds what was found on other data that have the same name.
    """
    path = run.folder / f"{_stem(run, on, asked)}.json"
    there = _read(path)
    source = there.get("source")
    if source and asked.source and _is_another(source, asked.source):
        raise InputError(
            f"{path} holds what was found on {source}, of the same name as {asked.source}: rename one, or give --out"
        )
    return bool(there.get("options") == json.loads(json.dumps(_options(on, asked))))


def _read(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing if there is none, or it is damaged, and is to be written again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_run(folder: Path, found: Found, on: str, asked: Asked) -> list[Path]:
    run = read_run(folder)
    is_evaluated(run, on, asked)  # so that nothing of other data is lost
    stem = _stem(run, on, asked)
    pictures = {name: f"{name}{stem.removeprefix(on)}.png" for name in found.pictures}
    drawings = {pictures[name]: content for name, content in found.pictures.items()}
    if found.curves:
        drawings[f"{stem}-curves.png"] = drawn(found.curves)
    for file, content in drawings.items():
        files.write(folder / file, content)
    # The numbers last: who finds them finds their pictures.
    path = folder / f"{stem}.json"
    files.write(path, _json({**_plain(found, on, asked), "pictures": pictures}))
    return [path, *(folder / file for file in drawings)]


def _plain(found: Found, on: str, asked: Asked) -> dict[str, Any]:
    return {
        **found.numbers,
        "protocol": on,
        "source": asked.source,
        "options": _options(on, asked),
        "headlines": [asdict(headline) for headline in found.headlines],
        "curves": [asdict(curves) for curves in found.curves],
        "heedful": version("heedful"),
    }


def _options(on: str, asked: Asked) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in PROTOCOLS[on].options}


def _stem(run: TrainedRun, on: str, asked: Asked) -> str:
    """Return the name of the file, less its ending."""
    if asked.source is None or (not PROTOCOLS[on].needs and is_own(run, asked.source)):
        return on
    return f"{on}-{name_of(asked.source)}"


def name_of(source: str) -> str:
    """Return the name of data, fit for the name of a file: horses of `~/data/horses/`, photos of photos.npz."""
    path = Path(source).expanduser()
    name = path.resolve().name if path.is_dir() else path.stem
    return re.sub(r"[^\w.-]+", "_", name) or "data"


def _is_another(before: str, now: str) -> bool:
    """Return whether two sources are there, and are not the same."""
    paths = [Path(source).expanduser() for source in (before, now)]
    return all(path.exists() for path in paths) and paths[0].resolve() != paths[1].resolve()


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)
