"""The pictures of a run come back as they were written, and damage is named."""

import numpy as np
import pytest
from made_up import recipe_row, run_folder, write_recipe, write_run

from heedful.errors import InputError
from heedful.report.evidence import evidence, of_one_seed, pictures
from heedful.report.results import read


@pytest.fixture
def cbam(tmp_path):
    """A finished run of cbam, and its evidence.npz."""
    row = recipe_row("cbam", epochs=2)
    write_recipe(tmp_path, [row], [0])
    write_run(tmp_path, row, 0, 5.0)
    return read(tmp_path).rows[0].runs[0], run_folder(tmp_path, row, 0) / "evidence.npz"


def test_arrays_come_back(cbam):
    run, path = cbam
    found = evidence(run)
    with np.load(path) as stored:
        for name in ("images", "labels", "predictions", "probabilities", "histograms", "maps"):
            np.testing.assert_array_equal(getattr(found, name), stored[name])
        for gate, mask in found.spatial.items():
            np.testing.assert_array_equal(mask, stored[f"spatial/{gate}"])
    assert found.layer == "layer3"
    assert found.gates[:2] == ("layer1.0.attention.channel", "layer1.0.attention.spatial")
    assert found.kinds == ("channel", "spatial") * 3
    assert list(found.spatial) == [gate for gate in found.gates if gate.endswith("spatial")]


def test_a_run_may_have_no_pictures(cbam):
    run, path = cbam
    path.unlink()
    assert evidence(run) is None


def test_damage_is_named(cbam):
    run, path = cbam
    whole = path.read_bytes()
    for text in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(text)
        with pytest.raises(InputError, match=r"evidence\.npz' is damaged .* delete it"):
            evidence(run)


def test_a_missing_array_is_damage(cbam):
    run, path = cbam
    with np.load(path) as stored:
        rest = {name: stored[name] for name in stored if name != "spatial/layer2.0.attention.spatial"}
    np.savez(path, **rest)
    with pytest.raises(InputError, match=r"KeyError.*layer2"):
        evidence(run)


def test_objects_are_not_unpickled(cbam):
    run, path = cbam
    with np.load(path) as stored:
        rest = dict(stored)
    np.savez(path, **{**rest, "labels": np.array([print], dtype=object)})
    with pytest.raises(InputError, match="allow_pickle=False"):
        evidence(run)


def test_one_seed_is_shown_for_all_variants(experiment):
    # The second group's first row has not finished seed 0: seed 1 is the first that both have.
    first, second = (of_one_seed(pictures(group)) for group in experiment.groups)
    assert (first[0], list(first[1])) == (0, ["none", "se", "se-ign3", "cbam", "cbam-ign1(0.5)"])
    assert (second[0], list(second[1])) == (1, ["none", "se-ign2"])
    images = [each.images for each in second[1].values()]
    np.testing.assert_array_equal(*images)
