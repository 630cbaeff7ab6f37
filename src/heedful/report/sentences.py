"""Comparisons -> plain words: one answer per group, one sentence per variant, and the notes that keep them honest.

A difference counts only when its t-test is below 5 % after Holm's correction for all comparisons of the group.
"""

import math
import re
from collections.abc import Sequence

from heedful.report.labels import thing
from heedful.report.numbers import listed, plural, points
from heedful.report.results import Group, scaled
from heedful.report.tables import Comparison
from heedful.statistics import SIGNIFICANCE, Paired

MOST_NAMED = 5  # files in a note; the page has them all
MAPS = {"icasc": "A_ch", "icasc-gradcam": "Grad-CAM", "icasc-gradcam++": "Grad-CAM++"}  # by the objective


def counts(comparison: Comparison) -> bool:
    """Return whether the difference counts: t-test below 5 % after Holm's correction."""
    return comparison.holm_p < SIGNIFICANCE


def sentence(comparison: Comparison, reference: Comparison) -> str:
    """Say in one sentence what is known about a row beside the group's first row."""
    label, first, pair = comparison.label, reference.label, comparison.paired
    if comparison.error is None:
        state = f"its runs failed (seeds {listed([str(seed) for seed in comparison.failed])})"
        return f"{label}: {state if comparison.failed and not comparison.unfinished else 'no run is finished'}"
    if comparison is reference:
        seeds = plural(comparison.error.num_seeds, "seed")
        return f"{label}, which the others are compared with: {comparison.error.mean:.2f} % error; {seeds}"
    if pair is None:
        return f"{label}: no seed is finished by both {label} and {first}"
    if pair.num_seeds == 1:
        return f"{label}: {_observed(pair, first)}, but 1 seed cannot tell a difference from chance"
    seeds = plural(pair.num_seeds, "seed")
    if counts(comparison):
        verb = "lowers" if pair.difference < 0 else "raises"
        return f"{label} {verb} the error by {_points(pair)} points{_bounds(pair)}; {seeds}"
    if pair.p_value < SIGNIFICANCE:
        survives = f"does not survive the correction for {comparison.num_comparisons} comparisons"
        return f"{label}: {_observed(pair, first)}{_bounds(pair)}, but this {survives}; {seeds}"
    return f"{label}: no evidence of a difference to {first}: {_seen_by(pair, first)}"


def answer(comparisons: Sequence[Comparison]) -> str:
    """Return the short answer for a group: which variants lower or raise the error, and which are not told apart."""
    reference, *others = comparisons
    if not others:
        return f"{reference.label} stands alone: there is nothing to compare it with."
    if reference.error is None:
        return f"{reference.label} has no finished run, so there is nothing to compare the others with yet."
    lower = [c.label for c in others if counts(c) and c.paired and c.paired.difference < 0]
    higher = [c.label for c in others if counts(c) and c.paired and c.paired.difference > 0]
    undecided = [c for c in others if c.error and not counts(c)]
    waiting = [c.label for c in others if not c.error]
    parts = []
    if lower:
        parts.append(f"{listed(lower)} {_verb(lower, 'lower')} the error of {reference.label}")
    if higher:
        parts.append(f"{listed(higher)} {_verb(higher, 'raise')} the error of {reference.label}")
    if undecided:
        parts.append(_undecided(undecided, reference.label, all_of_several=len(undecided) == len(others) > 1))
    if waiting:
        parts.append(f"{listed(waiting)}: no finished run")
    text = "; ".join(parts) + "."
    return "N" + text[1:] if text.startswith("no evidence") else text  # but a variant's name keeps its small letter


def notes(group: Group, comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know before believing the table: its floor, its gaps, its ties, its scale."""
    return [
        *_scaled(group),
        *_several_classes(group),
        *_objectives(group),
        *_gaps(comparisons),
        *_families(group),
        *_permutation_floor(comparisons),
        *_test_images(group),
        *_left_out(group),
        *_dropped(group),
        *_machines(group),
    ]


def _undecided(comparisons: Sequence[Comparison], first: str, *, all_of_several: bool) -> str:
    which = "any variant" if all_of_several else listed([c.label for c in comparisons])
    if all(c.paired and c.paired.num_seeds == 1 for c in comparisons):
        return f"1 seed cannot tell {which} from {first}"
    verb = "differs" if all_of_several or len(comparisons) == 1 else "differ"
    return f"no evidence that {which} {verb} from {first}"


def _verb(subjects: Sequence[str], stem: str) -> str:
    return stem + ("s" if len(subjects) == 1 else "")


def _observed(pair: Paired, first: str) -> str:
    if pair.difference == 0:
        return f"the same error as {first}"
    return f"{_points(pair)} points {'lower' if pair.difference < 0 else 'higher'} error than {first}"


def _scale(pair: Paired) -> float:
    sizes = [abs(size) for size in (pair.high - pair.low, pair.low, pair.high) if size and not math.isnan(size)]
    return min(sizes, default=abs(pair.difference))


def _points(pair: Paired) -> str:
    return points(pair.difference, _scale(pair))


def _bounds(pair: Paired) -> str:
    if pair.low == pair.high:
        return " in every seed"
    low, high = sorted((pair.low, pair.high), key=abs)
    return f" ({points(low, _scale(pair))} to {points(high, _scale(pair))})"


def _seen_by(pair: Paired, first: str) -> str:
    if math.isnan(pair.detectable):
        return f"{_observed(pair, first)} in each of {pair.num_seeds} seeds"
    return f"{pair.num_seeds} seeds can show differences above {points(pair.detectable, pair.detectable)} points"


def _scaled(group: Group) -> list[str]:
    if group.scale == 1:
        return []
    return [f"{scaled(group.scale).capitalize()}: these numbers stand for the scaled experiment, not beside a paper's."]


def _several_classes(group: Group) -> list[str]:
    if not group.several_classes:
        return []
    if group.task == "detection":
        return ["The error is 100 minus COCO's mean average precision (mAP, over overlaps of 0.5 to 0.95) in %."]
    left_out = max(run.metrics.test_classes_left_out for row in group.rows for run in row.runs)
    rest = f", without {left_out} of the classes, which no test image shows" if left_out else ""
    return [f"An image may show several classes: the error is 100 minus the mean average precision (mAP) in %{rest}."]


def _objectives(group: Group) -> list[str]:
    found = dict.fromkeys(str(row.settings.get("objective", "")) for row in group.rows)
    return [
        f"{name}: trained with the attention losses on maps by {maps} (Wang et al., ICCV 2019, equation 6)."
        for name, maps in MAPS.items()
        if name in found
    ]


def _gaps(comparisons: Sequence[Comparison]) -> list[str]:
    found = [
        f"{c.label}: the loss became NaN or infinite with {_seeds(c.failed)}, which its numbers leave out; "
        "a variant that can fail is worse than its other seeds show."
        for c in comparisons
        if c.failed
    ]
    found += [f"{c.label}: {_seeds(c.unfinished)} not finished yet." for c in comparisons if c.unfinished]
    partial = [f"{c.label} without {_seeds(c.unpaired)}" for c in comparisons if c.paired and c.unpaired]
    if partial:
        found.append(f"Differences use only the seeds that both sides finished: {listed(partial)}.")
    return found


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {listed([str(seed) for seed in seeds])}"


def _families(group: Group) -> list[str]:
    families: dict[tuple[str, str], list[str]] = {}
    for row in group.rows:
        layers = "+".join(map(_family, row.variant.split("+")))
        others = {name: value for name, value in row.settings.items() if name != "variant"}
        if row.variant != "none":
            families.setdefault((layers, repr(sorted(others.items()))), []).append(row.label)
    return [
        f"{listed(labels)} are the same family of functions (the sign of the last linear map turned): "
        "a difference between them can only be chance."
        for labels in families.values()
        if len(labels) > 1
    ]


def _family(part: str) -> str:
    """Return what is the same for parts of a variant that are the same functions but for the sign of a map."""
    layer, _, gate = part.partition("-")
    if re.fullmatch(r"ign3|ign1\(1(\.0*)?\)", gate):
        gate = "ign3"
    # The logits of the others come from a map with weights, whose sign can be turned.
    return f"{layer}-ign3" if gate in ("", "attend") and layer not in ("ge", "simam") else f"{layer}-{gate}"


def _permutation_floor(comparisons: Sequence[Comparison]) -> list[str]:
    sizes = sorted({c.paired.num_seeds for c in comparisons if c.paired and 1 < c.paired.num_seeds <= 16})
    return [
        f"With {size} seeds the permutation test cannot fall below {2 / 2**size:.3g}"
        + (", however large the difference." if 2 / 2**size > SIGNIFICANCE else ".")
        for size in sizes
    ]


def _test_images(group: Group) -> list[str]:
    sizes = [int(run.data["test_images"]) for row in group.rows for run in row.runs if run.data.get("test_images")]
    if not sizes or min(sizes) >= 1000 or group.several_classes:
        return []
    one = f"one of them more or less is {100 / min(sizes):.2f} points"
    return [f"The test split has {min(sizes)} {thing(group.rows[0].settings)}s: {one}."]


def _left_out(group: Group) -> list[str]:
    data = next((run.data for row in group.rows for run in row.runs), {})
    kinds = {"unreadable image": data.get("skipped_images", []), "other file": data.get("ignored_files", [])}
    return [
        f"{plural(len(names), kind)} left out: {', '.join(map(str, names[:MOST_NAMED]))}"
        + (", ..." if len(names) > MOST_NAMED else ".")
        for kind, names in kinds.items()
        if names
    ]


def _dropped(group: Group) -> list[str]:
    data = next((run.data for row in group.rows for run in row.runs), {})
    boxes = [f"{number} {kind}" for kind, number in data.get("dropped_boxes", {}).items()]
    return [f"Boxes that did not fit their images: {listed(boxes)}."] if boxes else []


def _machines(group: Group) -> list[str]:
    machines = {
        (run.environment.get("device"), run.environment.get("threads")) for row in group.rows for run in row.runs
    }
    if len(machines) < 2:
        return []
    return [f"The runs were made on {len(machines)} different devices: their times cannot be compared."]
