"""Several runs at a time, in processes of their own."""

import json
import multiprocessing
import os
import signal
import threading

import pytest

from heedful import InputError
from heedful.train.queue import MOST_JOBS, default_jobs, execute_all
from heedful.train.run import Machine, is_done, runs_of

CPU = Machine(device="cpu", num_workers=0)


def metrics(run, out):
    return json.loads((out / run.folder / "result.json").read_text())["metrics"]


def test_processes_give_the_numbers_of_one_process(recipe, tmp_path):
    runs = runs_of(recipe("none", "se", epochs=2))
    told = []
    for jobs in (1, 2):
        messages = execute_all(runs, tmp_path / str(jobs), machine=CPU, jobs=jobs, report=told.append)
        assert messages == []
    for run in runs:
        assert metrics(run, tmp_path / "1") == metrics(run, tmp_path / "2")
    finished = [progress.run for progress in told if progress.epoch == 2]
    assert sorted(run.row.name for run in finished) == ["none", "none", "se", "se"]
    assert threading.active_count() < 20


def test_an_error_in_a_process_reaches_the_caller_and_a_diverged_run_does_not_stop_the_others(recipe, tmp_path):
    good, bad = runs_of(recipe("none", epochs=1)), runs_of(recipe("se", epochs=2, learning_rate=1e6))
    messages = execute_all([*bad, *good], tmp_path, machine=CPU, jobs=2, report=lambda progress: None)
    assert len(messages) == 1
    assert messages[0].startswith("se, seed 0: the loss became")
    assert is_done(good[0], tmp_path)
    missing = runs_of(recipe("none", data=str(tmp_path / "missing.npz")))
    with pytest.raises(InputError, match="no such file"):
        execute_all(missing, tmp_path / "x", machine=CPU, jobs=2, report=lambda progress: None)


def test_the_number_of_jobs_follows_from_the_machine():
    assert default_jobs("cuda") == 1
    assert default_jobs("cpu") == min(MOST_JOBS, len(os.sched_getaffinity(0)))


def test_runs_of_one_seed_follow_each_other(recipe):
    order = [(run.seed, run.row.name) for run in runs_of(recipe("none", "se", num_seeds=2))]
    assert order == [(0, "none"), (0, "se"), (1, "none"), (1, "se")]


def test_a_process_that_is_killed_is_told_in_words(recipe, tmp_path):
    runs = runs_of(recipe("none", "se", epochs=500))

    def kill(progress):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(InputError, match=r"lack of memory: start again with fewer --jobs"):
        execute_all(runs, tmp_path, machine=CPU, jobs=2, report=kill)
    assert not any(is_done(run, tmp_path) for run in runs)
