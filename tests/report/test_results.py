"""Reading an experiment's folder: every run is found, nothing is dropped silently, damage is named."""

import json

import numpy as np
import pytest
from made_up import recipe_row, run_folder, write_failure, write_recipe, write_run

from heedful.errors import InputError
from heedful.report.results import CURVES, Expected, curves, read


@pytest.fixture
def small(tmp_path):
    """One finished run of two rows and two seeds."""
    rows = [recipe_row("none", epochs=2), recipe_row("se", epochs=2)]
    write_recipe(tmp_path, rows, [0, 1])
    write_run(tmp_path, rows[0], 0, 5.0, pictures=False)
    return tmp_path, rows


def test_groups_are_rows_of_one_model_and_data_in_order_of_first_appearance(tmp_path):
    rows = [recipe_row("none"), recipe_row("none", data="cifar10"), recipe_row("se"), recipe_row("se", data="cifar10")]
    write_recipe(tmp_path, rows, [0])
    write_run(tmp_path, rows[0], 0, 5.0, pictures=False)
    groups = read(tmp_path).groups
    assert [group.title for group in groups] == ["cifar_resnet8 on digits", "cifar_resnet8 on cifar10"]
    assert [[row.label for row in group.rows] for group in groups] == [["none", "se"], ["none", "se"]]


def test_finished_failed_and_unfinished_runs_are_told_apart(experiment):
    found = {row.name: row for row in experiment.rows}
    assert [run.seed for run in found["cifar_resnet8/digits/cbam"].runs] == [0, 1, 2, 4]
    (failure,) = found["cifar_resnet8/digits/cbam"].failures
    assert (failure.seed, failure.message) == (3, "the loss became nan at epoch 3, step 41")
    assert found["cifar_resnet8/digits/se"].unfinished == (4,)
    assert found["cifar_densenet40/digits/none"].unfinished == (0,)
    assert found["cifar_resnet8/digits/se-ign3"].expected == Expected(6.1, 0.2)


def test_numbers_are_those_of_the_file(small):
    out, rows = small
    (run,) = read(out).rows[0].runs
    stored = json.loads((run_folder(out, rows[0], 0) / "result.json").read_text())
    several = {"test_map": None, "test_auc": None, "test_classes_left_out": 0}  # of images of several classes alone
    several |= {"test_map50": None, "test_map75": None}  # of detection
    assert run.metrics.__dict__ == stored["metrics"] | several
    assert run.cost.__dict__ == stored["cost"]
    assert run.environment == stored["environment"]


def test_a_result_wins_over_an_older_failure(small):
    out, rows = small
    write_failure(out, rows[0], 0)
    (row, _) = read(out).rows
    assert [run.seed for run in row.runs] == [0]
    assert row.failures == ()


def test_rows_with_the_same_variant_go_by_their_names(tmp_path):
    rows = [recipe_row("se", name="slow", learning_rate=0.01), recipe_row("se", name="fast"), recipe_row("none")]
    write_recipe(tmp_path, rows, [0])
    write_run(tmp_path, rows[0], 0, 5.0, pictures=False)
    assert [row.label for row in read(tmp_path).rows] == ["slow", "fast", "none"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [([6.1, 0.2], Expected(6.1, 0.2)), ([6.1], Expected(6.1, None)), (6.1, Expected(6.1, None)), (None, None)],
)
def test_the_papers_value_may_lack_its_deviation(tmp_path, value, expected):
    row = recipe_row("none", expected={"top1_error": value})
    write_recipe(tmp_path, [row], [0])
    write_run(tmp_path, row, 0, 5.0, pictures=False)
    assert read(tmp_path).rows[0].expected == expected


def test_unknown_keys_of_the_recipe_are_ignored_and_the_command_is_kept(tmp_path):
    row = recipe_row("none")
    write_recipe(tmp_path, [row], [0], expected_source="table 1", command="heedful compare none", paper="A paper")
    write_run(tmp_path, row, 0, 5.0, pictures=False)
    experiment = read(tmp_path)
    assert (experiment.command, experiment.paper) == ("heedful compare none", "A paper")


def test_curves_are_the_columns_of_the_file(small):
    out, rows = small
    lines = (run_folder(out, rows[0], 0) / "metrics.csv").read_text().splitlines()
    found = curves(read(out).rows[0].runs[0])
    for name, column in zip(CURVES, (2, 3, 4, 5), strict=True):
        np.testing.assert_array_equal(found[name], [float(line.split(",")[column]) for line in lines[1:]])


def test_curves_may_be_missing(small):
    out, rows = small
    (run_folder(out, rows[0], 0) / "metrics.csv").unlink()
    assert curves(read(out).rows[0].runs[0]) == {}


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*nowhere.*heedful compare"):
        read(tmp_path / "nowhere")


def test_a_folder_without_a_recipe(tmp_path):
    with pytest.raises(InputError, match=r"holds no recipe\.yaml"):
        read(tmp_path)


def test_no_finished_run(tmp_path):
    row = recipe_row("none")
    write_recipe(tmp_path, [row], [0])
    write_failure(tmp_path, row, 0)
    with pytest.raises(InputError, match=r"no finished run: continue it with the command"):
        read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "rows: [",
        "",
        "just text",
        "rows: []\nseeds: [0]",
        "seeds: [0]",
        "rows: [{}]\nseeds: []",
        "rows: [{name: a}]\nseeds: [0]",
        "rows: [a]\nseeds: [0]",
        "rows: []\nseeds: 3",
    ],
)
def test_a_damaged_recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.yaml' is damaged .* restore it"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"metrics": {}, "cost": {}}', '{"metrics": [], "cost": {}}'])
def test_a_damaged_result(small, text):
    out, rows = small
    (run_folder(out, rows[0], 0) / "result.json").write_text(text)
    with pytest.raises(InputError, match=r"result\.json' is damaged .* delete its folder"):
        read(out)


@pytest.mark.parametrize("error", [float("nan"), float("inf"), None, "5"])
def test_a_test_error_that_is_no_number(small, error):
    out, rows = small
    path = run_folder(out, rows[0], 0) / "result.json"
    result = json.loads(path.read_text())
    result["metrics"]["test_error"] = error
    path.write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"result\.json' is damaged"):
        read(out)


@pytest.mark.parametrize("text", ["epoch,train_loss\n1,2\n", "train_loss,train_error,val_loss,val_error\n1,2,x,3\n"])
def test_damaged_curves(small, text):
    out, rows = small
    (run_folder(out, rows[0], 0) / "metrics.csv").write_text(text)
    (run,) = read(out).rows[0].runs
    with pytest.raises(InputError, match=r"metrics\.csv' is damaged"):
        curves(run)


def test_a_scaled_experiment_says_so_in_every_title(tmp_path):
    row = recipe_row("none")
    write_recipe(tmp_path, [row], [0], scale=0.1)
    write_run(tmp_path, row, 0, 5.0, pictures=False)
    (group,) = read(tmp_path).groups
    assert group.title == "cifar_resnet8 on digits, scaled to 0.1 of the epochs and images"
