"""The table of evaluations: its numbers against numpy and scipy, what is bold, what is never compared."""

import csv
import io
import json
import math

import numpy as np
import pytest
import scipy.stats
from made_up import recipe_row, write_evaluation, write_recipe, write_run

from heedful.report.results import read
from heedful.report.summary import as_csv, as_markdown, best_that_counts, files, table

SEEDS = range(5)
NOISE = np.random.default_rng(0).normal(0, 1, (2, 3, 5))
ERRORS = np.array([50.0, 49.5, 40.0])[:, None] + NOISE[0]
MATCHES = np.array([0.5, 0.9, 0.7])[:, None] + NOISE[1] / 100


def made(folder, variants=("none", "se", "cbam"), seeds=SEEDS):
    """An experiment without pictures, to be given evaluations; return its rows."""
    rows = [recipe_row(variant) for variant in variants]
    write_recipe(folder, rows, list(seeds))
    for row in rows:
        for seed in seeds:
            write_run(folder, row, seed, 5.0, pictures=False)
    return rows


@pytest.fixture
def three(tmp_path):
    """Three variants with five seeds, and two headlines: one is better lower, one higher."""
    for i, row in enumerate(made(tmp_path)):
        for seed in SEEDS:
            headlines = [("PGD error", ERRORS[i, seed], "%", "lower"), ("Jaccard", MATCHES[i, seed], "", "higher")]
            write_evaluation(tmp_path, row, seed, headlines)
    return tmp_path


def table_of(folder):
    return table(read(folder).groups[0])


def test_means_and_deviations_are_numpys(three):
    found = table_of(three)
    assert found.labels == ["none", "se", "cbam"]
    for column, values, digits in zip(found.columns, (ERRORS, MATCHES), (2, 3), strict=True):
        for cell, seeds in zip(column.cells, values, strict=True):
            assert cell.text == f"{np.mean(seeds):.{digits}f} ± {np.std(seeds, ddof=1):.{digits}f}"
            assert cell.gap == ""
    assert [column.heading for column in found.columns] == ["PGD error %", "Jaccard"]
    assert {column.place for column in found.columns} == {"robustness on digits"}


def test_bold_is_the_best_if_the_paired_test_says_so(three):
    assert [[cell.bold for cell in column.cells] for column in table_of(three).columns] == [
        [False, False, True],
        [False, True, False],
    ]


@pytest.mark.parametrize("shift", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_bold_is_what_scipy_and_holm_by_hand_say(shift):
    reference, second, third = ERRORS[0], ERRORS[0] - shift + NOISE[1, 0], ERRORS[0] + 0.3 * NOISE[1, 1]
    values = [dict(enumerate(each)) for each in (reference, second, third)]
    p_second, p_third = (scipy.stats.ttest_rel(each, reference).pvalue for each in (second, third))
    corrected = min(1, 2 * p_second) if p_second < p_third else max(p_second, min(1, 2 * p_third))
    assert np.mean(second) < min(np.mean(reference), np.mean(third))
    assert best_that_counts(values, "lower") == (1 if corrected < 0.05 else None)
    mirrored = [{seed: -value for seed, value in each.items()} for each in values]
    assert best_that_counts(mirrored, "higher") == best_that_counts(values, "lower")


def test_some_shifts_count_and_some_do_not():
    found = [
        best_that_counts([dict(enumerate(ERRORS[0])), dict(enumerate(ERRORS[0] - shift + NOISE[1, 0]))], "lower")
        for shift in (0.5, 3.0)
    ]
    assert found == [None, 1]


def test_the_first_row_is_bold_only_if_all_others_are_told_from_it():
    first, worse = dict(enumerate(ERRORS[0])), dict(enumerate(ERRORS[0] + 5 + NOISE[1, 0]))
    near = {seed: value + (-1) ** seed * 0.5 + 0.2 for seed, value in first.items()}
    assert best_that_counts([first, worse], "lower") == 0
    assert best_that_counts([first, worse, near], "lower") is None
    assert best_that_counts([first], "lower") is None


def test_rows_without_common_seeds_or_values_are_never_bold():
    assert best_that_counts([{0: 5.0, 1: 5.1}, {2: 1.0, 3: 1.1}], "lower") is None


def test_the_best_leads_on_the_seeds_that_both_have_too():
    # Seed 2 of the first row makes its mean the worse one, though it is better wherever both have a seed.
    assert best_that_counts([{0: 10.0, 1: 10.1, 2: 30.0}, {0: 11.0, 1: 11.11}], "lower") is None
    assert best_that_counts([{0: 11.0, 1: 11.11}, {0: 10.0, 1: 10.1, 2: 30.0}], "lower") is None
    assert best_that_counts([{0: 11.0, 1: 11.11}, {0: 10.0, 1: 10.1, 2: 10.0}], "lower") == 1
    assert best_that_counts([{}, {2: 1.0, 3: 1.1}], "lower") is None
    assert best_that_counts([{}, {}], "lower") is None


def test_with_one_seed_nothing_is_bold(tmp_path):
    for value, row in zip((90.0, 1.0), made(tmp_path, ("none", "se"), [0]), strict=True):
        write_evaluation(tmp_path, row, 0, [("PGD error", value, "%", "lower")])
    found = table_of(tmp_path)
    assert [cell.text for cell in found.columns[0].cells] == ["90.00", "1.00"]
    assert not any(cell.bold for cell in found.columns[0].cells)
    assert found.notes[0] == "1 seed cannot tell a difference from chance, so that nothing is bold."


def test_other_options_and_other_data_of_one_name_are_other_columns(tmp_path):
    first, second = made(tmp_path, ("none", "se"), [0, 1])
    error = ("PGD error", 10.0, "%", "lower")
    write_evaluation(tmp_path, first, 0, [error])
    write_evaluation(tmp_path, first, 1, [error], options={"epsilons": [0.0, 0.01], "steps": 5, "limit": 9})
    write_evaluation(tmp_path, second, 0, [error], source="digits")
    columns = table_of(tmp_path).columns
    assert [column.place for column in columns] == [
        "robustness on digits, epsilons 0, 8/255, steps 20, corruptions no",
        "robustness on digits, epsilons 0, 0.01, steps 5, limit 9",
        "robustness on digits",
    ]
    assert [[cell.text for cell in column.cells] for column in columns] == [
        ["10.00", "—"],
        ["10.00", "—"],
        ["—", "10.00"],
    ]
    assert [column.cells[0].gap for column in columns] == ["1 of 2 seeds", "1 of 2 seeds", ""]


def test_data_of_one_name_from_two_places_or_of_two_sizes_are_never_compared(tmp_path):
    first, second = made(tmp_path, ("none", "se"), [0, 1])
    error = ("accuracy", 10.0, "%", "higher")
    for row, where, number in ((first, "x/art", 42), (first, "x/art", 43), (second, "y/art", 42)):
        seed = 1 if number == 43 else 0
        others = {"protocol": "transfer", "data": "art"}
        path = write_evaluation(tmp_path, row, seed, [error], source="art", num_images=number, **others)
        path.write_text(path.read_text().replace('"source": null', f'"source": "{where}"'))
    columns = table_of(tmp_path).columns
    assert [column.place for column in columns] == [
        "transfer on art, 42 images, from x/art",
        "transfer on art, 43 images, from x/art",
        "transfer on art, 42 images, from y/art",
    ]


def test_options_and_numbers_of_images_are_told(three):
    assert table_of(three).notes[1] == "robustness on digits: 179 images; epsilons 0, 8/255; steps 20; corruptions no."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSONDecodeError"),
        ('{"run": "none/seed-0", "ks": 0.2}', "KeyError"),
        ("[1]", "TypeError"),
        ('{"protocol": "maps", "data": "d", "options": [], "headlines": []}', "AttributeError"),
    ],
)
def test_files_that_cannot_be_read_are_left_out_and_named(tmp_path, content, reason):
    (row,) = made(tmp_path, ["none"], [0])
    path = write_evaluation(tmp_path, row, 0, [("PGD error", 10.0, "%", "lower")])
    (path.parent / "maps.json").write_text(content)
    found = table_of(tmp_path)
    assert len(found.columns) == 1
    assert found.notes[-1].startswith(
        f"1 file left out, damaged or of an older heedful: none/seed-0/maps.json ({reason}"
    )
    path.unlink()
    assert table_of(tmp_path).columns == []
    assert "left out" in files(read(tmp_path))["evaluations.md"]


@pytest.mark.parametrize(
    "change",
    [
        {"headlines": [{"name": "a", "value": math.nan, "unit": "", "better": "lower"}]},
        {"headlines": [{"name": "a", "value": 1, "unit": "", "better": "nearer"}]},
        {"curves": [{"title": "t", "x_name": "x", "y_name": "y", "x": [0, 1], "lines": {"a": [1]}}]},
        {"pictures": {"robustness": "robustness.png"}},
        {"pictures": {"robustness": "result.json"}},
    ],
)
def test_numbers_curves_and_pictures_that_make_no_sense_are_left_out(tmp_path, change):
    (row,) = made(tmp_path, ["none"], [0])
    path = write_evaluation(tmp_path, row, 0, [("PGD error", 10.0, "%", "lower")])
    assert len(table_of(tmp_path).columns) == 1
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = table_of(tmp_path)
    assert found.columns == []
    assert "none/seed-0/robustness.json (" in found.notes[0]
    assert str(tmp_path) not in found.notes[0]


def test_without_evaluations_there_is_no_table_and_no_file(tmp_path):
    made(tmp_path, ["none"], [0])
    assert table_of(tmp_path) is None
    assert files(read(tmp_path)) == {}


def test_csv_has_a_line_for_each_number_with_every_digit(three):
    lines = list(csv.DictReader(io.StringIO(as_csv(read(three)))))
    assert len(lines) == 3 * 5 * 2
    for line in lines:
        place = ["none", "se", "cbam"].index(line["row"].split("/")[-1])
        values = ERRORS if line["headline"] == "PGD error" else MATCHES
        assert float(line["value"]) == values[place, int(line["seed"])]
    assert list(lines[0].values())[2:] == [
        *("robustness", "digits", "PGD error", repr(float(ERRORS[0, 0])), "%", "lower"),
        "epsilons 0, 8/255; steps 20; corruptions no",
    ]


def test_markdown_marks_the_best_and_says_which_way_is_better(three):
    lines = as_markdown(table_of(three)).splitlines()
    assert lines[:2] == [
        "| variant | PGD error % ↓ (robustness on digits) | Jaccard ↑ (robustness on digits) |",
        "| :-- | --: | --: |",
    ]
    cells = [f"{np.mean(ERRORS[2]):.2f} ± {np.std(ERRORS[2], ddof=1):.2f}", f"{np.mean(MATCHES[2]):.3f} ± "]
    assert lines[4].startswith(f"| cbam | **{cells[0]}** | {cells[1]}")
    assert lines[6].startswith("- Mean ± deviation over seeds.")


def test_names_cannot_break_the_markdown_table(tmp_path):
    (row,) = made(tmp_path, ["none"], [0])
    write_evaluation(tmp_path, row, 0, [("a|b*", 1.0, "", "lower")], data="<b>")
    heading = as_markdown(table_of(tmp_path)).splitlines()[0]
    assert heading == r"| variant | a\|b\* ↓ (robustness on \<b\>) |"


def test_evaluations_of_unfinished_runs_are_not_shown(three):
    for seed in SEEDS:
        (three / "runs" / read(three).rows[2].name / f"seed-{seed}" / "result.json").unlink()
    assert [cell.text for cell in table_of(three).columns[0].cells][2] == "—"
    json.dumps(files(read(three)))
