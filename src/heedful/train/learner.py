"""How a network learns from a batch: what each task gives the one Lightning module that trains them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Batch = Sequence[Any]
"""Two, inputs and targets: tensors, lists of them, or dicts, whose first dimension or length is the same."""


@dataclass(frozen=True)
class Step:
    """What came of one batch.

    Args:
        loss: the mean over the batch; None where a network in evaluation mode has none.
        answers: what its errors are counted from; None where a network that trains gives no answers.
        parts: parts of the loss to write down, unweighted and without a graph.
    """

    loss: Tensor | None
    answers: Any = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Counter(Protocol):
    """Counts the errors of an epoch, batch by batch; see `heedful.train.errors`."""

    def add(self, answers: Any, targets: Any) -> None:
        """Count a batch."""

    def include(self, other: Any) -> None:
        """Count what another one of the same kind counted, too."""

    def percent(self) -> float:
        """Return the error over all batches, in percent."""


@runtime_checkable
class Learner(Protocol):
    """Holds a network and says what it learns from."""

    def counter(self) -> Counter:
        """Return a new counter of errors."""

    def train(self, batch: Batch, epoch: int) -> Step:
        """Return the loss to minimise; `epoch` is the number of finished ones."""

    def validate(self, batch: Batch) -> Step:
        """Return answers, and the loss if there is one; the network is in evaluation mode."""
