"""Localisation as an evaluation: class maps and own masks, each by the numbers that `Located` gives for it alone."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from heedful import InputError, attention_maps, build
from heedful.data.batches import normalise
from heedful.data.dataset import ImageArray
from heedful.evaluate.baselines import centre_gaussian
from heedful.evaluate.located import Located, stretched
from heedful.evaluate.maps import evaluate_maps
from heedful.evaluate.object_data import Sample, sample_of
from heedful.evaluate.objects import Objects, from_boxes
from heedful.evaluate.on_objects import localization
from tests.figures_made import class_folders

SIDE = 32
MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.5, 0.4, 0.3)
LEVELS = ("layer2", "layer3")


@pytest.fixture
def sample(tmp_path):
    """With boxes, of all but the first image."""
    class_folders(tmp_path, {"cat": 4, "dog": 3})
    found = sample_of(str(tmp_path), ("cat", "dog"), SIDE)
    lines = [(path.relative_to(tmp_path / "images").as_posix(), (2.0, 3.0, 9.0, 12.0)) for path in found.paths[1:]]
    return Sample(found.name, found.split, found.paths, from_boxes(tmp_path / "images", lines))


def located(maps, sample, kept):
    found = Located()
    pairs = [sample.objects.find(sample.paths[number], SIDE) for number in kept]
    masks, boxes = np.stack([mask for mask, _ in pairs]), [boxes for _, boxes in pairs]
    found.add(maps[kept], masks, boxes, sample.split.labels.numpy()[kept])
    return found.numbers()


def enlarged(maps):
    return F.interpolate(maps.detach()[:, None], (SIDE, SIDE), mode="bilinear")[:, 0].numpy()


def test_every_number_is_that_of_the_map_alone(sample, monkeypatch):
    monkeypatch.setattr("heedful.evaluate.maps.BATCH_SIZE", 3)
    model = build("cifar_resnet8", "pay2-dp", num_classes=2).eval()
    found = localization(model, sample, MEAN, DEVIATION)
    numbers, kept = found.numbers, list(range(1, 7))
    assert (numbers["num_images"], numbers["num_located"], numbers["objects"]) == (7, 6, "boxes")
    assert (numbers["layer"], numbers["method"], numbers["data"]) == ("backbone.layer3", "grad-cam", sample.name)
    images = normalise(sample.split.images, MEAN, DEVIATION)
    large = {level: enlarged(mask) for level, mask in model.masks(images).items()}
    product = np.sqrt(stretched(large["layer2"]) * stretched(large["layer3"]))
    layer = "backbone.layer3"
    class_maps = attention_maps(model, images, layers=[layer], classes=sample.split.labels)[layer][:, 0]
    middle = np.broadcast_to(centre_gaussian(SIDE, SIDE), product.shape)
    expected = {"masks": product, "grad-cam": enlarged(class_maps), "centre_gaussian": middle}
    assert numbers["scores"].keys() == expected.keys()
    assert list(numbers["levels"]) == list(LEVELS)
    for name, maps in {**expected, **large}.items():
        got = numbers["levels" if name in LEVELS else "scores"][name]
        assert got == pytest.approx(located(maps, sample, kept), abs=1e-3), name
    json.dumps(numbers, allow_nan=False)
    assert [(each.name, each.unit) for each in found.headlines] == [
        (f"{number} {name}", "%") for name in ("masks", "grad-cam") for number in ("PxAP", "MaxBoxAccV2")
    ]
    assert found.headlines[0].value == 100 * numbers["scores"]["masks"]["pxap"]


def test_the_class_map_has_the_numbers_of_evaluate_maps(sample):
    model = build("cifar_resnet8", num_classes=2).eval()
    found = localization(model, sample, MEAN, DEVIATION, layer="layer2", method="channel").numbers
    maps = evaluate_maps(model, sample, MEAN, DEVIATION, layer="layer2", method="channel", num_slow=2)
    assert found["scores"] == {"channel": maps["localisation"], "centre_gaussian": maps["centre_gaussian"]}
    assert found["left_out"] == maps["left_out"]
    assert found["levels"] == {}


def test_with_masks_the_headlines_are_pxap_and_jaccard(sample):
    root = sample.paths[0].parents[2]
    masked = Sample("masked", sample.split, sample.paths, Objects(root / "images", masks=root / "masks"))
    found = localization(build("cifar_resnet8", num_classes=2), masked, MEAN, DEVIATION)
    assert [each.name for each in found.headlines] == ["PxAP grad-cam", "Jaccard grad-cam"]
    assert found.numbers["num_located"] == 7


def test_images_that_it_cannot_be_asked_of(sample):
    model = build("cifar_resnet8", num_classes=2)
    with pytest.raises(InputError, match=r"neither boxes.csv nor masks/: give images"):
        localization(model, Sample("bare", sample.split), MEAN, DEVIATION)
    none = Sample("none", sample.split, sample.paths, from_boxes(sample.paths[0].parents[1], []))
    with pytest.raises(InputError, match=r"no image of none is among the boxes: give"):
        localization(model, none, MEAN, DEVIATION)
    several = Sample(
        "several", ImageArray(sample.split.images, torch.ones(7, 2, dtype=torch.int64)), None, none.objects
    )
    with pytest.raises(InputError, match="images with several classes"):
        localization(model, several, MEAN, DEVIATION)
    with pytest.raises(InputError, match="did you mean grad-cam"):
        localization(model, sample, MEAN, DEVIATION, method="grad-can")
