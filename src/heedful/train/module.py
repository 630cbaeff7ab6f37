"""The training loop's contents: a classifier with SGD, its history, and its best epoch, all kept in the checkpoint."""

import copy
import math
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from heedful import gates
from heedful.errors import InputError
from heedful.train.recipe import Settings

STEPS_BETWEEN_CHECKS = 50  # reading a loss back waits for the device; a diverged run may go on for this long


class DivergedError(InputError):
    """The loss became NaN or infinite."""


class Classifier(L.LightningModule):
    """Trains a network on cross-entropy and remembers every epoch's numbers and the weights of the best one.

    The best epoch has the lowest validation error, and among those the lowest validation loss.

    Args:
        model: from images to logits.
        settings: of the run.
        num_classes: number of outputs.
        seed: of the run: every epoch's random numbers follow from it and the epoch alone, so that a resumed run goes
            on exactly as the undisturbed one.
    """

    def __init__(self, model: nn.Module, settings: Settings, *, num_classes: int, seed: int) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.seed = seed
        # a function, not a module: the weights keep their names, and what comes after training runs the plain network
        self._logits = torch.compile(model.forward) if settings.compile else model.forward
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self._val_loss = MeanMetric(nan_strategy="disable")
        self._val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self._losses: list[Tensor] = []
        self._num_wrong: list[Tensor] = []
        self._num_images = 0
        self._num_checked = 0
        self._start = 0.0

    @property
    def num_finished(self) -> int:
        """Number of finished epochs, and so the index, from 0, of the one that is under way."""
        return len(self.history)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        if batch_index == 0:
            self._begin_epoch()
        images, labels = batch
        logits = self._logits(images)
        loss = F.cross_entropy(logits, labels)
        self._losses.append(loss.detach())
        self._num_wrong.append((logits.detach().argmax(1) != labels).sum())
        self._num_images += len(labels)
        if len(self._losses) - self._num_checked >= STEPS_BETWEEN_CHECKS:
            self._require_finite()
        return loss

    def on_validation_epoch_start(self) -> None:
        """Stop the clock of the training epoch: validation is not part of its time."""
        self._require_finite()
        self._seconds = time.perf_counter() - self._start

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Count errors and loss."""
        images, labels = batch
        logits = self._logits(images).float()
        self._val_loss.update(F.cross_entropy(logits, labels), len(labels))
        self._val_accuracy.update(logits, labels)

    def on_train_epoch_end(self) -> None:
        """Write down the epoch, and keep its weights if it is the best so far."""
        record = {
            "epoch": self.num_finished + 1,
            "learning_rate": self._epoch_learning_rate,
            "train_loss": torch.stack(self._losses).double().mean().item(),
            "train_error": 100 * torch.stack(self._num_wrong).sum().item() / self._num_images,
            "val_loss": self._val_loss.compute().item(),
            "val_error": 100 * (1 - self._val_accuracy.compute().double().item()),
            "seconds": self._seconds,
        }
        self._val_loss.reset()
        self._val_accuracy.reset()
        if not math.isfinite(record["val_loss"]):
            raise self._diverged("validation loss", record["val_loss"], "after the last step")
        self.history.append(record)
        score = (record["val_error"], record["val_loss"])
        if not self.best or score < (self.best["val_error"], self.best["val_loss"]):
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
            self.best = {key: record[key] for key in ("epoch", "val_error", "val_loss")} | {"weights": weights}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put history and best weights beside what Lightning saves, in the same file, so that they never disagree."""
        checkpoint["history"] = self.history
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take history and best weights back."""
        self.history = copy.copy(checkpoint["history"])
        self.best = checkpoint["best"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD with weight decay on kernels and matrices alone, and the schedule."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(
            groups, lr=self.settings.learning_rate, momentum=self.settings.momentum, nesterov=self.settings.nesterov
        )
        steps_per_epoch = max(1, int(self.trainer.estimated_stepping_batches) // self.settings.epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(self.settings.schedule, step // steps_per_epoch, self.settings.epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _begin_epoch(self) -> None:
        torch.manual_seed(epoch_seed(self.seed, self.num_finished))
        gates.advance(self.model, self.num_finished / max(1, self.settings.epochs - 1))  # where α follows a schedule
        self._losses, self._num_wrong, self._num_images, self._num_checked = [], [], 0, 0
        self._epoch_learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self._start = time.perf_counter()

    def _require_finite(self) -> None:
        new = torch.stack(self._losses[self._num_checked :])
        if not new.isfinite().all():
            bad = int((~new.isfinite()).int().argmax())
            step = self._num_checked + bad + 1
            raise self._diverged("loss", new[bad].item(), f"at step {step}")
        self._num_checked = len(self._losses)

    def _diverged(self, what: str, value: float, when: str) -> DivergedError:
        return DivergedError(
            f"the {what} became {value} {when} of epoch {self.num_finished + 1} with learning rate "
            f"{self.settings.learning_rate:g}: lower it (--learning-rate), or check the images"
        )


def rate_factor(schedule: str, epoch: int, epochs: int) -> float:
    """Return what the learning rate is multiplied by in an epoch, counted from 0."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    return 0.2 ** sum(10 * epoch >= tenths * epochs for tenths in (3, 6, 8))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of everything random in one epoch of a run."""
    return int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)))
