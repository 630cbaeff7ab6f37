"""A folder of runs: carried on, extended, refused; and one true kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import heedful
from heedful import InputError
from heedful.experiment import carry_out, compare
from heedful.train.recipe import compare_recipe
from heedful.train.run import Machine, is_done, runs_of
from tests.data_made import bright_squares, many_squares

CPU = Machine(device="cpu", num_workers=0)
TIMES = ("train_seconds", "epoch_seconds", "inference_seconds")


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return str(bright_squares(tmp_path_factory.mktemp("data") / "squares.npz"))


@pytest.fixture
def make(squares):
    def recipe(*variants, num_seeds=1, first_seed=0, **settings):
        chosen = {"data": squares, "epochs": 1, "batch_size": 32, **settings}
        return compare_recipe(variants or ["none"], chosen, num_seeds=num_seeds, first_seed=first_seed)

    return recipe


def lines(out):
    with (out / "results.csv").open() as file:
        return [{key: value for key, value in line.items() if key not in TIMES} for line in csv.DictReader(file)]


def test_compare_is_the_whole_way_from_images_to_page(squares, tmp_path):
    experiment = heedful.compare(["none", "se-ign3"], data=squares, seeds=2, epochs=1, out=tmp_path / "out")
    assert [row.label for row in experiment.rows] == ["none", "se-ign3"]
    assert [len(row.runs) for row in experiment.rows] == [2, 2]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "se-ign3" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len(lines(tmp_path / "out")) == 4
    assert (tmp_path / "out" / "table.md").read_text().count("\n|") >= 3
    assert r"\toprule" in (tmp_path / "out" / "table.tex").read_text()


def test_finished_runs_are_not_repeated_and_more_seeds_or_variants_extend(make, tmp_path):
    out = tmp_path / "out"
    carry_out(make("none"), out, machine=CPU)
    first = out / runs_of(make("none"))[0].folder / "result.json"
    stamp = first.stat().st_mtime_ns
    carry_out(make("none", "se", num_seeds=2), out, machine=CPU)
    assert first.stat().st_mtime_ns == stamp
    assert len(lines(out)) == 4
    carry_out(make("none"), out, machine=CPU)  # less than what is there: nothing is lost
    assert len(lines(out)) == 4
    assert [row["name"] for row in yaml.safe_load((out / "recipe.yaml").read_text())["rows"]] == ["none", "se"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"epochs": 2}, "epochs 1 there, 2 asked for"),
        ({"learning_rate": 0.05}, "learning_rate 0.1 there, 0.05 asked for"),
        ({"first_seed": 3}, r"seeds \[0\] there, \[3\] asked for"),
    ],
)
def test_another_experiment_in_the_folder_is_refused(make, tmp_path, other, message):
    carry_out(make("none"), tmp_path / "out", machine=CPU)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message) as error:
        carry_out(make("none", **other), tmp_path / "out", machine=CPU)
    assert "choose another folder" in str(error.value)
    with pytest.raises(InputError, match="row none there, se in its place asked for"):
        carry_out(make("se"), tmp_path / "out", machine=CPU)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_other_files_is_refused_and_untouched(make, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        carry_out(make("none"), tmp_path, machine=CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_is_refused(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        carry_out(make("none"), tmp_path / "file" / "out", machine=CPU)


def test_a_second_process_is_refused(make, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    carry_out(make("none"), tmp_path / "out", machine=CPU)
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(InputError, match="another process works on"):
        carry_out(make("none", num_seeds=2), tmp_path / "out", machine=CPU)


def test_bad_data_leaves_nothing_behind(make, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        carry_out(make("none", data=str(tmp_path / "missing.npz")), tmp_path / "out", machine=CPU)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_jobs_are_refused(make, tmp_path, jobs):
    with pytest.raises(InputError, match="jobs is"):
        carry_out(make("none"), tmp_path / "out", machine=CPU, jobs=jobs)


def test_diverged_runs_are_told_at_the_end_and_stand_in_the_table(make, tmp_path):
    out = tmp_path / "out"
    recipe = make("none", num_seeds=2, epochs=2)
    carry_out(recipe, out, machine=CPU)
    broken = out / runs_of(recipe)[1].folder
    (broken / "result.json").unlink()
    (broken / "failure.json").write_text('{"message": "the loss became nan"}')
    assert "the loss became nan" in _page(out)
    with pytest.raises(InputError, match="loss became"):
        carry_out(make("none", learning_rate=1e6, epochs=2), tmp_path / "bad", machine=CPU)


def _page(out):
    from heedful.report import write

    write(out)
    return (out / "index.html").read_text()


def test_compare_refuses_an_unknown_setting(squares, tmp_path):
    with pytest.raises(InputError, match="unknown setting 'lr'"):
        compare(["none"], data=squares, out=tmp_path / "out", settings={"lr": 1})


def test_a_kill_changes_no_number(squares, tmp_path):
    """Kill the command with its processes at work, start it again, and compare with an undisturbed run."""
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the runs in this process have
    words = [
        sys.executable,
        "-m",
        "heedful",
        "compare",
        "none",
        "se",
        "--data",
        squares,
        "--epochs",
        "6",
        "--seeds",
        "1",
    ]
    words += ["--batch-size", "16", "--out", str(killed), "--jobs", "2", "--device", "cpu"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True, env=environment)
    wait_for(lambda: list(killed.rglob("last.ckpt")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not children_of(process.pid), None)
    recipe = compare_recipe(["none", "se"], {"data": squares, "epochs": 6, "batch_size": 16}, num_seeds=1, first_seed=0)
    assert not all(is_done(run, killed) for run in runs_of(recipe))
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment)
    carry_out(recipe, undisturbed, machine=CPU)
    assert lines(killed) == lines(undisturbed)
    assert len(lines(killed)) == 2


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        assert process is None or process.poll() is None, "the command ended before it could be killed"
        time.sleep(0.02)


def children_of(session):
    """Return the processes of a session that are still running: the killed command's workers must end by themselves."""
    running = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z" and int(stat.parent.name) != os.getpid():
            running.append(stat.parent.name)
    return running


def stamps(out, name):
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in out.rglob(name)}


def test_finished_runs_are_evaluated_once_and_shown(make, squares, tmp_path):
    out, told = tmp_path / "out", []
    other = str(bright_squares(tmp_path / "other.npz", seed=1))
    carry_out(make("none"), out, machine=CPU, evaluate=["classification"], tell=told.append)
    assert told == ["evaluating: classification of none, seed 0"]
    (first,) = stamps(out, "classification.json").values()
    wanted = ["classification", f"classification={other}"]
    carry_out(make("none", "se"), out, machine=CPU, evaluate=wanted, tell=told.append)
    assert told[1:] == [
        "evaluating: classification of se, seed 0",
        "evaluating: classification of none, seed 0",
        "evaluating: classification of se, seed 0",
    ]
    assert stamps(out, "classification.json")["none"] == first
    carry_out(make("none", "se"), out, machine=CPU, evaluate=wanted, tell=told.append)
    assert len(told) == 4
    with (out / "evaluations.csv").open() as file:
        rows = [(line["row"], line["data"]) for line in csv.DictReader(file)]
    assert rows == [("none", "squares"), ("none", "other"), ("se", "squares"), ("se", "other")]
    for line in lines(out):  # what is measured again is what training measured
        with (out / "runs" / line["row"] / "seed-0" / "classification.json").open() as file:
            assert json.load(file)["error"] == float(line["test_error"])
    assert "evaluate" not in (out / "recipe.yaml").read_text()


def test_only_the_runs_asked_for_are_evaluated(make, tmp_path):
    out = tmp_path / "out"
    recipe = make("none", "se")
    carry_out(recipe, out, machine=CPU)
    carry_out(recipe, out, machine=CPU, only=runs_of(recipe)[1:], evaluate=["classification"])
    assert set(stamps(out, "classification.json")) == {"se"}


@pytest.mark.parametrize("wanted", ["robust", "transfer", "maps=missing/"])
def test_evaluations_are_checked_before_the_first_step(make, tmp_path, wanted):
    with pytest.raises(InputError):
        carry_out(make("none"), tmp_path / "out", machine=CPU, evaluate=["classification", wanted])
    assert not (tmp_path / "out").exists()


def test_images_with_several_classes_are_refused_before_the_first_step(make, tmp_path):
    recipe = make("none", data=str(many_squares(tmp_path / "several.npz")))
    with pytest.raises(InputError, match="several classes each, which maps cannot take"):
        carry_out(recipe, tmp_path / "out", machine=CPU, evaluate=["maps"])
    assert not (tmp_path / "out").exists()


def test_an_evaluation_that_fails_names_the_run_and_keeps_the_others(make, tmp_path):
    out = tmp_path / "out"
    recipe = make("none", "se")
    carry_out(recipe, out, machine=CPU)
    (out / "runs" / "none" / "seed-0" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"classification of none, seed 0: .* is missing"):
        carry_out(recipe, out, machine=CPU, evaluate=["classification"])
    assert set(stamps(out, "classification.json")) == {"se"}
    assert "classification on squares" in (out / "evaluations.md").read_text()


def test_compare_evaluates(squares, tmp_path):
    heedful.compare(["none"], data=squares, seeds=1, epochs=1, out=tmp_path / "out", evaluate=["classification"])
    assert "classification on squares" in (tmp_path / "out" / "index.html").read_text()
