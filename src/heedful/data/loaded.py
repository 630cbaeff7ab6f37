"""What a DataLoader's workers cannot read is said as without workers: by the error's own message alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader

from heedful.errors import InputError

Batch = TypeVar("Batch")


@dataclass(frozen=True, eq=False)
class Loaded(Generic[Batch]):
    """The batches of a DataLoader.

    Args:
        loader: whose workers, if it has any, may raise an InputError.
    """

    loader: DataLoader[Any]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self.loader
        except InputError as error:
            # torch puts a worker's whole traceback into the message; it ends with the error as Python prints it.
            raise InputError(str(error).rpartition("InputError: ")[2].rstrip()) from error
