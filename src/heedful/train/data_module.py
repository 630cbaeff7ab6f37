"""Gives Lightning the batches of a data set; an epoch's order and augmentation follow from seed and epoch alone."""

from collections.abc import Iterable

import lightning as L
import torch
from torch import Tensor

from heedful.data import DataSet, ImageArray, Split, batches
from heedful.data.batches import Moved
from heedful.train.module import Classifier, epoch_seed
from heedful.train.settings import Settings
from heedful.train.ten_crops import crop_batches

Batch = tuple[Tensor, Tensor]


class ImageData(L.LightningDataModule):
    """Batches of a data set's splits; a split in memory is moved to the training device whole.

    Args:
        dataset: what to train on.
        settings: of the run: batch size and augmentation.
        seed: of the run.
        num_workers: processes that read image files; a split in memory needs none.
    """

    def __init__(self, dataset: DataSet, settings: Settings, *, seed: int, num_workers: int = 0) -> None:
        super().__init__()
        self.dataset = dataset
        self.augment = dataset.augmentation if settings.augment is None else settings.augment
        self.batch_size = settings.batch_size
        self.seed = seed
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """Move the splits in memory to the training device."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.train_split = on_device(self.dataset.train, device)
        self.val_split = on_device(self.dataset.val, device)

    def train_dataloader(self) -> Iterable[Batch]:
        """Return the batches of the epoch that begins; the trainer asks again before each."""
        assert self.trainer is not None
        module = self.trainer.lightning_module
        assert isinstance(module, Classifier)
        seed = epoch_seed(self.seed, module.num_finished)
        return self._batches(self.train_split, augment=self.augment, seed=seed)

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the validation batches, in order."""
        return self._batches(self.val_split)

    def test_batches(self, device: torch.device) -> Iterable[Batch]:
        """Return the test batches, in order, on the device."""
        loader = self._batches(on_device(self.dataset.test, device))
        return loader if isinstance(self.dataset.test, ImageArray) else Moved(loader, device)

    def crop_batches(self, device: torch.device) -> Iterable[Batch]:
        """Return the ten crops of each test image, (N, 10, 3, H, W), in order, on the device."""
        return Moved(crop_batches(self.dataset, self.batch_size, num_workers=self.num_workers), device)

    def _batches(self, split: Split, *, augment: tuple[str, ...] = (), seed: int | None = None) -> Iterable[Batch]:
        return batches(split, self.dataset, self.batch_size, augment=augment, seed=seed, num_workers=self.num_workers)


def on_device(split: Split, device: torch.device) -> Split:
    """Return a split in memory on the device; files stay as they are."""
    return split.to(device) if isinstance(split, ImageArray) else split
