"""Live progress in the terminal: which run of how many, epoch, loss, validation error, time left."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from heedful.train.run import Progress, Report, Run


@contextmanager
def shown(runs: Sequence["Run"], console: Console) -> Iterator["Report"]:
    """Show the progress of the runs while the context lasts, and a line for each one whose training ended.

    Args:
        runs: all that are to be executed.
        console: where; if it is no terminal, the lines alone are printed.

    Yields:
        What to call with each report of progress.
    """
    num_epochs = sum(run.row.settings.epochs for run in runs)
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        speed_estimate_period=120,
    )
    epochs_done: dict[Run, float] = {}
    tasks: dict[Run, tuple[TaskID, float]] = {}
    whole = bars.add_task(f"all {len(runs)} runs, epochs", total=num_epochs, numbers="")

    def report(progress: "Progress") -> None:
        run, epochs = progress.run, progress.run.row.settings.epochs
        name = f"{run.row.name}, seed {run.seed}"
        if run not in tasks:
            description = f"run {len(tasks) + 1} of {len(runs)}: {name}, epoch"
            tasks[run] = bars.add_task(description, total=epochs, numbers=""), time.monotonic()
        task, start = tasks[run]
        epochs_done[run] = progress.epoch
        bars.update(task, completed=int(progress.epoch), numbers=_numbers(progress))
        bars.update(whole, completed=sum(epochs_done.values()))
        if progress.epoch == epochs:
            bars.remove_task(task)
            place = f"{sum(done == r.row.settings.epochs for r, done in epochs_done.items())}/{len(runs)}"
            console.print(f"{place}  {name}: {_numbers(progress)}, {time.monotonic() - start:.0f} s", highlight=False)

    with bars:
        yield report


def _numbers(progress: "Progress") -> str:
    loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
    error = "" if progress.val_error is None else f"validation error {progress.val_error:.1f} %"
    return ", ".join(part for part in (loss, error) if part)
