"""Tables for the terminal of what `heedful evaluate` found."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from heedful.evaluate.maps import Numbers

LOCALISATION = {
    "PxAP": "pxap", "PxAP per image": "pxap_per_image", "MaxBoxAccV2": "max_box_acc", "pointing": "pointing_0px",
    "pointing 15 px": "pointing_15px", "energy": "energy", "Jaccard": "jaccard",
}  # fmt: skip

HEADINGS = {key: heading for heading, key in LOCALISATION.items()}


def as_rich(found: Mapping[str, Numbers], on: str) -> list[Table]:
    """Return the tables for the terminal, a row for each run."""
    if on == "classification":
        precision = {"mAP %": "map"} if any("map" in numbers for numbers in found.values()) else {}
        columns = {"images": "num_images", "error %": "error", **precision, "loss": "loss"}
        return [_table("Classification", found, columns)]
    columns = {
        "layer": "layer", "images": "num_images", "KS": "ks", "at": "ks_at", "overlap": "overlap",
        "insertion": "insertion", "deletion": "deletion", "zero maps": "zero_maps",
    }  # fmt: skip
    tables = [_table("Maps of the true class", found, columns), _randomised(found)]
    if any(numbers["objects"] for numbers in found.values()):
        tables.append(_located(found))
    return tables


def notes(found: Mapping[str, Numbers]) -> list[str]:
    """Return in lines what was left out and why, and what else a reader of the tables must know."""
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
