"""Made-up experiments for the tests of the report."""

import pytest
from made_up import write_experiment

from heedful import report
from heedful.report import results


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """A folder with the experiment of `write_experiment` and its report; read it, and change nothing."""
    folder = write_experiment(tmp_path_factory.mktemp("report") / "out")
    report.write(folder)
    return folder


@pytest.fixture(scope="session")
def experiment(out):
    """The same, read."""
    return results.read(out)
