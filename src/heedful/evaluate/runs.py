"""Trained runs, and the images that they are evaluated on: their own test images, or other data."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from heedful import data
from heedful.data.batches import Channels
from heedful.data.dataset import ImageArray, ImageFiles, Split
from heedful.data.folder import list_folder
from heedful.data.pool import Pool
from heedful.data.splits import Division, divide
from heedful.errors import InputError
from heedful.evaluate.object_data import Sample, objects_of, sample_of
from heedful.models.cards import Card, ModelCard
from heedful.models.saved import read_card

DIVISION = ("limit", "val_fraction", "train_per_class", "test_per_class")
"""Settings that decide which images are for testing."""


Read = Callable[..., Pool]
"""`heedful.data.read`, or one that remembers what it read."""


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A network with what it was trained on.

    Args:
        folder: of the run.
        card: of the network.
        seed: of the run; None for a network that was saved without one.
        settings: of the run; empty for such a network.
        fingerprint: of the run's data; None if not known.
    """

    folder: Path
    card: Card
    seed: int | None
    settings: Mapping[str, Any]
    fingerprint: str | None

    @property
    def name(self) -> str:
        """The last two parts of the folder, such as none/seed-0."""
        return "/".join(self.folder.resolve().parts[-2:])

    @property
    def image_card(self) -> ModelCard:
        """The card of a network that classifies images, as the protocols for these take no other."""
        assert isinstance(self.card, ModelCard)
        return self.card


def read_run(folder: Path) -> TrainedRun:
    """Return the run of a folder, or the network that was saved there without a run.

    Raises:
        InputError: if there is none, it is not finished, or a file is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}: give a run's folder, such as runs/digits/runs/none/seed-0")
    if (folder / "recipe.yaml").is_file():
        raise InputError(f"{folder} is an experiment: give one or more of its runs, such as {folder}/runs/none/seed-0")
    if not (folder / "run.yaml").is_file():
        return TrainedRun(folder, read_card(folder), None, {}, None)
    if not (folder / "result.json").is_file():
        raise InputError(f"the run in {folder} is not finished: continue it with the command that began it")
    try:
        run = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        fingerprint = result["data"].get("fingerprint")
        return TrainedRun(folder, read_card(folder), int(run["seed"]), dict(run["settings"]), fingerprint)
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"run.yaml or result.json in {folder} is damaged ({error!r}): train the run again") from error


def own_images(run: TrainedRun, read: Read = data.read) -> Sample:
    """Return the test images of a run: those that its error was measured on, with their objects if they have any.

    Args:
        run: the run.
        read: `heedful.data.read`, or one that remembers what it read.

    Raises:
        InputError: if the data are not there any more or have changed, or the run's data are not known.
    """
    if run.seed is None:
        raise InputError(f"{run.folder} does not say on which data the network was trained: give --data")
    source = run.settings["data"]
    root = data.folder_of(source)
    size = run.settings.get("image_size") or (run.image_card.image_size if root else None)
    pool = read(source, size, skip_bad_images=run.settings.get("skip_bad_images", False))
    require_unchanged(run, source, pool.fingerprint)
    division = Division(run.seed, **{key: run.settings[key] for key in DIVISION if key in run.settings})
    test = divide(pool.labels, pool.given, pool.classes, division)[2]
    split: Split
    if isinstance(pool.images, Tensor):
        split = ImageArray(pool.images[test], pool.labels[test])
    else:
        split = ImageFiles(tuple(pool.images[i] for i in test.tolist()), pool.labels[test], pool.image_size)
    if root is None:
        return Sample(pool.name, split)
    skipped = {root / name for name in pool.skipped}
    paths = [path for path in list_folder(root).paths if path not in skipped]
    return Sample(pool.name, split, tuple(paths[i] for i in test.tolist()), objects_of(root))


def require_unchanged(run: TrainedRun, source: str, fingerprint: str) -> None:
    """Raise an InputError unless the run was trained on data of this fingerprint."""
    if fingerprint != run.fingerprint:
        raise InputError(
            f"{source} has changed since the run in {run.folder} was trained, so that its test images are not known "
            "any more: restore it, or give other images by --data"
        )


def images_of(run: TrainedRun, source: str | None, read: Read = data.read) -> Sample:
    """Return the images of a source, labelled by the run's classes; None, or the run's own data: its test images.

    Args:
        run: the run.
        source: data, see `heedful.evaluate.object_data`.
        read: as for `own_images`.

    Raises:
        InputError: if the data cannot be used.
    """
    if source is None or is_own(run, source):
        return own_images(run, read)
    return sample_of(source, run.card.classes, run.image_card.image_size)


def is_own(run: TrainedRun, source: str) -> bool:
    """Return whether a source is what the run was trained on: then only its test images are new to it."""
    trained = run.settings.get("data")
    if trained is None or source == trained:
        return source == trained
    root, own = (Path(each).expanduser().resolve() for each in (source, trained))
    return own.exists() and own in (root, root / "images")


def statistics_of(card: ModelCard) -> tuple[Channels, Channels]:
    """Return mean and deviation of each channel, which images are normalised with.

    Raises:
        InputError: if the network does not take images of three channels.
    """
    if card.in_channels != 3:
        raise InputError(f"this network takes images of {card.in_channels} channels, but images are read as RGB, of 3")
    red, green, blue = card.mean
    red_deviation, green_deviation, blue_deviation = card.deviation
    return (red, green, blue), (red_deviation, green_deviation, blue_deviation)
