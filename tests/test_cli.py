"""The command line: help, exit codes, messages; what the commands do is tested where it is done."""

import json
import re
import sys

import pytest
import yaml

from heedful import build, cli
from heedful.models.cards import ModelCard
from heedful.models.saved import save
from tests.data.clips_made import write_utd_mhad
from tests.data_made import bright_squares


@pytest.fixture
def heedful(monkeypatch, capfd):
    """Run the command line in this process; return exit code, standard output and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["heedful", *map(str, words)])
        monkeypatch.setattr(cli.application.console, "_width", 120, raising=False)
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return end.value.code or 0, re.sub(r"\x1b\[[0-9;]*m", "", out), err

    return call


@pytest.fixture
def squares(tmp_path):
    return bright_squares(tmp_path / "squares.npz", per_class=40)


def small(squares, out, *more):
    return ["--data", squares, "--epochs", 1, "--seeds", 1, "--jobs", 1, "--device", "cpu", "--out", out, *more]


@pytest.mark.parametrize(
    "command", [[], ["compare"], ["run"], ["report"], ["list"], ["cost"], ["export"], ["explain"], ["evaluate"]]
)
def test_help(heedful, command):
    code, out, _ = heedful(*command, "--help")
    assert code == 0
    assert "Usage" in out
    if not command:
        assert all(name in out for name in ("compare", "run", "report", "list", "cost", "export"))


def test_clips_are_compared_and_measured_without_each_stream(heedful, tmp_path):
    mhad, out = write_utd_mhad(tmp_path / "mhad.npz", num_trials=1), tmp_path / "out"
    options = ["--task", "clips", "--model", "inertial+depth", "--batch-size", 4, "--learning-rate", 0.01]
    code, printed, _ = heedful("compare", "late", *small(mhad, out, *options, "--augment", "none"))
    assert code == 0, printed
    assert "inertial+depth" in printed
    code, printed, _ = heedful("evaluate", out / "runs" / "late" / "seed-0")
    assert code == 0, printed
    assert "clips" in printed
    assert "error without inertial" in " ".join(printed.split())
    code, _, err = heedful("compare", "late", *small(mhad, tmp_path / "no", *options, "--limit", 0.01))
    assert code == 2
    assert "limit 0.01 leaves 0 of 6 training clips" in " ".join(err.split())
    assert not (tmp_path / "no").exists()


def test_compare_prints_table_and_sentences_and_report_makes_the_page_again(heedful, squares, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = heedful("compare", "none", "se-ign3", *small(squares, out))
    assert code == 0, printed
    assert "1/2  none, seed 0: loss" in printed
    assert "1 seed cannot tell a difference from chance" in printed
    assert "page: " in printed
    assert yaml.safe_load((out / "recipe.yaml").read_text())["command"].startswith(
        "heedful compare none se-ign3 --data"
    )
    names = ("index.html", "results.csv", "table.md", "table.tex")
    before = {name: (out / name).read_bytes() for name in names}
    for name in names:
        (out / name).unlink()
    code, _, _ = heedful("report", out)
    assert code == 0
    assert {name: (out / name).read_bytes() for name in names[1:]} == {name: before[name] for name in names[1:]}
    assert (out / "index.html").exists()
    code, printed, _ = heedful("compare", "none", "se-ign3", *small(squares, out))
    assert code == 0
    assert "2 of 2 runs" in printed


def test_compare_and_run_evaluate_what_is_wanted(heedful, squares, tmp_path):
    out = tmp_path / "out"
    code, printed, err = heedful("compare", "none", *small(squares, out, "--evaluate", "classification"))
    assert code == 0, printed + err
    assert "evaluating: classification of none, seed 0" in printed
    assert "--evaluate classification" in (out / "recipe.yaml").read_text()
    words = ["--evaluate", f"classification={squares}", "--evaluate", "classification=digits"]
    code, printed, err = heedful("run", out / "recipe.yaml", "--out", out, "--jobs", 1, "--device", "cpu", *words)
    assert code == 2
    assert "1 of 1 runs" in printed
    assert printed.count("evaluating: ") == 1  # the first is of the run's own data, and known
    assert "classification of none, seed 0: digits has other classes than the run" in err
    assert "page: " in printed  # what was found of the others is shown all the same
    code, _, err = heedful("compare", "none", *small(squares, tmp_path / "new", "--evaluate", "transfer"))
    assert code == 2
    assert "transfer needs other data" in err
    assert not (tmp_path / "new").exists()


def test_every_option_of_compare_reaches_the_settings(heedful, squares, tmp_path):
    options = {
        "batch_size": 16, "learning_rate": 0.02, "weight_decay": 5e-4, "schedule": "cosine", "augment": "flip,crop",
        "image_size": 16, "limit": 30, "precision": "bf16",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    code, printed, err = heedful("compare", "se", *small(squares, tmp_path / "out", *words, "--first-seed", 4))
    assert code == 0, printed + err
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert recipe["seeds"] == [4]
    expected = options | {"augment": ["flip", "crop"], "epochs": 1, "data": str(squares), "variant": "se"}
    assert expected.items() <= recipe["rows"][0].items()


def test_run_takes_a_recipe_only_some_rows_and_a_scale(heedful, squares, tmp_path):
    rows = [{"name": "a/none"}, {"name": "a/se", "variant": "se"}]
    recipe = {"title": "mine", "data": str(squares), "epochs": 10, "seeds": 2, "rows": rows}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    words = ["run", tmp_path / "mine.yaml", "--out", tmp_path / "out", "--jobs", 1, "--device", "cpu", "--seeds", 1]
    code, printed, err = heedful(*words, "--scale", 0.2, "--only", "a/se")
    assert code == 0, printed + err
    assert [path.parent.parent.name for path in (tmp_path / "out").rglob("result.json")] == ["se"]
    assert "Scaled to 0.2" in printed
    assert "caled to 0.2" in (tmp_path / "out" / "index.html").read_text()
    code, _, _ = heedful(*words, "--scale", 0.2)
    assert len(list((tmp_path / "out").rglob("result.json"))) == 2
    code, _, err = heedful(*words)
    assert code == 2
    assert "scale 0.2 there, 1 asked for" in err


@pytest.mark.parametrize("kind", ["models", "variants", "recipes"])
def test_list(heedful, kind):
    code, out, _ = heedful("list", kind)
    assert code == 0
    expected = {"models": ["cifar_resnet50", "resnet50"], "variants": ["none", "se-ign3", "cbam-ign1(0.5)", "pay2-pc"]}
    assert set(expected.get(kind, ["laakom2021/table1", "laakom2021/table2"])) <= set(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["see"], "did you mean se"),
        (["se", "--model", "cifar_resnet21"], "unknown model 'cifar_resnet21'"),
        (["se", "--data", "cifar11"], "unknown data 'cifar11': did you mean cifar10"),
        (["se", "--data", "photos/"], "photos/: no such file or folder"),
        (["se", "--epochs", "0"], "epochs is 0: Input should be greater than 0"),
        (["se", "--seeds", "-1"], "give at least 1 seed"),
        (["se", "--first-seed", "-1"], "a first seed from 0 on"),
        (["se", "--jobs", "0"], "jobs is 0"),
        (["se", "--augment", "flop"], "unknown augmentation 'flop'"),
        (["se", "--limit", "0"], "limit is 0"),
        (["se", "--limit", "2.5"], "limit is 2.5"),
        (["se", "--model", "resnet18", "--image-size", "2"], "image_size"),
    ],
)
def test_what_a_user_gets_wrong_is_one_message_and_exit_code_2(heedful, tmp_path, words, message):
    code, out, err = heedful("compare", *words, "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()


def test_a_diverging_loss_is_exit_code_2_and_says_where(heedful, squares, tmp_path):
    code, _, err = heedful("compare", "none", *small(squares, tmp_path / "out", "--learning-rate", 1e6, "--epochs", 3))
    assert code == 2
    assert "none, seed 0: the " in err
    assert "of epoch" in err


def test_ctrl_c_says_how_to_go_on(heedful, squares, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("heedful.experiment.carry_out", interrupted)
    code, out, _ = heedful("compare", "none", *small(squares, tmp_path / "out"))
    assert code == 130
    assert "stopped: the same command goes on" in out


def test_cost_prints_a_table_with_the_plain_network_first(heedful):
    words = ["cost", "cifar_resnet8", "se", "cbam-ign1(0.5)", "--image-size", 8, "--batch-size", 2, "--device", "cpu"]
    code, printed, err = heedful(*words, "--repetitions", 1)
    assert code == 0, printed + err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["none", "se", "cbam-ign1(0.5)"]
    assert rows[0][4:] == ["1.00×"] * 3
    assert all(cell.endswith("×") for row in rows for cell in row[4:])
    assert "cifar_resnet8, batch of 2, cpu" in printed
    code, printed, _ = heedful(*words, "--no-time", "--json", "--num-classes", 3)
    assert code == 0
    found = json.loads(printed)
    assert [row["name"] for row in found] == ["none", "se", "cbam-ign1(0.5)"]
    assert found[0]["parameters"] == sum(p.numel() for p in build("cifar_resnet8", num_classes=3).parameters())
    assert found[0]["training_ratio"] is None
    assert 1 < found[1]["saved_bytes"] / found[0]["saved_bytes"] < 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cifar_resnet9", "se"], "unknown model 'cifar_resnet9'"),
        (["cifar_resnet8", "sse"], "did you mean se"),
        (["inception_v3", "none", "--image-size", "16"], "cannot be run on images of 8 x 3 x 16 x 16"),
        (["cifar_resnet8", "se", "--batch-size", "1"], "batch_size is 1, but it must be at least 2"),
        (["cifar_resnet8", "se", "--repetitions", "-1"], "repetitions is -1"),
    ],
)
def test_what_cannot_be_measured_is_one_message_and_exit_code_2(heedful, words, message):
    code, out, err = heedful("cost", *words, "--device", "cpu")
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in out + err


@pytest.mark.parametrize(("format", "name"), [("onnx", "model.onnx"), ("torch", "model.pt2")])
def test_export_writes_a_run_into_its_folder_or_elsewhere(heedful, tmp_path, format, name):
    card = ModelCard("cifar_resnet8", "none", None, ("a", "b"), 8, (0.5,) * 3, (1.0,) * 3)
    save(build("cifar_resnet8", num_classes=2), card, tmp_path)
    code, printed, err = heedful("export", tmp_path, "--format", format)
    assert code == 0, printed + err
    assert f"{tmp_path / name}: within " in printed
    assert (tmp_path / name).stat().st_size > 100_000
    assert json.loads((tmp_path / f"{name}.json").read_text())["classes"] == ["a", "b"]
    if format == "torch":
        code, _, _ = heedful("export", tmp_path, "--format", format, "--out", tmp_path / "mine")
        assert code == 0
        assert (tmp_path / "mine").exists()


def test_export_of_what_is_no_network(heedful, tmp_path):
    code, _, err = heedful("export", tmp_path)
    assert code == 2
    assert "holds no trained model" in err
    code, _, err = heedful("export", tmp_path / "missing" / "run")
    assert code == 2
    assert "no such folder" in err
    assert not list(tmp_path.iterdir())


def test_report_of_what_is_no_experiment(heedful, tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        code, _, err = heedful("report", folder)
        assert code == 2
        assert err.startswith("error: ")


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["heedful", "compare", "see", "--debug"])
    with pytest.raises(ValueError, match="did you mean se"):
        cli.main()
