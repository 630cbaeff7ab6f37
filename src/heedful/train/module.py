"""The training loop's contents: a network and its optimiser, its history and best epoch, all kept in the checkpoint."""

import copy
import math
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from heedful import gates
from heedful.errors import InputError
from heedful.train import ranks
from heedful.train.learner import Batch, Counter, Learner
from heedful.train.settings import Settings, factor_of

STEPS_BETWEEN_CHECKS = 50  # reading a loss back waits for the device; a diverged run may go on for this long


class DivergedError(InputError):
    """The loss became NaN or infinite."""


class Training(L.LightningModule):
    """Trains a network and remembers every epoch's numbers and the weights of the best one.

    The best epoch has the lowest validation error, and among those the lowest validation loss, if there is one. Of
    several processes (`heedful.train.ranks`) each has its share of a batch, and all have the same numbers of an epoch.

    Args:
        model: the network.
        learner: what it learns from, which holds the very same network.
        settings: of the run.
        seed: of the run: every epoch's random numbers follow from it and the epoch alone, so that a resumed run goes
            on exactly as the undisturbed one; what the network draws also from the number of the process.
    """

    def __init__(self, model: nn.Module, learner: Learner, settings: Settings, *, seed: int) -> None:
        super().__init__()
        self.model = model
        self.learner = learner
        self.settings = settings
        self.seed = seed
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self._val_losses: list[Tensor] = []  # of each batch the sum over its images, and their number
        self._val_error = learner.counter()
        self._train_error: Counter | None = None  # until a step gives answers
        self._losses: list[Tensor] = []
        self._parts: list[Mapping[str, Tensor]] = []
        self._num_checked = 0
        self._start = 0.0

    @property
    def num_finished(self) -> int:
        """Number of finished epochs, and so the index, from 0, of the one that is under way."""
        return len(self.history)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of the batch; of several processes, that whose gradients have the whole batch's as mean."""
        if batch_index == 0:
            self._begin_epoch()
        with ranks.batch_norms():
            step = self.learner.train(batch, self.num_finished)
        assert step.loss is not None
        part = ranks.part_of_batch(len(batch[1]), self.device)
        self._losses.append(part * step.loss.detach())
        self._parts.append({name: part * value for name, value in step.parts.items()})
        if step.answers is not None:
            self._train_error = self._train_error or self.learner.counter()
            self._train_error.add(step.answers, batch[1])
        if len(self._losses) - self._num_checked >= STEPS_BETWEEN_CHECKS:
            self._require_finite()
        return step.loss * (part * ranks.share().num)

    def on_validation_epoch_start(self) -> None:
        """Stop the clock of the training epoch: validation is not part of its time."""
        self._require_finite()
        self._seconds = time.perf_counter() - self._start

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count errors and loss."""
        step = self.learner.validate(batch)
        if step.loss is not None:
            self._val_losses.append(len(batch[1]) * torch.stack([step.loss.detach(), torch.ones_like(step.loss)]))
        self._val_error.add(step.answers, batch[1])

    def on_train_epoch_end(self) -> None:
        """Write down the epoch, and keep its weights if it is the best so far."""
        record = {
            "epoch": self.num_finished + 1,
            "learning_rate": self._epoch_learning_rate,
            "train_loss": _mean(self._losses),
            **self._errors(),
            "seconds": self._seconds,
            **{name: _mean([parts[name] for parts in self._parts]) for name in self._parts[0]},
        }
        if not math.isfinite(record.get("val_loss", 0)):
            raise self._diverged("validation loss", record["val_loss"], "after the last step")
        self.history.append(record)
        if not self.best or _score(record) < _score(self.best):
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
            kept = {key: record[key] for key in ("epoch", "val_error", "val_loss") if key in record}
            self.best = kept | {"weights": weights}

    def _errors(self) -> dict[str, float]:
        """Return the epoch's errors and validation loss: those that the task has."""
        found = {} if self._train_error is None else {"train_error": ranks.combined(self._train_error).percent()}
        if self._val_losses:
            total, count = ranks.summed(torch.stack(self._val_losses).double().sum(0)).tolist()
            found["val_loss"] = total / count
        return found | {"val_error": ranks.combined(self._val_error).percent()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put history and best weights beside what Lightning saves, in the same file, so that they never disagree."""
        checkpoint["history"] = self.history
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take history and best weights back."""
        self.history = copy.copy(checkpoint["history"])
        self.best = checkpoint["best"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser, with weight decay on kernels and matrices alone unless on all, and the schedule."""
        settings = self.settings
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
            {
                "params": [p for p in parameters if p.ndim <= 1],
                "weight_decay": settings.weight_decay if settings.decay_all else 0.0,
            },
        ]
        optimizer: torch.optim.Optimizer
        if settings.optimizer == "adam":
            optimizer = torch.optim.Adam(groups, lr=settings.learning_rate)
        else:
            optimizer = torch.optim.SGD(
                groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.nesterov
            )
        steps_per_epoch = max(1, int(self.trainer.estimated_stepping_batches) // settings.epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warm_up(settings, step) * rate_factor(settings, step / steps_per_epoch)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _begin_epoch(self) -> None:
        torch.manual_seed(epoch_seed(self.seed, self.num_finished) + ranks.share().index)
        gates.advance(self.model, self.num_finished / max(1, self.settings.epochs - 1))  # where α follows a schedule
        self._losses, self._val_losses, self._parts, self._num_checked = [], [], [], 0
        self._train_error, self._val_error = None, self.learner.counter()
        self._epoch_learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self._start = time.perf_counter()

    def _require_finite(self) -> None:
        unchecked = self._losses[self._num_checked :]
        if not unchecked:  # the last step of the epoch was one to check at
            return
        new = ranks.summed(torch.stack(unchecked))
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


def warm_up(settings: Settings, step: int) -> float:
    """Return what the learning rate is multiplied by at a step, from 0 on, of a training that begins gently."""
    return min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0


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


def _score(record: Mapping[str, float]) -> tuple[float, float]:
    return record["val_error"], record.get("val_loss", 0.0)


def _mean(steps: list[Tensor]) -> float:
    """Return the mean over the steps of what is the sum over the processes."""
    return ranks.summed(torch.stack(steps)).double().mean().item()


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of everything random in one epoch of a run."""
    return int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)))
