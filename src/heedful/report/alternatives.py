"""What each figure shows, in words: the alternative texts of the page, for whoever cannot see it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from heedful.report.evidence import Evidence
from heedful.report.numbers import listed, mean_and_deviation, plural
from heedful.report.pictures import class_name, short_gate
from heedful.report.results import Group, curves
from heedful.report.tables import Comparison


def of_seeds(comparisons: Sequence[Comparison]) -> str:
    """Describe the dot plot."""
    means = [f"{c.label} {mean_and_deviation(c.error)}" for c in comparisons]
    name = comparisons[0].error_name.replace("top-1 error", "Top-1 test error")
    return f"{name} in percent of every seed, mean and deviation: {listed(means)}."


def of_curves(group: Group) -> str:
    """Describe the training curves by where they end."""
    ends = []
    for row in group.rows:
        lines = [curves(run).get("val_error", np.empty(0)) for run in row.runs]
        last = [float(line[-1]) for line in lines if len(line)]
        if last:
            ends.append(f"{row.label} {sum(last) / len(last):.1f} %")
    return (
        f"Loss and error per epoch on training and validation images. Mean validation error at the end: {listed(ends)}."
    )


def of_attention(pictures: Mapping[str, Evidence], classes: Sequence[str], num_images: int) -> str:
    """Describe the Grad-CAM grid: the images' classes and who was wrong about which."""
    first = next(iter(pictures.values()))
    names = [class_name(classes, int(label)) for label in first.labels[:num_images]]
    wrong = [
        f"{label} takes {class_name(classes, int(truth))} for {class_name(classes, int(guess))}"
        for label, each in pictures.items()
        for truth, guess in zip(each.labels[:num_images], each.predictions[:num_images], strict=True)
        if truth != guess
    ]
    verdict = f"Wrong predictions: {listed(wrong)}." if wrong else "All predictions are right."
    images = f"{plural(len(names), 'test image')} ({listed(names)})"
    return f"{images}, each with the Grad-CAM maps of {listed(list(pictures))}. {verdict}"


def of_weights(histograms: Mapping[str, Mapping[str, NDArray[np.int64]]]) -> str:
    """Describe the ridges by the mean weights at the first and the last gate."""
    centres = (np.arange(100) + 0.5) / 100
    ends = []
    for label, gates in histograms.items():
        means = [float(centres @ counts / max(counts.sum(), 1)) for counts in gates.values()]
        ends.append(f"{label} from {means[0]:.2f} at the first gate to {means[-1]:.2f} at the last")
    return f"Distribution of channel weights at every depth. Mean weight: {listed(ends)}."


def of_masks(label: str, evidence: Evidence) -> str:
    """Describe the spatial masks by their ranges."""
    ranges = [f"{short_gate(gate)} {mask.min():.3f} to {mask.max():.3f}" for gate, mask in evidence.spatial.items()]
    return f"Spatial masks of {label} on test images. Range of weights: {listed(ranges)}."
