"""The training loop's contents: a classifier with SGD, its history, and its best epoch, all kept in the checkpoint."""

import copy
import math
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from heedful import gates
from heedful.errors import InputError
from heedful.losses import ICASC, classification_loss
from heedful.train.errors import RankingError, TopOneError
from heedful.train.objective import parts
from heedful.train.settings import Settings, factor_of

STEPS_BETWEEN_CHECKS = 50  # reading a loss back waits for the device; a diverged run may go on for this long


class DivergedError(InputError):
    """The loss became NaN or infinite."""


class Classifier(L.LightningModule):
    """Trains a network and remembers every epoch's numbers and the weights of the best one.

    The best epoch has the lowest validation error, and among those the lowest validation loss. The error is the part of
    images whose first guess is wrong, or 100 − mAP where images have several classes.

    Args:
        model: from images to logits.
        settings: of the run.
        seed: of the run: every epoch's random numbers follow from it and the epoch alone, so that a resumed run goes
            on exactly as the undisturbed one.
        attention: the losses on maps of this very model, or None where the classification loss is all.
        multi_label: whether labels are 0 and 1 for each class.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        *,
        seed: int,
        attention: ICASC | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.seed = seed
        # a function, not a module: the weights keep their names, and what comes after training runs the plain network
        self._logits = torch.compile(model.forward) if settings.compile else model.forward
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self._val_loss = MeanMetric(nan_strategy="disable")
        self._attention = attention
        self._counter = RankingError if multi_label else TopOneError
        self._train_error, self._val_error = self._counter(), self._counter()
        self._losses: list[Tensor] = []
        self._parts: list[dict[str, Tensor]] = []
        self._num_checked = 0
        self._start = 0.0

    @property
    def num_finished(self) -> int:
        """Number of finished epochs, and so the index, from 0, of the one that is under way."""
        return len(self.history)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the loss of the batch."""
        if batch_index == 0:
            self._begin_epoch()
        images, labels = batch
        loss, logits = self._loss(images, labels)
        self._losses.append(loss.detach())
        self._train_error.add(logits, labels)
        if len(self._losses) - self._num_checked >= STEPS_BETWEEN_CHECKS:
            self._require_finite()
        return loss

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self._attention is None:
            logits = self._logits(images)
            return classification_loss(logits, labels), logits
        losses = self._attention(images, labels)
        self._parts.append(parts(losses))
        return losses.total, losses.logits

    def on_validation_epoch_start(self) -> None:
        """Stop the clock of the training epoch: validation is not part of its time."""
        self._require_finite()
        self._seconds = time.perf_counter() - self._start

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Count errors and loss."""
        images, labels = batch
        logits = self._logits(images).float()
        self._val_loss.update(classification_loss(logits, labels), len(labels))
        self._val_error.add(logits, labels)

    def on_train_epoch_end(self) -> None:
        """Write down the epoch, and keep its weights if it is the best so far."""
        record = {
            "epoch": self.num_finished + 1,
            "learning_rate": self._epoch_learning_rate,
            "train_loss": torch.stack(self._losses).double().mean().item(),
            "train_error": self._train_error.percent(),
            "val_loss": self._val_loss.compute().item(),
            "val_error": self._val_error.percent(),
            "seconds": self._seconds,
            **_means(self._parts),
        }
        self._val_loss.reset()
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
        """Return SGD, with weight decay on kernels and matrices alone unless on all, and the schedule."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        decay = self.settings.weight_decay
        decay_of_rest = decay if self.settings.decay_all else 0.0
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": decay_of_rest},
        ]
        optimizer = torch.optim.SGD(
            groups, lr=self.settings.learning_rate, momentum=self.settings.momentum, nesterov=self.settings.nesterov
        )
        steps_per_epoch = max(1, int(self.trainer.estimated_stepping_batches) // self.settings.epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(self.settings, step / steps_per_epoch)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _begin_epoch(self) -> None:
        torch.manual_seed(epoch_seed(self.seed, self.num_finished))
        gates.advance(self.model, self.num_finished / max(1, self.settings.epochs - 1))  # where α follows a schedule
        if self._attention is not None:
            self._attention.epoch = self.num_finished
        self._losses, self._parts, self._num_checked = [], [], 0
        self._train_error, self._val_error = self._counter(), self._counter()
        self._epoch_learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self._start = time.perf_counter()

    def _require_finite(self) -> None:
        unchecked = self._losses[self._num_checked :]
        if not unchecked:  # the last step of the epoch was one to check at
            return
        new = torch.stack(unchecked)
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


def rate_factor(settings: Settings, epochs: float) -> float:
    """Return what the learning rate is multiplied by after so many epochs, with the part of the one under way."""
    finished = math.floor(epochs)
    if settings.schedule == "step10":
        return 0.1 ** sum(finished >= milestone for milestone in settings.milestones)
    if settings.schedule == "multiplied":
        return math.prod(factor_of(settings, place) for place in settings.milestones if finished >= place)
    if settings.schedule in ("cosine", "annealed"):
        done = epochs if settings.schedule == "annealed" else finished
        return 0.5 * (1 + math.cos(math.pi * done / settings.epochs))
    return 0.2 ** sum(10 * finished >= tenths * settings.epochs for tenths in (3, 6, 8))


def _means(steps: list[dict[str, Tensor]]) -> dict[str, float]:
    return {name: torch.stack([step[name] for step in steps]).double().mean().item() for name in (steps or [{}])[0]}


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of everything random in one epoch of a run."""
    return int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)))
