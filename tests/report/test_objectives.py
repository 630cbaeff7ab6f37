"""What rows were trained for, and images of several classes: named wherever a number stands."""

import csv
import io
import json

import pytest
from made_up import recipe_row, run_folder, write_recipe, write_run

from heedful import report
from heedful.report.formats import as_latex, as_markdown, as_rich
from heedful.report.results import read
from heedful.report.sentences import notes
from heedful.report.tables import as_csv, compare

PRECISIONS = {"none": 77.44, "none@icasc": 83.17}


@pytest.fixture
def several(tmp_path):
    """Two rows and two seeds on images of several classes; the paper's numbers as in the recipes."""
    rows = [
        recipe_row("none", name="none", expected={"map": 77.44, "auc": 0.976}, objective="cross-entropy"),
        recipe_row("none", name="none@icasc", expected={"map": [83.17, 0.5]}, objective="icasc"),
    ]
    write_recipe(tmp_path, rows, [0, 1])
    for row in rows:
        for seed in (0, 1):
            precision = PRECISIONS[row["name"]] + seed
            write_run(tmp_path, row, seed, 100 - precision, pictures=False)
            path = run_folder(tmp_path, row, seed) / "result.json"
            result = json.loads(path.read_text())
            del result["metrics"]["test_top5_error"]
            result["metrics"] |= {"test_map": precision, "test_auc": 0.97 + seed / 100, "test_classes_left_out": 2}
            path.write_text(json.dumps(result))
    return tmp_path


def test_rows_are_labelled_with_their_objectives(tmp_path):
    rows = [
        recipe_row("se"),  # of before there were objectives
        recipe_row("se", name="b", objective="icasc"),
        recipe_row("se", name="c", objective="icasc-gradcam"),
        recipe_row("cbam", name="d", objective="cross-entropy"),
        recipe_row("cbam", name="e", objective="icasc", attention_weight=0.1),
        recipe_row("cbam", name="f", objective="icasc"),
    ]
    write_recipe(tmp_path, rows, [0])
    write_run(tmp_path, rows[0], 0, 5.0, pictures=False)
    (group,) = read(tmp_path).groups
    assert [row.label for row in group.rows] == ["se", "se@icasc", "se@icasc-gradcam", "cbam", "e", "f"]
    assert [row.notation for row in group.rows][4:] == ["cbam@icasc", "cbam@icasc"]
    found = [note for note in notes(group, compare(group)) if "trained with" in note]
    assert [note.split(":")[0] for note in found] == ["icasc", "icasc-gradcam"]
    assert "on maps by Grad-CAM (Wang et al., ICCV 2019, equation 6)" in found[1]


def test_rows_of_other_objectives_are_no_family(tmp_path):
    rows = [recipe_row("se"), recipe_row("se-ign3", name="b", objective="icasc")]
    write_recipe(tmp_path, rows, [0])
    write_run(tmp_path, rows[0], 0, 5.0, pictures=False)
    (group,) = read(tmp_path).groups
    assert not any("same family" in note for note in notes(group, compare(group)))


def test_the_error_is_100_less_the_mean_average_precision(several):
    (group,) = read(several).groups
    assert group.several_classes
    assert [row.expected.mean for row in group.rows] == pytest.approx([22.56, 16.83])
    assert [row.expected.deviation for row in group.rows] == [None, 0.5]
    first, second = compare(group)
    assert (first.error.mean, second.error.mean) == (pytest.approx(22.06), pytest.approx(16.33))
    assert second.auc.mean == pytest.approx(0.975)
    header, _, none, icasc = as_markdown([first, second]).splitlines()
    assert header.startswith("| variant | 100 − mAP % | 95 % interval |")
    assert "| AUC | paper % |" in header
    assert "top-" not in header
    assert none.startswith("| none | 22.06 ± 0.71 |")
    assert "| 0.975 | 22.56 |" in none
    assert "| 0.975 | 16.83 ± 0.50 |" in icasc
    assert as_rich([first, second], "title").columns[1].header == "100 − mAP %"
    assert r"100 $-$ mAP \% &" in as_latex([first, second], "caption")


def test_the_notes_say_what_the_error_is(several):
    (group,) = read(several).groups
    found = notes(group, compare(group))
    assert (
        "An image may show several classes: the error is 100 minus the mean average precision (mAP) in %, without 2 of "
        "the classes, which no test image shows." in found
    )
    assert not any("one of them more or less" in note for note in found)


def test_the_csv_has_precision_and_area_where_there_are_any(several):
    lines = list(csv.DictReader(io.StringIO(as_csv(read(several)))))
    assert [line["variant"] for line in lines] == ["none", "none", "none@icasc", "none@icasc"]
    assert [float(line["test_map"]) for line in lines] == pytest.approx([77.44, 78.44, 83.17, 84.17])
    assert [float(line["test_auc"]) for line in lines] == pytest.approx([0.97, 0.98, 0.97, 0.98])
    assert {line["test_top5_error"] for line in lines} == {""}


def test_the_page_names_objectives_and_precision(several):
    report.write(several)
    page = (several / "index.html").read_text()
    assert "none@icasc" in page
    assert "100 − mAP" in page
    assert "top-1" not in page
    assert '<td class="text">icasc</td>' in page  # among the settings that differ


def test_rows_of_another_protocol_are_a_group_of_their_own(tmp_path):
    rows = [
        recipe_row("none", name="a"),
        recipe_row("none", name="b", train_per_class=30, test_crops=1),
        recipe_row("none", name="c", train_per_class=30, objective="icasc"),
        recipe_row("none", name="d", train_per_class=60, test_crops=10),
    ]
    write_recipe(tmp_path, rows, [0], scale=0.5)
    write_run(tmp_path, rows[0], 0, 5.0, pictures=False)
    groups = read(tmp_path).groups
    assert [[row.label for row in group.rows] for group in groups] == [["none"], ["none", "none@icasc"], ["none"]]
    assert [group.title for group in groups] == [
        "cifar_resnet8 on digits, scaled to 0.5 of the epochs and images",
        "cifar_resnet8 on digits, 30 training images a class, scaled to 0.5 of the epochs and images",
        "cifar_resnet8 on digits, 60 training images a class, 10 test crops, scaled to 0.5 of the epochs and images",
    ]
