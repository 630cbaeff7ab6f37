"""Tables for the terminal of what `heedful evaluate` found."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from heedful.evaluate.found import Curves, Found, Numbers

LOCALISATION = {
    "PxAP": "pxap", "PxAP per image": "pxap_per_image", "MaxBoxAccV2": "max_box_acc", "pointing": "pointing_0px",
    "pointing 15 px": "pointing_15px", "energy": "energy", "Jaccard": "jaccard",
}  # fmt: skip

HEADINGS = {key: heading for heading, key in LOCALISATION.items()}


def as_rich(everything: Mapping[str, Found], on: str) -> list[Table]:
    """Return the tables for the terminal, a row for each run, and those of the curves, a row for each line."""
    found = {folder: each.numbers for folder, each in everything.items()}
    if on not in ("classification", "maps"):
        by_class = [_by_class(found)] if on == "detection" else []
        return [_headlines(on, everything), *by_class, *_curves(everything)]
    if on == "classification":
        return [_classified(everything)]
    columns = {
        "layer": "layer", "images": "num_images", "KS": "ks", "at": "ks_at", "overlap": "overlap",
        "insertion": "insertion", "deletion": "deletion", "zero maps": "zero_maps",
    }  # fmt: skip
    tables = [_table("Maps of the true class", found, columns), _randomised(found)]
    if any(numbers["objects"] for numbers in found.values()):
        tables.append(_located(found))
    return tables


def notes(everything: Mapping[str, Found]) -> list[str]:
    """Return in lines what was left out and why, and what else a reader of the tables must know."""
    found = {folder: each.numbers for folder, each in everything.items()}
    wrong_way = "the KS distance is the wrong way round: the true class has the lower probabilities"
    lines = [
        f"{numbers['run']}: {wrong_way}" for numbers in found.values() if not numbers.get("ks_true_is_higher", True)
    ]
    lines += [
        f"{numbers['run']}: no {HEADINGS.get(what, what)}, since {why}"
        for numbers in found.values()
        for what, why in numbers.get("left_out", {}).items()
    ]
    counts = {
        "zero_maps": "images whose map is 0 everywhere, which points nowhere and has no overlap",
        "boxes_without_area": "boxes without area, left out, in all the data",
    }
    lines += [
        f"{numbers['run']}: {what}: {numbers[key]}"
        for numbers in found.values()
        for key, what in counts.items()
        if numbers.get(key)
    ]
    return lines


def _classified(everything: Mapping[str, Found]) -> Table:
    headlines = {folder: {h.name: h.value for h in found.headlines} for folder, found in everything.items()}
    names = dict.fromkeys(("error", *(name for own in headlines.values() for name in own)))
    counted = "clips" if all("without" in found.numbers for found in everything.values()) else "images"
    columns = {counted: "num_images", **{f"{name} %": name for name in names}, "loss": "loss"}
    rows = {folder: {**found.numbers, **headlines[folder]} for folder, found in everything.items()}
    return _table("Classification", rows, columns)


def _headlines(on: str, everything: Mapping[str, Found]) -> Table:
    columns = list(dict.fromkeys((h.name, h.unit) for found in everything.values() for h in found.headlines))
    table = _blank(on.capitalize(), ["run", "data", "images", *(f"{name} {unit}".rstrip() for name, unit in columns)])
    for found in everything.values():
        values = {(h.name, h.unit): h.value for h in found.headlines}
        cells = [_cell(values.get(column)) for column in columns]
        table.add_row(escape(found.numbers["run"]), escape(found.numbers["data"]),
                      _cell(found.numbers.get("num_images")), *cells)  # fmt: skip
    return table


def _by_class(found: Mapping[str, Numbers]) -> Table:
    """Return average precision by class, a row for each run that has the class."""
    classes = dict.fromkeys(name for numbers in found.values() for name in numbers["classes"])
    table = _blank("By class", ["class", "run", "boxes", "mAP %", "mAP@0.5 %"])
    for name in classes:
        for numbers in found.values():
            if name in numbers["classes"]:
                own = numbers["classes"][name]
                cells = [_cell(own[key]) for key in ("num_boxes", "ap", "ap50")]
                table.add_row(escape(name), escape(numbers["run"]), *cells)
    return table


def _curves(everything: Mapping[str, Found]) -> list[Table]:
    """Return a table for each kind of curve: lines one below the other, a column for each place on the axis."""
    kinds: dict[tuple[str, tuple[float, ...]], list[tuple[str, Curves]]] = {}
    for found in everything.values():
        for curves in found.curves:
            kinds.setdefault((curves.title, curves.x), []).append((found.numbers["run"], curves))
    return [_of_curves(title, x, runs) for (title, x), runs in kinds.items()]


def _of_curves(title: str, x: tuple[float, ...], runs: Sequence[tuple[str, Curves]]) -> Table:
    first = runs[0][1]
    table = _blank(title, ["run", f"{first.y_name} by {first.x_name}", *(f"{place:g}" for place in x)])
    for run, curves in runs:
        for name, values in curves.lines.items():
            table.add_row(escape(run), escape(name), *(f"{value:.2f}" for value in values))
    return table


def _table(title: str, found: Mapping[str, Numbers], columns: Mapping[str, str]) -> Table:
    table = _blank(title, ["run", *columns])
    for numbers in found.values():
        table.add_row(numbers["run"], *(_cell(numbers.get(key)) for key in columns.values()))
    return table


def _randomised(found: Mapping[str, Numbers]) -> Table:
    parts = list(dict.fromkeys(part for numbers in found.values() for part in numbers["randomisation"]))
    table = _blank("Rank correlation, redrawn down to", ["run", *parts])
    for numbers in found.values():
        table.add_row(numbers["run"], *(_cell(numbers["randomisation"].get(part)) for part in parts))
    return table


def _located(found: Mapping[str, Numbers]) -> Table:
    known = {key for numbers in found.values() for key in numbers.get("localisation", {})}
    columns = {heading: key for heading, key in LOCALISATION.items() if key in known}
    table = _blank("Localisation (in brackets: a Gaussian in the middle of the image)", ["run", "images", *columns])
    for numbers in found.values():
        of_maps, of_middle = numbers.get("localisation", {}), numbers.get("centre_gaussian", {})
        cells = [
            f"{_cell(of_maps[key])} ({_cell(of_middle[key])})" if key in of_maps else "" for key in columns.values()
        ]
        table.add_row(numbers["run"], _cell(numbers["num_located"]), *cells)
    return table


def _blank(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if number else "left")
    return table


def _cell(value: object) -> str:
    if value is None:
        return "—"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
