"""The callback that keeps a run's folder up to date after every epoch, and tells how far the run is."""

import csv
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from heedful import files
from heedful.train import ranks
from heedful.train.launched import is_first
from heedful.train.module import Training

Tell = Callable[[float, float | None, float | None], None]
"""Takes epochs done (with a fraction for the one under way), the latest loss, and the latest validation error."""


class Keep(Checkpoint):
    """Writes `last.ckpt` and `metrics.csv` after every epoch, each in one step; of several processes the first does.

    Args:
        folder: of the run.
        tell: called after every epoch and, within epochs, a few times a second.
        seconds_between: least time between two calls within an epoch: reading a loss back waits for the device.
    """

    def __init__(self, folder: Path, tell: Tell, *, seconds_between: float = 0.3) -> None:
        self.folder = folder
        self.tell = tell
        self.seconds_between = seconds_between
        self._last_told = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note where the training begins; Lightning has just set its own answer to signals."""
        assert isinstance(pl_module, Training)
        ranks.heed_sigterm()
        ranks.reached(pl_module.num_finished)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the loss of this step (of this process's share), unless something was told just before."""
        now = time.monotonic()
        is_last = batch_idx + 1 == trainer.num_training_batches  # the epoch's end has more to tell
        if is_last or now - self._last_told < self.seconds_between:
            return
        self._last_told = now
        assert isinstance(pl_module, Training)
        done = pl_module.num_finished + (batch_idx + 1) / trainer.num_training_batches
        self.tell(done, outputs["loss"].item(), pl_module.history[-1]["val_error"] if pl_module.history else None)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; a `Checkpoint` is called after the module has written down its epoch."""
        assert isinstance(pl_module, Training)
        # Not by Lightning's own checkpoint callback: with two files, best and last, a kill can fall between them.
        partial = self.folder / "last.ckpt.partial"
        trainer.save_checkpoint(partial)  # all processes must ask for it; the first writes
        if is_first():
            os.replace(partial, self.folder / "last.ckpt")
            files.write(self.folder / "metrics.csv", _as_csv(pl_module.history))
        ranks.reached(pl_module.num_finished)
        record = pl_module.history[-1]
        self.tell(pl_module.num_finished, record["train_loss"], record["val_error"])


def _as_csv(history: list[dict[str, float]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return table.getvalue()
