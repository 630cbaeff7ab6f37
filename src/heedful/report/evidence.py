"""A run's pictures as arrays: test images, their Grad-CAM maps, and the weights that its attention layers applied."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.errors import InputError
from heedful.report.results import Group, Run

NO_IMAGES: dict[str, NDArray[Any]] = {
    "images": np.zeros((0, 1, 1, 3), dtype=np.uint8),
    "labels": np.zeros(0, dtype=np.int64),
    "predictions": np.zeros(0, dtype=np.int64),
    "probabilities": np.zeros(0),
    "layer": np.array(""),
    "maps": np.zeros((0, 1, 1)),
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What `evidence.npz` holds, for M test images (the same for all variants of one group and seed) and G gates.

    Of clips, which are no images, M is 0.

    Args:
        images: uint8 (M, H, W, 3).
        labels: the true classes, (M,).
        predictions: the predicted classes, (M,).
        probabilities: of the true class, (M,), in [0, 1].
        layer: where the maps were taken.
        maps: Grad-CAM of the true class, (M, h, w), at least 0, not normalised.
        gates: names of the attention gates, in depth order.
        kinds: "channel" or "spatial", one per gate.
        histograms: counts of mask weights in 100 equal bins of [0, 1], (G, 100).
        spatial: for each spatial gate, its mask on the images, (M, h, w).
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    predictions: NDArray[Any]
    probabilities: NDArray[Any]
    layer: str
    maps: NDArray[Any]
    gates: tuple[str, ...]
    kinds: tuple[str, ...]
    histograms: NDArray[Any]
    spatial: Mapping[str, NDArray[Any]]


def evidence(run: Run) -> Evidence | None:
    """Return a run's pictures, or None if it kept none.

    Raises:
        InputError: if `evidence.npz` is damaged.
    """
    path = run.folder / "evidence.npz"
    if not path.is_file():
        return None
    try:
        # Opened here, since np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            gates = tuple(str(name) for name in arrays["gates"])
            kinds = tuple(str(kind) for kind in arrays["kinds"])
            shown = arrays if "images" in arrays else NO_IMAGES
            return Evidence(
                images=shown["images"],
                labels=shown["labels"],
                predictions=shown["predictions"],
                probabilities=shown["probabilities"],
                layer=str(shown["layer"]),
                maps=shown["maps"].astype(np.float32),
                gates=gates,
                kinds=kinds,
                histograms=arrays["histograms"],
                spatial={
                    gate: arrays[f"spatial/{gate}"].astype(np.float32)
                    for gate, kind in zip(gates, kinds, strict=True)
                    if kind == "spatial"
                },
            )
    except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({type(error).__name__}: {error}): delete it, and the report does without"
        ) from error


def pictures(group: Group) -> dict[str, dict[int, Evidence]]:
    """Return the pictures of a group's finished runs by label and seed; rows and seeds without any are left out."""
    found = {row.label: {run.seed: evidence(run) for run in row.runs} for row in group.rows}
    kept = {label: {seed: each for seed, each in seeds.items() if each is not None} for label, seeds in found.items()}
    return {label: seeds for label, seeds in kept.items() if seeds}


def of_one_seed(group_pictures: Mapping[str, Mapping[int, Evidence]]) -> tuple[int, dict[str, Evidence]]:
    """Return the first seed that most rows have pictures of, and those: its test images are the same in all of them.

    Args:
        group_pictures: by label and seed, not empty.
    """
    seeds = sorted({seed for by_seed in group_pictures.values() for seed in by_seed})
    best = max(seeds, key=lambda seed: sum(seed in by_seed for by_seed in group_pictures.values()))
    return best, {label: by_seed[best] for label, by_seed in group_pictures.items() if best in by_seed}
