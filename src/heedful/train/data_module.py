"""Gives Lightning the batches of a task; an epoch's order and augmentation follow from seed and epoch alone."""

from collections.abc import Iterable

import lightning as L

from heedful.train import ranks
from heedful.train.learner import Batch
from heedful.train.module import Training, epoch_seed
from heedful.train.task import Task


class TaskData(L.LightningDataModule):
    """Batches of a task's splits; of several processes, this one's share of them.

    Args:
        task: what is trained.
        seed: of the run.
    """

    def __init__(self, task: Task, *, seed: int) -> None:
        super().__init__()
        self.task = task
        self.seed = seed

    def train_dataloader(self) -> Iterable[Batch]:
        """Return the batches of the epoch that begins; the trainer asks again before each."""
        assert self.trainer is not None
        module = self.trainer.lightning_module
        assert isinstance(module, Training)
        seed = epoch_seed(self.seed, module.num_finished)
        return self.task.batches("train", self.trainer.strategy.root_device, seed=seed, share=ranks.share())

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the validation batches, in order."""
        assert self.trainer is not None
        return self.task.batches("val", self.trainer.strategy.root_device, share=ranks.share())
