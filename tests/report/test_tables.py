"""The table's numbers against numpy and scipy, computed from the result files directly."""

import csv
import io
import json
import math

import numpy as np
import pytest
import scipy.stats
from made_up import recipe_row, run_folder, write_failure, write_recipe, write_run

from heedful.report.results import read
from heedful.report.tables import as_csv, compare


def stored(out, name, *keys):
    """A number of every finished run of a row, by seed, straight from the files."""
    found = {}
    for path in sorted((out / "runs" / name).glob("seed-*/result.json")):
        value = json.loads(path.read_text())
        for key in keys:
            value = value[key]
        found[int(path.parent.name.split("-")[1])] = value
    return found


def test_means_differences_and_p_values(out, experiment):
    group = experiment.groups[0]
    comparisons = compare(group)
    reference = stored(out, group.rows[0].name, "metrics", "test_error")
    raw = []
    for row, comparison in list(zip(group.rows, comparisons, strict=True))[1:]:
        ours = stored(out, row.name, "metrics", "test_error")
        common = sorted(ours.keys() & reference.keys())
        test = scipy.stats.ttest_rel([ours[s] for s in common], [reference[s] for s in common])
        assert comparison.paired.p_value == pytest.approx(test.pvalue)
        assert comparison.paired.difference == pytest.approx(np.mean([ours[s] - reference[s] for s in common]))
        assert comparison.paired.num_seeds == len(common)
        assert comparison.error.mean == pytest.approx(np.mean(list(ours.values())))
        assert comparison.error.deviation == pytest.approx(np.std(list(ours.values()), ddof=1))
        raw.append(test.pvalue)
    corrected = [comparison.holm_p for comparison in comparisons[1:]]
    assert min(corrected) == pytest.approx(4 * min(raw))
    assert max(corrected) == pytest.approx(max(raw))
    assert {comparison.num_comparisons for comparison in comparisons} == {4}
    assert comparisons[0].paired is None
    assert math.isnan(comparisons[0].holm_p)


def test_missing_seeds_leave_the_pair_and_are_named(experiment):
    first, second = (compare(group) for group in experiment.groups)
    assert [(c.label, c.failed, c.unfinished, c.unpaired) for c in first] == [
        ("none", (), (), ()),
        ("se", (), (4,), (4,)),
        ("se-ign3", (), (), ()),
        ("cbam", (3,), (), (3,)),
        ("cbam-ign1(0.5)", (), (), ()),
    ]
    assert (second[0].unfinished, second[1].unfinished, second[1].unpaired) == ((0,), (), (0,))
    assert second[1].paired.num_seeds == 4


def test_costs_are_relative_to_the_first_row(out, experiment):
    group = experiment.groups[0]
    for key, name in (("epoch_seconds", "train_ratio"), ("inference_seconds", "inference_ratio")):
        medians = [np.median(list(stored(out, row.name, "cost", key).values())) for row in group.rows]
        assert [getattr(c, name) for c in compare(group)] == pytest.approx([median / medians[0] for median in medians])
    assert [c.parameters for c in compare(group)] == [75_290] + [75_978] * 4
    assert compare(group)[1].flops == 24_612_345


def test_top5_error_only_where_there_is_one(tmp_path, experiment):
    first = compare(experiment.groups[0])[0]
    assert first.top5.mean == pytest.approx(first.error.mean / 7)
    row = recipe_row("none")
    write_recipe(tmp_path, [row], [0])
    write_run(tmp_path, row, 0, 5.0, classes=["a", "b"], pictures=False)
    assert compare(read(tmp_path).groups[0])[0].top5 is None


def test_rows_without_a_finished_run_stay_in_the_table(tmp_path):
    rows = [recipe_row("none"), recipe_row("se"), recipe_row("cbam")]
    write_recipe(tmp_path, rows, [0, 1])
    for seed in (0, 1):
        write_run(tmp_path, rows[0], seed, 5.0 + seed, pictures=False)
        write_failure(tmp_path, rows[1], seed)
    reference, failed, waiting = compare(read(tmp_path).groups[0])
    assert reference.error.num_seeds == 2
    assert (failed.error, failed.paired, failed.failed, failed.unfinished) == (None, None, (0, 1), ())
    assert (waiting.error, waiting.parameters, waiting.failed, waiting.unfinished) == (None, None, (), (0, 1))
    assert math.isnan(failed.train_ratio)


def test_without_the_first_row_nothing_is_compared(tmp_path):
    rows = [recipe_row("none"), recipe_row("se")]
    write_recipe(tmp_path, rows, [0])
    write_run(tmp_path, rows[1], 0, 5.0, pictures=False)
    _, se = compare(read(tmp_path).groups[0])
    assert (se.paired, se.num_comparisons) == (None, 0)
    assert math.isnan(se.train_ratio)


def test_csv_has_one_line_per_run_and_every_digit(out, experiment):
    text = as_csv(experiment)
    assert text.splitlines()[0] == (
        "row,variant,model,data,seed,test_error,test_top5_error,test_loss,val_error,val_loss,best_epoch,"
        "parameters,flops,train_seconds,epoch_seconds,inference_seconds"
    )
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == 32 + 1  # finished and failed
    for line in lines:
        path = out / "runs" / line["row"] / f"seed-{line['seed']}" / "result.json"
        if path.exists():
            result = json.loads(path.read_text())
            for name, value in {**result["metrics"], **result["cost"]}.items():
                assert float(line[name]) == value
        else:
            assert (line["variant"], line["seed"]) == ("cbam", "3")
            assert set(list(line.values())[5:]) == {""}


def test_csv_is_in_the_recipes_order_with_seeds_ascending(tmp_path):
    rows = [recipe_row("se"), recipe_row("none", data="cifar10"), recipe_row("none")]
    write_recipe(tmp_path, rows, [10, 9, 2])
    for row in rows:
        for seed in (10, 9, 2):
            write_run(tmp_path, row, seed, 5.0, classes=["a", "b"], pictures=False)
    lines = list(csv.reader(io.StringIO(as_csv(read(tmp_path)))))[1:]
    assert [(line[0], line[4]) for line in lines] == [(row["name"], s) for row in rows for s in ("2", "9", "10")]
    assert {line[6] for line in lines} == {""}  # no top-5 error of two classes


def test_a_row_name_may_hold_anything(tmp_path):
    row = recipe_row("se-ign1(0.5)", name='resnet50/cifar10/"se", ign1(0.5) ü')
    write_recipe(tmp_path, [row], [0])
    write_run(tmp_path, row, 0, 5.0, pictures=False)
    assert run_folder(tmp_path, row, 0).is_dir()
    assert list(csv.reader(io.StringIO(as_csv(read(tmp_path)))))[1][0] == row["name"]
