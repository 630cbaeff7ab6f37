"""One run: a recipe's row with one seed, trained, tested and written into a folder of its own.

The folder holds `run.yaml` (what decides the run), `metrics.csv` (every epoch), `last.ckpt` (to resume),
`model.safetensors` and `model.json` (to use), `evidence.npz` (what the report draws) and `result.json`, which is
written last: a run with it is done.
"""

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
import torch
import yaml
from torch import Tensor, nn

from heedful import data, files
from heedful.evaluate.classification import classification
from heedful.evaluate.cost import inference_seconds, num_flops, num_parameters
from heedful.models.saved import save
from heedful.train.data_module import ImageData
from heedful.train.environment import environment
from heedful.train.keep import Keep
from heedful.train.module import Classifier, DivergedError
from heedful.train.objective import attention_losses
from heedful.train.pictured import write_evidence
from heedful.train.prepare import card, load_data, new_model
from heedful.train.recipe import Recipe, Row
from heedful.train.settings import Settings
from heedful.train.ten_crops import TenCrops

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
    return (out / run.folder / "result.json").exists()


def execute(run: Run, out: Path, *, machine: Machine, report: Report) -> str | None:
    """Train, test and write down a run, from its last checkpoint if there is one.

    Args:
        run: what to do.
        out: the experiment's folder.
        machine: where.
        report: called after every epoch, and a few times a second.

    Returns:
        None, or why the loss diverged; that is then written to `failure.json` too.
    """
    folder = out / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failure.json").unlink(missing_ok=True)
    try:
        _train_and_test(run, folder, machine, report)
    except DivergedError as error:
        checkpoint = folder / "last.ckpt"
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no epoch was finished before"
        message = f"{run.row.name}, seed {run.seed}: {error}; {kept}"
        files.write(folder / "failure.json", _json(run.identity() | {"message": message}))
        return message
    return None


def _train_and_test(run: Run, folder: Path, machine: Machine, report: Report) -> None:
    settings = run.row.settings
    dataset = load_data(settings, run.seed)
    torch.manual_seed(run.seed)
    model = new_model(settings, dataset, pretrained=settings.pretrained)
    sample = torch.zeros(1, 3, dataset.image_size, dataset.image_size)
    module = Classifier(
        model,
        settings,
        seed=run.seed,
        attention=attention_losses(model, settings, sample),
        multi_label=dataset.multi_label,
    )
    image_data = ImageData(dataset, settings, seed=run.seed, num_workers=machine.num_workers)
    keep = Keep(folder, lambda epoch, loss, error: report(Progress(run, epoch, loss, error)))
    trainer = trainer_for(settings, machine, keep)
    device = trainer.strategy.root_device
    where = environment(device)
    files.write(folder / "run.yaml", yaml.safe_dump(run.identity() | {"environment": where}, sort_keys=False))
    fit(trainer, module, image_data, folder / "last.ckpt")

    model.load_state_dict(module.best["weights"])
    model.to(device)
    save(model, card(settings, dataset), folder)
    test = image_data.test_batches(device)
    write_evidence(model, test, dataset, folder / "evidence.npz")
    tested = _tested(model, settings, image_data, device)
    metrics = {f"test_{name}": value for name, value in tested.items()}
    metrics |= {"val_error": module.best["val_error"], "val_loss": module.best["val_loss"]}
    result = run.identity() | {
        "metrics": metrics | {"best_epoch": module.best["epoch"]},
        "cost": _cost(model, module, test),
        "data": _described(dataset) | {"augmentation": image_data.augment},
        "environment": where,
    }
    files.write(folder / "result.json", _json(result))


def _tested(
    model: nn.Module, settings: Settings, image_data: ImageData, device: torch.device
) -> dict[str, float | None]:
    if settings.test_crops == 1:
        return classification(model, image_data.test_batches(device))
    return classification(TenCrops(model), image_data.crop_batches(device))


def trainer_for(settings: Settings, machine: Machine, keep: Keep) -> L.Trainer:
    """Return the trainer of a run: one device, no output of its own, the callback that keeps the folder."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return L.Trainer(
        accelerator=ACCELERATORS[machine.device],
        devices=1,
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


def fit(trainer: L.Trainer, module: Classifier, image_data: ImageData, checkpoint: Path) -> None:
    """Train to the last epoch, from the checkpoint if it exists."""
    with warnings.catch_warnings():
        # Lightning's advice on workers: images in memory need none, and for files the user chose the number.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning 2.6, torch 2.15
        resume = str(checkpoint) if checkpoint.exists() else None
        try:
            trainer.fit(module, image_data, ckpt_path=resume, weights_only=True)
        except SystemExit:
            # On Ctrl-C Lightning ends the process, deaf to another one; here the caller decides what ends.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None


def _cost(model: nn.Module, module: Classifier, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    images, _ = next(iter(batches))
    seconds = [record["seconds"] for record in module.history]
    return {
        "parameters": num_parameters(model),
        "flops": num_flops(model, images[:1]),
        "train_seconds": sum(seconds),
        "epoch_seconds": statistics.median(seconds),
        "inference_seconds": inference_seconds(model, images),
    }


def _described(dataset: data.DataSet) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "classes": dataset.classes,
        "image_size": dataset.image_size,
        **{f"{part}_images": len(getattr(dataset, part)) for part in ("train", "val", "test")},
        "skipped_images": dataset.skipped,
        "ignored_files": dataset.ignored,
        "unlabelled_images": dataset.num_unlabelled,
        "fingerprint": dataset.fingerprint,
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)
