"""One run by two processes of torchrun: the numbers of one process, each file written once, and what a kill leaves."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch

from heedful.errors import InputError
from heedful.experiment import carry_out
from heedful.train.queue import default_jobs
from heedful.train.run import Machine
from tests.of_processes import environment

OPTIONS = [
    "cbam-ign1(0.5)",
    "--seeds=1",
    "--epochs=3",
    "--batch-size=5",
    "--augment=flip,shift",
    "--learning-rate=0.02",
]
"""Of 48 training images the last batch has 3, shares of 1 and 2; of 6 for validation, one process has 5 and 1."""

FOLDER = "runs/cbam-ign1(0.5)/seed-0"

WORKER = """
import os, signal
from heedful.cli import main
from heedful.train.module import Training

step = Training.training_step

def killed(self, batch, batch_index):
    if os.environ.get("KILLED") == os.environ["RANK"] and (self.num_finished, batch_index) == (2, 3):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_index)

Training.training_step = killed
main()
"""


@pytest.fixture(scope="module")
def torchrun(squares, tmp_path_factory):
    script = tmp_path_factory.mktemp("script") / "worker.py"
    script.write_text(WORKER)

    def started(out, *options, killed=""):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
        arguments = ["compare", *OPTIONS, f"--data={squares}", f"--out={out}", "--device=cpu", *options]
        variables = {**os.environ, "KILLED": killed, "COLUMNS": "200"}
        return subprocess.run([*command, *arguments], capture_output=True, text=True, env=variables, timeout=600)

    return started


@pytest.fixture(scope="module")
def of_two(torchrun, tmp_path_factory):
    out = tmp_path_factory.mktemp("of two")
    done = torchrun(out)
    assert done.returncode == 0, done.stderr
    return out, done


def history(out):
    with (out / FOLDER / "metrics.csv").open() as file:
        return [
            {name: float(value) for name, value in line.items() if name != "seconds"} for line in csv.DictReader(file)
        ]


def result(out):
    return json.loads((out / FOLDER / "result.json").read_text())


def test_two_processes_give_the_numbers_of_one(of_two, recipe, tmp_path):
    settings = {"batch_size": 5, "augment": ("flip", "shift"), "learning_rate": 0.02}
    carry_out(recipe("cbam-ign1(0.5)", **settings), tmp_path, machine=Machine(device="cpu", num_workers=0))
    ours, expected = history(of_two[0]), history(tmp_path)
    assert len(ours) == 3
    for line, its in zip(ours, expected, strict=True):
        assert line == pytest.approx(its, rel=1e-5)
    for name, value in result(tmp_path)["metrics"].items():
        assert result(of_two[0])["metrics"][name] == (value if value is None else pytest.approx(value, rel=1e-5)), name
    assert result(of_two[0])["environment"]["processes"] == 2
    assert "processes" not in result(tmp_path)["environment"]
    names = [sorted(path.relative_to(out) for path in out.rglob("*")) for out in (of_two[0], tmp_path)]
    assert names[0] == names[1]


def test_the_first_alone_prints(of_two):
    out, done = of_two
    assert done.stdout.count("1/1  cbam-ign1(0.5), seed 0: loss") == 1
    assert done.stdout.count("page: ") == 1
    assert "Warning" not in done.stderr
    assert "--nproc-per-node=2 -m heedful compare" in (out / "recipe.yaml").read_text().replace("\n", " ")


def test_a_killed_process_ends_the_other_and_the_same_command_goes_on(of_two, torchrun, tmp_path):
    ended = torchrun(tmp_path, killed="0")
    assert ended.returncode == 1
    assert "another process of this run ended, so process 1 of 2 ends, too" in ended.stderr
    assert "the same command goes on from epoch 3" in ended.stderr
    assert "RuntimeError" not in ended.stderr
    assert not (tmp_path / FOLDER / "result.json").exists()
    checkpoint = torch.load(tmp_path / FOLDER / "last.ckpt", weights_only=True)
    assert [record["epoch"] for record in checkpoint["history"]] == [1, 2]
    again = torchrun(tmp_path)
    assert again.returncode == 0, again.stderr
    assert history(tmp_path) == history(of_two[0])
    assert result(tmp_path)["metrics"] == result(of_two[0])["metrics"]


def test_what_several_processes_cannot_do_is_refused(recipe, tmp_path, monkeypatch):
    for name, value in environment(1, 2, 0).items():
        monkeypatch.setenv(name, value)
    assert default_jobs("cpu") == 1
    with pytest.raises(InputError, match=r"jobs is 2, but the 2 processes of torchrun .*: leave --jobs out"):
        carry_out(recipe(), tmp_path / "out", jobs=2)
    with pytest.raises(InputError, match=r"compile is true in row none, but .* of 2 processes are not compiled"):
        carry_out(recipe(compile=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()
