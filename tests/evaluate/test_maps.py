"""The protocol that joins all numbers, on a network whose maps are known."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from heedful import InputError, attention_maps
from heedful.data.batches import normalise
from heedful.data.dataset import ImageArray
from heedful.data.images import to_channels_first
from heedful.evaluate.faithfulness import area, deletion, insertion
from heedful.evaluate.located import stretched
from heedful.evaluate.maps import evaluate_maps
from heedful.evaluate.object_data import Sample
from heedful.evaluate.objects import Objects, from_boxes
from heedful.maps.processing import upsampled
from tests.references import evidence_of_maps as slow
from tests.references import localisation as located

SIDE, COUNT = 16, 70
TOO_SMALL = {"pointing_15px": "they are too large a part of the 16 px that the network sees"}
WITH_OBJECT = [number for number in range(COUNT) if number != 30]
MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.5, 0.4, 0.3)


@pytest.fixture
def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )


@pytest.fixture
def boxes():
    corners = np.random.default_rng(1).integers(0, SIDE - 5, (COUNT, 2))
    return [(float(x), float(y), x + 4.0, y + 4.0) for x, y in corners.tolist()]


@pytest.fixture
def sample(tmp_path, boxes):
    """Noise with a bright square in each image's box; of image 30 the box is not known."""
    pixels = np.random.default_rng(0).integers(0, 100, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    for image, (left, top, right, bottom) in zip(pixels, boxes, strict=True):
        image[int(top) : int(bottom) + 1, int(left) : int(right) + 1] += 120
    paths = [tmp_path / f"{number}.png" for number in range(COUNT)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    labels = torch.arange(COUNT) * 4 // COUNT
    objects = from_boxes(tmp_path, [(paths[number].name, boxes[number]) for number in WITH_OBJECT])
    return Sample("noise", ImageArray(to_channels_first(pixels), labels), tuple(paths), objects)


def normalised_images(sample):
    return normalise(sample.split.images, MEAN, DEVIATION)


def expected_maps(network, sample, layer="1"):
    images, labels = normalised_images(sample), sample.split.labels
    scores = network(images).detach()
    confusing = scores.scatter(1, labels[:, None], -torch.inf).argmax(1)
    return (
        scores,
        confusing,
        attention_maps(network, images, layers=[layer], classes=torch.stack([labels, confusing], 1))[layer],
    )


def test_every_number_is_that_of_its_definition(network, sample, boxes):
    found = evaluate_maps(network, sample, MEAN, DEVIATION, layer="1", num_slow=10)
    scores, confusing, maps = expected_maps(network, sample)
    labels, images = sample.split.labels, normalised_images(sample)
    probabilities = scores.double().softmax(1)
    true, other = (probabilities[range(COUNT), classes].tolist() for classes in (labels, confusing))
    assert found["ks"] == pytest.approx(slow.ks(true, other), abs=1e-6)
    assert (found["layer"], found["method"], found["num_images"], found["data"]) == ("1", "grad-cam", COUNT, "noise")
    blank = maps.amax((2, 3)) == 0
    each = [slow.overlap(*pair) for pair, zero in zip(maps, blank, strict=True) if not zero.any()]
    assert found["overlap"] == pytest.approx(np.mean(each), rel=1e-4)
    assert found["zero_maps"] == blank[:, 0].sum()
    large = upsampled(maps[:, :1], (SIDE, SIDE))[:, 0]
    scores = stretched(large.numpy()[WITH_OBJECT])
    masks = np.zeros((COUNT - 1, SIDE, SIDE), dtype=bool)
    for mask, number in zip(masks, WITH_OBJECT, strict=True):
        for row, column in located.pixels_of(boxes[number]):
            mask[row, column] = True
    hits = np.array([located.points_at(s, m, 0) for s, m in zip(scores, masks, strict=True)])
    of_classes = [hits[labels[WITH_OBJECT] == label].mean() for label in range(4)]
    local = found["localisation"]
    assert local["pointing_0px"] == pytest.approx(np.mean(of_classes), abs=1e-6)
    energies = [located.energy(m, mask) for m, mask in zip(large.double().numpy()[WITH_OBJECT], masks, strict=True)]
    assert local["energy"] == pytest.approx(np.mean(energies), rel=1e-4)
    assert local["pxap"] == pytest.approx(located.average_precision(scores, masks, 1000), abs=1e-4)
    assert found["num_located"] == COUNT - 1
    assert found["objects"] == "boxes"
    middle = found["centre_gaussian"]
    assert middle.keys() == local.keys()
    assert middle["pointing_0px"] == pytest.approx(
        np.mean([masks[labels[WITH_OBJECT] == label][:, SIDE // 2 - 1, SIDE // 2 - 1].mean() for label in range(4)])
    )
    few = torch.arange(10) * COUNT // 10
    for name, curve in {"insertion": insertion, "deletion": deletion}.items():
        assert found[name] == pytest.approx(
            area(curve(network, images[few], large[few], labels[few])).mean().item(), rel=1e-4
        )
    assert found["num_slow"] == 10
    assert list(found["randomisation"]) == ["4", "0"]
    assert found["left_out"] == TOO_SMALL
    assert "pointing_15px" not in local


def test_the_chart_goes_from_0_to_1(network, sample):
    chart = evaluate_maps(network, sample, MEAN, DEVIATION, layer="1", num_slow=2)["chart"]
    assert (chart["probabilities"][0], chart["probabilities"][-1]) == (0, 1)
    assert chart["true"][-1] == chart["confusing"][-1] == 1
    assert chart["true"] == sorted(chart["true"])


def test_it_finds_the_layer_and_leaves_the_network_as_it_was(network, sample):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    assert evaluate_maps(network, sample.limited(5), MEAN, DEVIATION)["layer"] == "1"
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_without_objects_localisation_is_left_out(network, sample):
    bare = Sample("bare", sample.split)
    found = evaluate_maps(network, bare.limited(5), MEAN, DEVIATION)
    assert "localisation" not in found
    assert found["objects"] is None
    assert "neither boxes.csv nor masks/" in found["left_out"]["localisation"]


def test_with_masks_box_accuracy_is_left_out(network, sample, tmp_path):
    (tmp_path / "masks").mkdir()
    for path in sample.paths[:3]:
        Image.fromarray(np.eye(SIDE, dtype=np.uint8)).save(tmp_path / "masks" / path.name)
    masked = Sample("masked", sample.split, sample.paths, Objects(tmp_path, masks=tmp_path / "masks"))
    found = evaluate_maps(network, masked, MEAN, DEVIATION, num_slow=2)
    assert found["num_located"] == 3
    assert "max_box_acc" not in found["localisation"]
    assert found["left_out"] == {**TOO_SMALL, "max_box_acc": "the data have masks, but no boxes"}


def test_objects_that_no_image_has(network, sample, tmp_path):
    none = Sample("none", sample.split, sample.paths, from_boxes(tmp_path, []))
    found = evaluate_maps(network, none.limited(4), MEAN, DEVIATION)
    assert found["left_out"] == {"localisation": "no image of none is among the boxes"}


def test_maps_that_are_zero_everywhere(network, sample):
    network[4].weight.data.fill_(-1)
    found = evaluate_maps(network, sample, MEAN, DEVIATION, num_slow=4)
    assert found["zero_maps"] == COUNT
    assert found["overlap"] is None
    assert found["localisation"]["pointing_0px"] == found["localisation"]["energy"] == 0
    assert found["randomisation"] == {"4": None, "0": None}


def test_method_and_layer_have_an_effect(network, sample):
    numbers = [
        evaluate_maps(network, sample.limited(12), MEAN, DEVIATION, layer=layer, method=method, num_slow=2)[
            "localisation"
        ]
        for layer, method in (("1", "grad-cam"), ("0", "grad-cam"), ("1", "channel"))
    ]
    assert numbers[0] != numbers[1]
    assert numbers[0] != numbers[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"layer": "11"}, "unknown layer '11'"), ({"layer": "1", "method": "grad-can"}, "did you mean grad-cam")],
)
def test_what_is_not_there(network, sample, options, message):
    with pytest.raises(InputError, match=message):
        evaluate_maps(network, sample, MEAN, DEVIATION, **options)


def test_images_with_several_classes(network, sample):
    several = Sample("several", ImageArray(sample.split.images, torch.ones(COUNT, 4, dtype=torch.int64)))
    with pytest.raises(InputError, match="images with several classes"):
        evaluate_maps(network, several, MEAN, DEVIATION)
