"""What the engine asks of a task: its data, network, loss and test, for one run; see `tasks.py` for those there are."""

from collections.abc import Iterable
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import nn

from heedful.data.share import WHOLE, Share
from heedful.models.cards import Card
from heedful.train.learner import Batch, Learner
from heedful.train.settings import Settings

Part = Literal["train", "val", "test"]


@runtime_checkable
class Task(Protocol):
    """A run's data, read and divided by its seed, and what is done with them.

    Args:
        settings: of the run.
        seed: of the run.
        num_workers: processes that read files.
    """

    def __init__(self, settings: Settings, seed: int, *, num_workers: int = 0) -> None: ...

    @staticmethod
    def check_names(settings: Settings) -> None:
        """Raise an InputError unless model and variant are known and fit together; reads no data."""

    @property
    def card(self) -> Card:
        """What is written beside the weights."""

    @property
    def described(self) -> dict[str, Any]:
        """What `result.json` says of the data; `train_images`, `val_images` and `test_images` among it."""

    def check(self) -> None:
        """Raise an InputError if the network cannot be trained on the data so."""

    def new_model(self) -> nn.Module:
        """Return the network, not yet trained."""

    def learner(self, model: nn.Module) -> Learner:
        """Return what trains this very network."""

    def batches(
        self, part: Part, device: torch.device, *, seed: int | None = None, share: Share = WHOLE
    ) -> Iterable[Batch]:
        """Return the batches of a split: shuffled and augmented by the seed, or in order; data in memory on the device.

        Batches that are read from files are not moved. Of several processes each has its share of every batch or, in
        order, of the split.
        """

    def test(self, model: nn.Module, device: torch.device) -> dict[str, float | None]:
        """Return the numbers of the test split, `error` among them."""

    def evidence(self, model: nn.Module, device: torch.device) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of `evidence.npz`, what the report draws; None if there is nothing to draw."""
