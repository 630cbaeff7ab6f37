"""Evaluations as they are named for a whole experiment: `robustness`, or `segmentation=horses/` on other data."""

from collections.abc import Iterable, Mapping, Sequence

from heedful.data.dataset import DataSet
from heedful.errors import InputError
from heedful.evaluate.evaluations import name_of
from heedful.evaluate.protocols import PROTOCOLS, Asked, check, check_task

Wanted = tuple[str, Asked]
"""The name of a protocol, and what it is told."""


def parse(texts: Iterable[str]) -> list[Wanted]:
    """Return the evaluations, all but the data as they are by default.

    Args:
        texts: each `PROTOCOL`, on a run's test images, or `PROTOCOL=DATA`.

    Raises:
        InputError: if a protocol is unknown, its data are missing, or two evaluations would have one file.
    """
    wanted = []
    for text in texts:
        on, _, source = text.partition("=")
        asked = Asked(source=source or None)
        check(on, asked)
        wanted.append((on, asked))
    _require_different(wanted)
    return wanted


def check_tasks(wanted: Sequence[Wanted], tasks: Mapping[str, str]) -> None:
    """Raise an InputError if one of the evaluations cannot measure some of the rows.

    Args:
        wanted: the evaluations.
        tasks: name of a row -> task.
    """
    for on, _ in wanted:
        for name, task in tasks.items():
            check_task(on, task, f"row {name}")


def check_labels(wanted: Sequence[Wanted], dataset: DataSet) -> None:
    """Raise an InputError if images have several classes each, which one of the evaluations cannot take."""
    for on, _ in wanted:
        if dataset.multi_label and not PROTOCOLS[on].several_classes:
            able = ", ".join(name for name, protocol in PROTOCOLS.items() if protocol.several_classes)
            raise InputError(
                f"{dataset.name} has images with several classes each, which {on} cannot take: evaluate on {able} alone"
            )


def _require_different(wanted: Sequence[Wanted]) -> None:
    names = [on if asked.source is None else f"{on}={name_of(asked.source)}" for on, asked in wanted]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is wanted twice: give it once, and rename data of one name that are not the same")
