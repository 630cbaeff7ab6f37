"""Clips and boxes on the page: in their own words, with the numbers they have, and never compared across benchmarks."""

import json

import pytest
from made_up import recipe_row, run_folder, write_recipe, write_run

from heedful import report
from heedful.report.results import read
from heedful.report.sentences import notes
from heedful.report.tables import compare


def changed(folder, row, **parts):
    """Write other metrics or data into a run's result; None takes one away."""
    path = run_folder(folder, row, 0) / "result.json"
    result = json.loads(path.read_text())
    for part, values in parts.items():
        merged = result[part] | values
        result[part] = {name: value for name, value in merged.items() if value is not None}
    path.write_text(json.dumps(result))


@pytest.fixture
def clips(tmp_path):
    shapes = {"skeleton": [3, 32, 20], "inertial": [6, 128]}
    rows = [
        recipe_row("mmtm", name="a", model="hcn+inertial", task="clips", benchmark="cross-subject"),
        recipe_row("late", name="b", model="hcn+inertial", task="clips", benchmark="cross-subject"),
        recipe_row("late", name="c", model="hcn+inertial", task="clips", benchmark="cross-view"),
    ]
    write_recipe(tmp_path, rows, [0])
    for row in rows:
        write_run(tmp_path, row, 0, 20.0, pictures=False)
        changed(tmp_path, row, data={"shapes": shapes, "image_size": None})
    return tmp_path


@pytest.fixture
def boxes(tmp_path):
    rows = [recipe_row(variant, name=variant, model="fasterrcnn", task="detection") for variant in ("none", "aw+se")]
    write_recipe(tmp_path, rows, [0])
    for row in rows:
        write_run(tmp_path, row, 0, 51.5, pictures=False)
        metrics = {"test_map": 48.5, "test_map50": 83.25, "test_map75": 50.0}
        none = dict.fromkeys(("test_loss", "val_loss", "test_top5_error"))
        changed(tmp_path, row, metrics={**metrics, **none}, data={"dropped_boxes": {"clipped": 12, "no area": 1}})
        path = run_folder(tmp_path, row, 0) / "metrics.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        kept = [n for n, name in enumerate(lines[0]) if name not in ("train_error", "val_loss")]
        path.write_text("\n".join(",".join(line[n] for n in kept) for line in lines) + "\n")
    return tmp_path


def test_rows_of_two_benchmarks_are_not_compared(clips):
    groups = read(clips).groups
    assert [[row.name for row in group.rows] for group in groups] == [["a", "b"], ["c"]]
    assert groups[1].title == "hcn+inertial on digits, cross-view"


def test_clips_are_called_clips(clips):
    report.write(clips)
    page = (clips / "index.html").read_text()
    assert "180 test clips of" in page
    assert "skeleton 3 × 32 × 20, inertial 6 × 128" in page
    assert "The test split has 180 clips" in page
    assert "test images" not in page


def test_detection_has_its_precisions_and_two_curves(boxes):
    report.write(boxes)
    (group,) = read(boxes).groups
    assert compare(group)[0].map50.mean == 83.25
    table = (boxes / "table.md").read_text()
    assert "100 − mAP %" in table
    assert "mAP@0.5 %" in table
    assert "83.25" in table
    assert "top-5" not in table
    page = (boxes / "index.html").read_text()
    assert "Loss and error per epoch" in page  # the chart's alternative text
    assert "180 test images of" in page


def test_boxes_that_did_not_fit_are_counted_in_the_notes(boxes):
    (group,) = read(boxes).groups
    assert "Boxes that did not fit their images: 12 clipped and 1 no area." in notes(group, compare(group))


def test_without_a_loss_there_is_none_in_the_csv(boxes):
    report.write(boxes)
    header, line, _ = (boxes / "results.csv").read_text().splitlines()
    numbers = dict(zip(header.split(","), line.split(","), strict=True))
    assert numbers["test_loss"] == numbers["val_loss"] == ""
    assert numbers["test_map75"] == "50.0"
