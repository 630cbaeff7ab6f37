import pytest

from heedful.train.recipe import compare_recipe
from heedful.train.run import Machine, execute, is_done
from tests.data_made import bright_squares


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    return bright_squares(tmp_path_factory.mktemp("data") / "squares.npz")


@pytest.fixture
def recipe(squares):
    def make(*variants, num_seeds=1, first_seed=0, **settings):
        chosen = {"data": str(squares), "epochs": 3, "batch_size": 16, **settings}
        return compare_recipe(variants or ["none"], chosen, num_seeds=num_seeds, first_seed=first_seed)

    return make


class Killed(BaseException):
    """Stands for a kill: nothing catches it on its way out."""


@pytest.fixture
def interrupted():
    """Execute a run that is killed when it reaches each of some moments, and then carried to its end."""

    def carry_out(run, out, moments):
        machine = Machine(device="cpu", num_workers=0)
        for moment in moments:

            def kill(progress, moment=moment):
                if progress.epoch >= moment:
                    raise Killed

            with pytest.raises(Killed):
                execute(run, out, machine=machine, report=kill)
            assert not is_done(run, out)
        execute(run, out, machine=machine, report=lambda progress: None)

    return carry_out
