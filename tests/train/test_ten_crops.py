"""Ten crops of an image: which pixels they hold, and how a network's answers on them are put together."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from heedful import InputError, build, data
from heedful.evaluate.classification import classification
from heedful.models.saved import load
from heedful.train.run import Machine, execute, runs_of
from heedful.train.ten_crops import TenCrops, check_crops, crop_batches
from tests.data_made import bright_squares, many_squares

SIZE = 70  # scaled to 256/224 of it, an image's shorter side is 80 pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders of images of 80 x 100 pixels, which need not be scaled, and of other sizes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in (("dark", 60), ("light", 180)):
        (root / name).mkdir()
        for number in range(8):
            height, width = ((80, 100), (100, 80), (160, 160))[number % 3]
            pixels = rng.integers(0, 70, (height, width, 3), dtype=np.uint8) + np.uint8(colour)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def dataset(folder):
    return data.load(str(folder), seed=0, image_size=SIZE, test_fraction=0.3)


def by_hand(path):
    """The ten crops, uint8 (10, 3, SIZE, SIZE), of an image whose shorter side is 80 pixels; None for others."""
    with Image.open(path) as image:
        pixels = np.asarray(image).transpose(2, 0, 1)
    if min(pixels.shape[1:]) != 80:
        return None
    down, right = pixels.shape[1] - SIZE, pixels.shape[2] - SIZE
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = [pixels[:, top : top + SIZE, left : left + SIZE] for top, left in corners]
    mirrored = pixels[:, :, ::-1]
    return np.stack(crops + [mirrored[:, top : top + SIZE, left : left + SIZE] for top, left in corners])


def test_crops_are_the_corners_the_centre_and_their_mirror_images(dataset):
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (dataset.mean, dataset.deviation))
    batches = list(crop_batches(dataset, 20))
    crops, labels = torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])
    assert crops.shape == (len(dataset.test), 10, 3, SIZE, SIZE)
    assert len(batches[0][1]) == 2
    assert labels.tolist() == dataset.test.labels.tolist()
    num_compared = 0
    for path, images in zip(dataset.test.paths, crops, strict=True):
        if (pixels := by_hand(path)) is not None:
            expected = (torch.from_numpy(pixels) / 255 - mean) / deviation
            torch.testing.assert_close(images, expected.float(), rtol=1e-4, atol=1e-4)
            num_compared += 1
    assert num_compared >= 2


def test_ten_crops_have_the_mean_probability():
    model = build("cifar_resnet8", num_classes=4).eval()
    crops = torch.randn(3, 10, 3, 16, 16)
    with torch.no_grad():
        expected = torch.stack([model(image).softmax(1).mean(0) for image in crops])
        found = TenCrops(model)(crops)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(found.softmax(1), expected)


def test_sure_networks_that_disagree_stay_finite():
    """Where every crop's probability is too small for float32, its logarithm is not."""

    class Sure(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 300.0, 0.0]]).repeat(len(x), 1)

    found = TenCrops(Sure())(torch.zeros(1, 10, 3, 8, 8))
    torch.testing.assert_close(found, torch.tensor([[-300.0, 0.0, -300.0]]))


def test_a_run_is_tested_on_ten_crops_and_trained_as_without(recipe, folder, tmp_path):
    chosen = {"data": str(folder), "image_size": SIZE, "epochs": 1, "batch_size": 4, "learning_rate": 0.01}
    (ten,) = runs_of(recipe("none", test_crops=10, **chosen))
    (one,) = runs_of(recipe("none", **chosen))
    found = {}
    for run, out in ((ten, tmp_path / "ten"), (one, tmp_path / "one")):
        assert execute(run, out, machine=Machine(device="cpu", num_workers=0), report=lambda progress: None) is None
        found[run] = json.loads((out / run.folder / "result.json").read_text())["metrics"]
    assert found[ten]["val_loss"] == found[one]["val_loss"]
    model = load(tmp_path / "ten" / ten.folder)
    dataset = data.load(str(folder), seed=0, image_size=SIZE)
    expected = classification(TenCrops(model), crop_batches(dataset, 40))
    assert found[ten]["test_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found[ten]["test_loss"] != found[one]["test_loss"]


def test_what_has_no_margin_or_several_classes_is_refused(tmp_path):
    squares = data.load(str(bright_squares(tmp_path / "a.npz")), seed=0)
    with pytest.raises(InputError, match=r"images of 8 pixels are held in memory .* image_size above 64"):
        check_crops(squares)
    several = data.load(str(many_squares(tmp_path / "b.npz")), seed=0)
    with pytest.raises(InputError, match="several classes each: leave test_crops out"):
        check_crops(several)
