"""Many runs, one after another in this process or several at a time in processes of their own."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from heedful.errors import InputError
from heedful.train.launched import num_processes
from heedful.train.processes import context
from heedful.train.run import Machine, Progress, Report, Run, execute

MOST_JOBS = 8  # each process holds torch and the images

_progress: Any = None  # a worker's end of the queue that takes progress to the parent


def default_jobs(device: str) -> int:
    """Return how many runs at a time suit this machine: on a CPU one per core, up to MOST_JOBS; on GPUs one.

    Small networks keep cores busier side by side than together. It does not depend on how many runs are left, so that a
    run that is resumed has the threads that it began with. Under torchrun one, which its processes train together.

    Args:
        device: as in `Machine`.
    """
    has_accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    if num_processes() > 1 or device not in ("auto", "cpu") or (device == "auto" and has_accelerator):
        return 1
    return min(MOST_JOBS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def execute_all(runs: Sequence[Run], out: Path, *, machine: Machine, jobs: int, report: Report) -> list[str]:
    """Execute the runs, `jobs` at a time, and return why some diverged, if any did.

    With several jobs each process gets its share of the processor's threads. Any other exception ends them all.

    Args:
        runs: what to do; those that are done already are not among them.
        out: the experiment's folder.
        machine: where.
        jobs: number of processes; 1 runs everything in this one.
        report: called in this process.
    """
    if jobs == 1:
        messages = [execute(run, out, machine=machine, report=report) for run in runs]
        return [message for message in messages if message]
    processes = context()
    progress = processes.Queue()
    listener = threading.Thread(target=_listen, args=(progress, report), daemon=True)
    listener.start()
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, mp_context=processes, initializer=_begin, initargs=(progress, threads))
    try:
        futures = [pool.submit(_execute, run, out, machine) for run in runs]
        messages = [future.result() for future in as_completed(futures)]
    except BrokenProcessPool:
        raise InputError(
            f"one of {jobs} processes was ended from outside, perhaps for lack of memory: start again with "
            "fewer --jobs (what is finished is kept)"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        progress.put(None)
        listener.join()
    return [message for message in messages if message]


def _listen(progress: Any, report: Report) -> None:
    while (event := progress.get()) is not None:
        report(event)


def _begin(progress: Any, threads: int) -> None:
    global _progress
    _progress = progress
    torch.set_num_threads(threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process when the parent is killed: two processes must never write into one run's folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _execute(run: Run, out: Path, machine: Machine) -> str | None:
    def report(event: Progress) -> None:
        _progress.put(event)

    return execute(run, out, machine=machine, report=report)
