"""An experiment: a recipe's runs in one folder, carried on where they stopped, and the report on them."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from heedful import data as images
from heedful import files
from heedful.errors import InputError
from heedful.evaluate.cost import chosen_device
from heedful.evaluate.evaluations import MOST_READ, evaluate_run, is_evaluated, write
from heedful.evaluate.runs import read_run
from heedful.evaluate.wanted import Wanted, check_labels, check_tasks, parse
from heedful.report import Experiment
from heedful.report import write as write_report
from heedful.train import ranks
from heedful.train.launched import is_first, num_processes
from heedful.train.prepare import load_data
from heedful.train.queue import execute_all
from heedful.train.recipe import Recipe, compare_recipe, from_plain, to_plain
from heedful.train.run import DONE, Machine, Report, Run, is_done, runs_of
from heedful.train.tasks import check_run

THIS_MACHINE = Machine()


class IncompleteError(InputError):
    """Some runs diverged or could not be evaluated; what the others say is in the report.

    Args:
        message: which, and why.
        experiment: what the report is made from; None if no run is finished.
    """

    def __init__(self, message: str, experiment: Experiment | None) -> None:
        super().__init__(message)
        self.experiment = experiment


def compare(
    variants: Iterable[str],
    *,
    data: str = "digits",
    model: str = "cifar_resnet8",
    seeds: int = 3,
    epochs: int = 20,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
    evaluate: Iterable[str] = (),
) -> Experiment:
    """Train every variant on the same seeds and say honestly whether the attention helped.

    Calling it again with the same arguments carries on where it stopped; finished runs are not repeated.

    Args:
        variants: in the notation, e.g. `["none", "se", "se-ign3", "se@icasc"]`, the last trained with attention losses;
            the others are compared to the first.
        data: `digits`, `cifar10`, `cifar100`, `svhn`, a folder of class folders or an .npz file.
        model: a `cifar_*` network or any name of timm's.
        seeds: number of seeds, 0, 1, ...
        epochs: passes over the training images.
        out: folder for the runs and the report.
        settings: further fields of `heedful.train.settings.Settings`, e.g. `{"learning_rate": 0.05}`.
        jobs: number of runs at a time, as processes; more than 1 needs `if __name__ == "__main__":` in a script.
        evaluate: what to measure of every finished run, e.g. `["robustness", "segmentation=horses/"]`, on the run's
            test images or on the data after =; see `heedful.evaluate.protocols.PROTOCOLS`.

    Returns:
        What was written to `out`: see `heedful.report`.

    Raises:
        InputError: for anything that cannot be used, before the first step; or, at the end, if a run diverged or
            could not be evaluated (`IncompleteError`).
    """
    chosen = {**(settings or {}), "data": data, "model": model, "epochs": epochs}
    recipe = compare_recipe(variants, chosen, num_seeds=seeds, first_seed=0)
    return carry_out(recipe, Path(out), jobs=jobs, evaluate=evaluate)


def carry_out(
    recipe: Recipe,
    out: Path,
    *,
    jobs: int = 1,
    machine: Machine = THIS_MACHINE,
    only: Iterable[Run] | None = None,
    report: Report = lambda progress: None,
    evaluate: Iterable[str] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> Experiment:
    """Execute a recipe's unfinished runs in the folder `out`, write the report there, and return what it is made from.

    The processes that torchrun starts train each run together; the first of them does all the rest, calls what is to be
    called, and gives the result to the others.

    Args:
        recipe: what to run.
        out: an experiment's folder, or a new one. It may hold the same recipe, or one that this recipe extends by
            more seeds or by rows at the end.
        jobs: number of runs at a time.
        machine: where.
        only: the runs to execute now; None: all.
        report: called with progress.
        evaluate: as for `compare`; what was found earlier is not measured again.
        tell: called before each evaluation of a run, with what is done.

    Raises:
        InputError: before the first step, if the folder or the data cannot be used; at the end, if a run diverged or
            could not be evaluated.
    """
    wanted = parse(evaluate)
    chosen = runs_of(recipe) if only is None else list(only)
    _check_jobs(jobs, chosen)
    report = report if is_first() else lambda progress: None

    def finished(messages: list[str]) -> Experiment:
        messages = messages + _evaluate(chosen, out, wanted, machine, tell)
        experiment = write_report(out) if any(is_done(run, out) for run in runs_of(recipe)) else None
        if messages or experiment is None:
            raise IncompleteError("\n".join(messages) or f"no run in {out} is finished", experiment)
        return experiment

    with ranks.together(machine.device), ExitStack() as held:
        pending = ranks.by_the_first(lambda: _checked(recipe, out, chosen, wanted))
        ranks.by_the_first(lambda: held.enter_context(opened(recipe, out)))
        messages = execute_all([r for r in pending if not r.sources], out, machine=machine, jobs=jobs, report=report)
        ready, waiting = ranks.by_the_first(lambda: _with_sources(pending, out))
        messages += execute_all(ready, out, machine=machine, jobs=jobs, report=report) + waiting
        return ranks.by_the_first(lambda: finished(messages))


def _check_jobs(jobs: int, runs: Sequence[Run]) -> None:
    """Raise an InputError unless so many runs can be computed at a time, and by as many processes as there are."""
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, but it must be at least 1")
    if num_processes() == 1:
        return
    if jobs > 1:
        raise InputError(
            f"jobs is {jobs}, but the {num_processes()} processes of torchrun train one run at a time, together: leave "
            "--jobs out, or start without torchrun"
        )
    for run in runs:
        if run.row.settings.compile:
            raise InputError(
                f"compile is true in row {run.row.name}, but batch norms of {num_processes()} processes are not "
                "compiled: leave it out, or start without torchrun"
            )


def _checked(recipe: Recipe, out: Path, chosen: Sequence[Run], wanted: Sequence[Wanted]) -> list[Run]:
    """Return the runs that are not done yet.

    Raises:
        InputError: if the folder or the data of one cannot be used.
    """
    check_tasks(wanted, {run.row.name: run.row.settings.task for run in chosen})
    pending = [run for run in chosen if not is_done(run, out)]
    _check_sources(pending, out)
    _reconciled(recipe, out)  # before the images, which may take long to read, and are read before anything is written
    for settings, seed in {run.row.settings: run.seed for run in pending}.items():
        check_run(settings, seed)
        if wanted and settings.task == "classification":
            check_labels(wanted, load_data(settings, seed))
    return pending


def _check_sources(pending: Sequence[Run], out: Path) -> None:
    """Raise an InputError if a run starts from others that are neither done nor to be done now."""
    folders = {run.folder for run in pending}
    for run in pending:
        missing = [source for source in run.sources if source not in folders and not (out / source / DONE).exists()]
        if missing:
            raise InputError(
                f"row {run.row.name} starts from {missing[0].parent.name}, which is not trained yet with seed "
                f"{run.seed}: name that row, too"
            )


def _with_sources(pending: Sequence[Run], out: Path) -> tuple[list[Run], list[str]]:
    """Return the runs that start from others, all of which are done, and what to say of those that cannot start."""
    starting = [run for run in pending if run.sources]
    ready = [run for run in starting if all((out / source / DONE).exists() for source in run.sources)]
    waiting = [run for run in starting if run not in ready]
    return ready, [f"{run.row.name}, seed {run.seed}: a run that it starts from failed" for run in waiting]


def _evaluate(
    runs: Sequence[Run], out: Path, wanted: Sequence[Wanted], machine: Machine, tell: Callable[[str], None]
) -> list[str]:
    """Evaluate the finished runs that are not evaluated yet, write what is found, and return what went wrong."""
    read = functools.lru_cache(maxsize=MOST_READ)(images.read)  # runs mostly share their data
    messages = []
    for run, (on, asked) in ((run, each) for each in wanted for run in runs if is_done(run, out)):
        what = f"{on} of {run.row.name}, seed {run.seed}"
        try:
            trained = read_run(out / run.folder)
            if not is_evaluated(trained, on, asked):
                tell(f"evaluating: {what}")
                found = evaluate_run(trained, on=on, asked=asked, device=chosen_device(machine.device), read=read)
                write({str(trained.folder): found}, on, asked)
        except (InputError, OSError, RuntimeError) as error:  # RuntimeError: out of memory, too
            messages.append(f"{what}: {error}")
    return messages


@contextmanager
def opened(recipe: Recipe, out: Path) -> Iterator[None]:
    """Hold the experiment's folder for this process, with the recipe in it.

    Raises:
        InputError: if the folder cannot be written, is held by another process, or holds something else.
    """
    recorded = _reconciled(recipe, out)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"{out}: another process works on this experiment; wait, or choose another --out") from None
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): choose another folder (--out)") from None
    try:
        files.write(out / "recipe.yaml", yaml.safe_dump(to_plain(recorded), sort_keys=False, allow_unicode=True))
        yield
    finally:
        lock.release()


def _reconciled(recipe: Recipe, out: Path) -> Recipe:
    """Return the longer of this recipe and the one in the folder, if one carries the other on."""
    path = out / "recipe.yaml"
    if not path.exists():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out} holds other files, and no experiment: choose a new folder (--out)")
        return recipe
    there = from_plain(yaml.safe_load(path.read_text(encoding="utf-8")))
    if difference := _difference(there, recipe):
        raise InputError(
            f"{out} holds another experiment ({difference}): give the command that began it to carry it on "
            "(more seeds, or more variants at the end, extend it), or choose another folder (--out)"
        )
    longer = max(there, recipe, key=lambda r: len(r.rows))
    return replace(longer, seeds=max(there.seeds, recipe.seeds, key=len))


def _difference(there: Recipe, asked: Recipe) -> str | None:
    """Return in words what keeps one recipe from carrying the other on, or None."""
    if there.scale != asked.scale:
        return f"scale {there.scale:g} there, {asked.scale:g} asked for"
    if any(a != b for a, b in zip(there.seeds, asked.seeds, strict=False)):
        return f"seeds {list(there.seeds)} there, {list(asked.seeds)} asked for"
    for old, new in zip(there.rows, asked.rows, strict=False):
        if old.name != new.name:
            return f"row {old.name} there, {new.name} in its place asked for"
        before, after = asdict(old.settings), asdict(new.settings)
        for key, value in before.items():
            if value != after[key]:
                return f"{key} {value} there, {after[key]} asked for"
    return None
