"""One run: a recipe's row with one seed, trained, tested and written into a folder of its own.

The folder holds `run.yaml` (what decides the run), `metrics.csv` (every epoch), `last.ckpt` (to resume),
`model.safetensors` and `model.json` (to use), `evidence.npz` (what the report draws) and `result.json`, which is
written last: a run with it is done.
"""

import io
import json
import logging
import signal
import statistics
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import yaml
from torch import nn

from heedful import files
from heedful.data.batches import moved
from heedful.evaluate.cost import first, inference_seconds, num_flops, num_parameters
from heedful.models.saved import save
from heedful.train import ranks
from heedful.train.clips import ClipClassification
from heedful.train.data_module import TaskData
from heedful.train.environment import environment
from heedful.train.keep import Keep
from heedful.train.launched import is_first, num_here, num_processes
from heedful.train.learner import Batch
from heedful.train.module import DivergedError, Training
from heedful.train.recipe import Recipe, Row
from heedful.train.settings import Settings
from heedful.train.task import Task
from heedful.train.tasks import TASKS
from heedful.variant import parse

DONE = "result.json"
"""Written last: a run whose folder has it is done."""

ACCELERATORS = {"auto": "auto", "cpu": "cpu", "cuda": "gpu", "mps": "mps"}
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


@dataclass(frozen=True)
class Run:
    """One row of a recipe with one seed; `scale` below 1 says that the recipe was shrunk."""

    row: Row
    seed: int
    scale: float = 1.0

    @property
    def folder(self) -> Path:
        """The run's folder, relative to the experiment's."""
        return Path("runs") / self.row.name / f"seed-{self.seed}"

    @property
    def sources(self) -> tuple[Path, ...]:
        """The folders of the runs that this one starts from."""
        return tuple(Path("runs") / name / f"seed-{self.seed}" for name in self.row.settings.start_from)

    def identity(self) -> dict[str, Any]:
        """Return what decides the run, as plain values."""
        settings = asdict(self.row.settings)
        return {"row": self.row.name, "seed": self.seed, "scale": self.scale, "settings": settings}


@dataclass(frozen=True)
class Machine:
    """Where runs are computed; it changes no setting.

    Args:
        device: a key of ACCELERATORS; auto takes a GPU where there is one.
        num_workers: processes that read image files; images held in memory need none.
    """

    device: str = "auto"
    num_workers: int = 2


@dataclass(frozen=True)
class Progress:
    """How far a run is: `epoch` counts finished ones and the part of the one under way."""

    run: Run
    epoch: float
    loss: float | None = None
    val_error: float | None = None


Report = Callable[[Progress], None]


def runs_of(recipe: Recipe) -> list[Run]:
    """Return every run of the recipe: all rows with the first seed, then all with the next.

    So the rows that are compared share the machine's quiet and busy times.
    """
    return [Run(row, seed, recipe.scale) for seed in recipe.seeds for row in recipe.rows]


def is_done(run: Run, out: Path) -> bool:
    """Return whether the run was finished in this call or an earlier one."""
    return (out / run.folder / DONE).exists()


def execute(run: Run, out: Path, *, machine: Machine, report: Report) -> str | None:
    """Train, test and write down a run, from its last checkpoint if there is one.

    Several processes (`heedful.train.ranks`) train it together; the first writes everything, and alone tests.

    Args:
        run: what to do.
        out: the experiment's folder.
        machine: where.
        report: called after every epoch, and a few times a second.

    Returns:
        None, or why the loss diverged; that is then written to `failure.json` too.
    """
    folder = out / run.folder
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failure.json").unlink(missing_ok=True)
    try:
        _train_and_test(run, out, machine, report)
    except DivergedError as error:
        checkpoint = folder / "last.ckpt"
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no epoch was finished before"
        message = f"{run.row.name}, seed {run.seed}: {error}; {kept}"
        if is_first():
            files.write(folder / "failure.json", _json(run.identity() | {"message": message}))
        return message
    return None


def _train_and_test(run: Run, out: Path, machine: Machine, report: Report) -> None:
    settings, folder = run.row.settings, out / run.folder
    task = TASKS[settings.task](settings, run.seed, num_workers=machine.num_workers)
    torch.manual_seed(run.seed)
    model = task.new_model()
    if settings.start_from:
        assert isinstance(task, ClipClassification)  # no other task has the setting
        task.start_from(model, [out / source for source in run.sources])
    module = Training(model, task.learner(model), settings, seed=run.seed)
    keep = Keep(folder, lambda epoch, loss, error: report(Progress(run, epoch, loss, error)))
    trainer = trainer_for(settings, machine, keep)
    device = trainer.strategy.root_device
    where = environment(device) | ({"processes": num_processes()} if num_processes() > 1 else {})
    if is_first():
        files.write(folder / "run.yaml", yaml.safe_dump(run.identity() | {"environment": where}, sort_keys=False))
    fit(trainer, module, TaskData(task, seed=run.seed), folder / "last.ckpt")
    # By one process, as it would be without the others: the test is short, and so the same to the bit.
    ranks.by_the_first(lambda: _test(run, folder, task, module, where, device))


def _test(
    run: Run, folder: Path, task: Task, module: Training, where: dict[str, str | int | None], device: torch.device
) -> None:
    """Write the best epoch's network, what it does on the test images, and the result."""
    model = module.model
    model.load_state_dict(module.best["weights"])
    model.to(device)
    save(model, task.card, folder)
    drawn = task.evidence(model, device)
    if drawn is not None:
        content = io.BytesIO()
        np.savez_compressed(content, **drawn)  # type: ignore[arg-type]  # numpy's stub takes any name for allow_pickle
        files.write(folder / "evidence.npz", content.getvalue())
    chosen = {name: module.best[name] for name in ("val_error", "val_loss") if name in module.best}
    tested = {f"test_{name}": value for name, value in task.test(model, device).items()}
    result = run.identity() | {
        "metrics": tested | chosen | {"best_epoch": module.best["epoch"]},
        "cost": _cost(model, module, task.batches("test", device), device),
        "data": task.described,
        "environment": where,
    }
    files.write(folder / DONE, _json(result))


def trainer_for(settings: Settings, machine: Machine, keep: Keep) -> L.Trainer:
    """Return the trainer of a run: one device a process, no output of its own, the callback that keeps the folder."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Under a softmax the loss of `pay2-pc` does not depend on what computes the global vector; DDP must look for it.
    together = "ddp_find_unused_parameters_true" if parse(settings.variant).pay is not None else "ddp"
    return L.Trainer(
        accelerator=ACCELERATORS[machine.device],
        strategy=together if num_processes() > 1 else "auto",
        devices=num_here(),
        num_nodes=num_processes() // num_here(),
        use_distributed_sampler=False,  # see heedful.data.share
        precision=PRECISIONS[settings.precision],
        max_epochs=settings.epochs,
        callbacks=[keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        benchmark=True,
    )


def fit(trainer: L.Trainer, module: Training, task_data: TaskData, checkpoint: Path) -> None:
    """Train to the last epoch, from the checkpoint if it exists."""
    with warnings.catch_warnings():
        # Lightning's advice on workers: images in memory need none, and for files the user chose the number.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning 2.6, torch 2.15
        # Of DDP, on 1 × 1 kernels channels last, whose strides have two names: it copies them.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        resume = str(checkpoint) if checkpoint.exists() else None
        try:
            trainer.fit(module, task_data, ckpt_path=resume, weights_only=True)
        except SystemExit:
            # On Ctrl-C Lightning ends the process, deaf to another one; here the caller decides what ends.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None


def _cost(model: nn.Module, module: Training, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
    images, _ = moved(next(iter(batches)), device)
    seconds = [record["seconds"] for record in module.history]
    return {
        "parameters": num_parameters(model),
        "flops": num_flops(model, first(images)),
        "train_seconds": sum(seconds),
        "epoch_seconds": statistics.median(seconds),
        "inference_seconds": inference_seconds(model, images),
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)
