"""The processes that compute runs side by side: forked from one server, which imports what they need once."""

import multiprocessing
from multiprocessing import forkserver
from typing import Any

from heedful.train.launched import num_processes


def context() -> Any:
    """Return a way to start processes without this one's threads; from a fork server they share what it imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["heedful.train.queue"])
    return forking


def warm_up() -> None:
    """Start the fork server now, so that it imports torch and lightning while this process does the same."""
    if num_processes() == 1 and context().get_start_method() == "forkserver":
        forkserver.ensure_running()
