"""The tasks by name: what a recipe's `task` can be."""

from heedful.train.classify import Classification
from heedful.train.clips import ClipClassification
from heedful.train.detect import Detection
from heedful.train.settings import Settings
from heedful.train.task import Task

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "clips": ClipClassification,
    "detection": Detection,
}


def check_run(settings: Settings, seed: int) -> None:
    """Raise an InputError if the data of a run cannot be used, or its network not be trained on them."""
    TASKS[settings.task](settings, seed).check()
