import pytest

from heedful.train.recipe import compare_recipe
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
