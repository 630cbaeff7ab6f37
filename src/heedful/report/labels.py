"""What rows are called: the variant with its objective, and what sets rows of one model and data apart."""

from collections.abc import Mapping, Sequence
from typing import Any

CROSS_ENTROPY = "cross-entropy"  # the objective that goes without saying


def notation(settings: Mapping[str, Any]) -> str:
    """Return the variant, and after an @ the objective, if it is not cross-entropy."""
    objective = settings.get("objective", CROSS_ENTROPY)  # older experiments name none
    return str(settings["variant"]) + ("" if objective == CROSS_ENTROPY else f"@{objective}")


def protocol(settings: Mapping[str, Any]) -> str:
    """Return in words what makes rows another problem: training images a class, test crops, the benchmark of clips."""
    per_class, num_crops = settings.get("train_per_class"), settings.get("test_crops", 1)
    words = [f"{per_class} training images a class"] if per_class else []
    words += [f"{num_crops} test crops"] if num_crops > 1 else []
    return ", ".join([*words, settings["benchmark"]] if settings.get("benchmark") else words)


def thing(settings: Mapping[str, Any]) -> str:
    """Return in a word what the data are made of."""
    return "clip" if settings.get("task") == "clips" else "image"


def labels(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each row's notation, or its name where two rows of one model, data and protocol share the notation."""
    keys = [(spec["model"], spec["data"], protocol(spec), notation(spec)) for spec in specs]
    return [key[3] if keys.count(key) == 1 else str(spec["name"]) for spec, key in zip(specs, keys, strict=True)]
