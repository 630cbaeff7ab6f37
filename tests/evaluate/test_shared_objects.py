"""Boxes and masks of real photographs, where the shared data are at hand."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heedful import build
from heedful.evaluate.baselines import centre_gaussian
from heedful.evaluate.evaluations import evaluate_runs
from heedful.evaluate.localisation import average_precision, pixel_counts
from heedful.evaluate.object_data import objects_of, sample_of
from heedful.evaluate.protocols import Asked
from heedful.models.cards import ModelCard
from heedful.models.saved import save

SHARED = Path(__file__).parents[3] / "shared" / "data"
TINY, HORSES = SHARED / "tiny_imagenet_100.tar.xz", SHARED / "weizmann_horses.zip"
NUM_HORSES, NUM_TINY = 24, 15


@pytest.fixture
def horses(tmp_path):
    """In the layout that users make: images/horse/*.jpg and masks/horse/*.png."""
    if not HORSES.is_file():
        pytest.skip("../shared/data has no Weizmann horses")
    with zipfile.ZipFile(HORSES) as archive:
        for name in archive.namelist()[: 2 * NUM_HORSES]:
            folder = tmp_path / {"rgb": "images", "mask": "masks"}[name.split("/")[0]] / "horse"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(name).name).write_bytes(archive.read(name))
    return tmp_path


@pytest.fixture
def tiny(tmp_path):
    """A few training images of the first two classes of Tiny ImageNet, with all their boxes."""
    if not TINY.is_file():
        pytest.skip("../shared/data has no Tiny ImageNet")
    with tarfile.open(TINY) as archive:
        boxes = 0
        while boxes < 2:
            member = archive.next()
            name = Path(member.name).stem
            boxes += name.endswith("_boxes")
            if name.endswith("_boxes") or (name.count("_") == 1 and int(name.split("_")[1]) < NUM_TINY):
                archive.extract(member, tmp_path, filter="data")
    return tmp_path / "tiny-imagenet-200" / "train"


def precision_of_the_middle(masks):
    """Of the centre Gaussian, and of a map that says nothing."""
    middle = np.broadcast_to(centre_gaussian(*masks.shape[1:]), masks.shape)
    return [float(average_precision(pixel_counts(maps, masks).sum(0))) for maps in (middle, np.zeros(masks.shape))]


@pytest.mark.parametrize("size", [48, 96])
def test_horses_are_in_the_middle(horses, size):
    sample = sample_of(str(horses), ("cow", "horse"), size)
    assert len(sample.paths) == NUM_HORSES
    assert set(sample.split.labels.tolist()) == {1}
    masks = np.stack([sample.objects.find(path, size)[0] for path in sample.paths])
    assert (masks.mean((1, 2)) > 0.02).all()
    middle, nothing = precision_of_the_middle(masks)
    assert middle > 1.5 * nothing


def test_a_run_on_horses(horses, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    save(
        build("cifar_resnet8", num_classes=2),
        ModelCard("cifar_resnet8", "none", None, ("cow", "horse"), 32, (0.5,) * 3, (0.25,) * 3),
        folder,
    )
    found = evaluate_runs([folder], on="maps", asked=Asked(source=str(horses)))[str(folder)].numbers
    assert found["num_located"] == NUM_HORSES
    assert 0 < found["localisation"]["pxap"] < 1
    assert "15px" not in str(found["centre_gaussian"])
    assert "pointing_15px" in found["left_out"]
    json.dumps(found, allow_nan=False)


def test_boxes_of_tiny_imagenet(tiny):
    objects = objects_of(tiny)
    sample = sample_of(str(tiny), sorted(path.name for path in tiny.iterdir()), 64)
    assert len(sample.paths) == 2 * NUM_TINY
    lines = {
        line.split("\t")[0]: line.split("\t")[1:]
        for path in tiny.glob("*/*.txt")
        for line in path.read_text().splitlines()
    }
    for path in sample.paths:
        left, top, right, bottom = map(int, lines[path.name])
        mask, boxes = objects.find(path, 64)
        assert boxes.tolist() == [[left, top, right, bottom]]
        assert mask.sum() == (right - left + 1) * (bottom - top + 1)
        with Image.open(path) as image:
            assert image.size == (64, 64)
    assert objects.without_area == sum(box[0] == box[2] or box[1] == box[3] for box in lines.values())
    middle, nothing = precision_of_the_middle(np.stack([objects.find(path, 64)[0] for path in sample.paths]))
    assert middle > 1.1 * nothing
