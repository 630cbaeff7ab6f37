"""`heedful explain --query`: masks that another image drives, against the functions called by hand."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from heedful.data.images import read_square
from heedful.errors import InputError
from heedful.evaluate.query import query_figure, query_masks
from heedful.explain import query as module
from heedful.explain.query import driven
from tests.test_explain import DEVIATION, MEAN, heedful, write_image, write_run  # noqa: F401  # heedful is a fixture


@pytest.fixture
def images(tmp_path):
    return [write_image(tmp_path / "images" / f"{seed}.png", seed) for seed in range(3)]


@pytest.fixture
def asked(tmp_path):
    return write_image(tmp_path / "asked.png", 9)


def normalised(paths):
    arrays = np.stack([read_square(path, 16) for path in paths])
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
    return arrays, (torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255 - mean) / deviation


def difference(first, second):
    """The mean absolute difference of two PNGs, in grey levels."""
    arrays = [np.asarray(Image.open(io.BytesIO(each)), dtype=float) for each in (first, second)]
    return np.abs(arrays[0] - arrays[1]).mean()


def test_the_picture_is_of_the_masks_that_the_query_drives(tmp_path, images, asked):
    model = write_run(tmp_path / "run", variant="pay2-dp")
    (pixels, inputs), (query_pixels, query_input) = normalised(images), normalised([asked])
    with torch.no_grad():
        own = model.masks(inputs)
    expected = query_figure(query_pixels[0], pixels, own, query_masks(model, inputs, query_input))
    # Rounding in the normalisation may turn a pixel's colour by one step.
    assert difference(driven(images, tmp_path / "run", asked, device="cpu"), expected) < 0.01
    assert difference(driven([images[0].parent], tmp_path / "run", asked, device="cpu"), expected) < 0.01
    assert difference(driven(images, tmp_path / "run", images[0], device="cpu"), expected) > 1


def test_only_the_first_images_are_drawn_and_broken_ones_left_out(tmp_path, images, asked, monkeypatch):
    write_run(tmp_path / "run", variant="pay2-dp")
    monkeypatch.setattr(module, "MOST_DRIVEN", 2)
    expected = driven([images[0], images[2]], tmp_path / "run", asked, device="cpu")
    images[1].write_bytes(b"broken")
    assert driven([*images, images[1]], tmp_path / "run", asked, device="cpu") == expected
    with pytest.raises(InputError, match=r"none of .* can be read"):
        driven([images[1]], tmp_path / "run", asked, device="cpu")
    with pytest.raises(InputError, match=r"query .*1\.png cannot be read"):
        driven(images, tmp_path / "run", images[1], device="cpu")


@pytest.mark.parametrize(
    ("variant", "message"), [("none", "has no global vector"), ("pay2-pc", "no query can change a mask")]
)
def test_networks_that_no_query_can_drive_draw_nothing(heedful, tmp_path, images, asked, variant, message):  # noqa: F811
    write_run(tmp_path / "run", variant=variant)
    code, _, err = heedful(*images, "--model", tmp_path / "run", "--query", asked, "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_picture_beside_the_page(heedful, tmp_path, images, asked):  # noqa: F811
    write_run(tmp_path / "run", variant="pay2-dp")
    out = tmp_path / "out"
    for _ in range(2):  # the folder is its own, the second time too
        code, printed, err = heedful(
            *images, "--model", tmp_path / "run", "--query", asked, "--out", out, "--device", "cpu"
        )
        assert code == 0, err
    assert f"query: {out / 'query+asked.png'}" in printed
    assert (out / "query+asked.png").read_bytes() == driven(images, tmp_path / "run", asked, device="cpu")
    assert (out / "0.png").is_file()
