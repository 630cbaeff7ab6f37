"""Segmentation by masks and maps: every number from its definition, image by image, and networks that are known."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.filters import threshold_otsu
from sklearn.metrics import accuracy_score, jaccard_score
from torch import nn
from torch.nn import functional as F

from heedful import InputError, attention_maps, build
from heedful.data.batches import normalise
from heedful.data.images import read_square, to_channels_first
from heedful.evaluate import segmentation_sheet
from heedful.evaluate.baselines import centre_gaussian
from heedful.evaluate.figure_scores import class_named, has_cam
from heedful.evaluate.localisation import above_otsu, jaccard
from heedful.evaluate.segmentation import segmentation
from heedful.evaluate.segmentation_sheet import Row, sheet
from heedful.models.cards import ModelCard
from heedful.models.pay_attention import PayAttention
from tests.figures_made import SIDE, class_folders
from tests.references import localisation as slow

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.5, 0.4, 0.3)
CARD = ModelCard("made", "none", None, ("cat", "dog", "eel"), SIDE, MEAN, DEVIATION)
COUNTS = {"dogs": 3, "zebra": 2}
LEVELS = ("0", "1")


def backbone():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


@pytest.fixture
def model():
    torch.manual_seed(2)
    found = PayAttention(backbone(), LEVELS, compatibility="dp", example=torch.zeros(1, 3, SIDE, SIDE)).eval()
    found.head.linear.bias.data[2] = 5  # predicts no dog
    return found


@pytest.fixture
def source(tmp_path):
    return class_folders(tmp_path, COUNTS)


def bright_finder():
    """Return a network whose only mask is high on bright places, and has the resolution of the image."""
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    model = PayAttention(network, ["0"], example=torch.zeros(1, 3, SIDE, SIDE)).eval()
    nn.init.constant_(model.attention["at_0"].compatibility.weight, 0.01)  # small, so that the softmax is about linear
    return model


def stretch(map_):
    return (map_ - map_.min()) / (map_.max() - map_.min())


def by_hand(model, source, fuse):
    """Return {kind: {group: [(Jaccard, accuracy) of each image]}}."""
    found = {}
    for path in sorted((source / "images").glob("*/*.png")):
        group = path.parent.name
        image = normalise(to_channels_first(read_square(path, SIDE)[None].copy()), MEAN, DEVIATION)
        large = [
            stretch(
                F.interpolate(model.masks(image)[level][:, None], (SIDE, SIDE), mode="bilinear")[0, 0].detach().numpy()
            )
            for level in LEVELS
        ]
        one = 1 if group == "dogs" else model(image).argmax().item()
        class_map = attention_maps(model, image, layers=["backbone.1"], classes=torch.tensor([one]))["backbone.1"]
        fusions = {"product": (large[0] * large[1]) ** 0.5, "mean": (large[0] + large[1]) / 2, "1": large[1]}
        scores = {
            "0": large[0], "1": large[1], "masks": fusions[fuse],
            "grad-cam": F.interpolate(class_map, (SIDE, SIDE), mode="bilinear")[0, 0].numpy(),
            "centre_gaussian": centre_gaussian(SIDE, SIDE),
        }  # fmt: skip
        truth = np.asarray(Image.open(source / "masks" / group / path.name))
        for kind, score in scores.items():
            above = (score > slow.otsu(score.astype(float))).ravel()
            pair = jaccard_score(truth.ravel(), above), accuracy_score(truth.ravel(), above)
            found.setdefault(kind, {}).setdefault(group, []).append(pair)
    return found


@pytest.mark.parametrize("fuse", ["product", "mean", "1"])
def test_every_number_is_that_of_its_definition(model, source, fuse, monkeypatch):
    monkeypatch.setattr("heedful.evaluate.maps.BATCH_SIZE", 2)
    found = segmentation(model, CARD, str(source), fuse=fuse).numbers
    expected = by_hand(model, source, fuse)
    assert (found["data"], found["num_images"], found["num_without_figure"]) == (source.name, 5, 0)
    assert (found["layer"], found["fuse"], found["map_of"]) == ("backbone.1", fuse, {"dogs": "dog", "zebra": None})
    assert list(found["levels"]) == list(LEVELS)
    assert list(found["scores"]) == ["masks", "grad-cam", "centre_gaussian"]
    for kind, numbers in {**found["levels"], **found["scores"]}.items():
        for place, name in enumerate(("jaccard", "pixel_accuracy")):
            of_groups = {group: np.mean([pair[place] for pair in pairs]) for group, pairs in expected[kind].items()}
            assert {group: each[name] for group, each in numbers["classes"].items()} == pytest.approx(of_groups)
            assert numbers[name] == pytest.approx(np.mean(list(of_groups.values())))
    json.dumps(found, allow_nan=False)


def test_headlines_are_of_the_networks_own_masks_and_of_its_class_maps(model, source):
    found = segmentation(model, CARD, str(source))
    assert [(each.name, each.unit, each.better) for each in found.headlines] == [
        ("Jaccard masks", "%", "higher"),
        ("Jaccard grad-cam", "%", "higher"),
    ]
    assert found.headlines[0].value == 100 * found.numbers["scores"]["masks"]["jaccard"]
    plain = segmentation(backbone(), CARD, str(source))
    assert [each.name for each in plain.headlines] == ["Jaccard grad-cam"]
    assert plain.numbers["levels"] == {}
    assert list(plain.numbers["scores"]) == ["grad-cam", "cam", "centre_gaussian"]


@pytest.mark.parametrize("scale", [1, -1])
def test_a_mask_that_is_the_figure_and_one_that_is_all_but_the_figure(source, scale):
    model = bright_finder()
    model.attention["at_0"].compatibility.weight.data.mul_(scale)
    numbers = segmentation(model, CARD, str(source)).numbers
    for each in (numbers["scores"]["masks"], numbers["levels"]["0"]):
        assert each["jaccard"] == each["pixel_accuracy"] == (1 if scale == 1 else 0)
    assert 0 < numbers["scores"]["centre_gaussian"]["jaccard"] < 1


def test_an_image_without_a_figure_has_no_jaccard(source):
    Image.new("1", (SIDE, SIDE)).save(source / "masks" / "dogs" / "1.png")
    numbers = segmentation(bright_finder(), CARD, str(source)).numbers
    assert numbers["num_without_figure"] == 1
    masks = numbers["scores"]["masks"]
    assert masks["jaccard"] == 1
    assert 0.9 < masks["classes"]["dogs"]["pixel_accuracy"] < 1
    for path in (source / "masks").glob("dogs/*.png"):
        Image.new("1", (SIDE, SIDE)).save(path)
    masks = segmentation(bright_finder(), CARD, str(source)).numbers["scores"]["masks"]
    assert masks["classes"]["dogs"]["jaccard"] is None
    assert masks["jaccard"] == 1
    for path in (source / "masks").glob("*/*.png"):
        Image.new("1", (SIDE, SIDE)).save(path)
    with pytest.raises(InputError, match=r"no image of .* has a figure"):
        segmentation(bright_finder(), CARD, str(source))


def test_gates_of_places_count_as_masks(source):
    model = build("cifar_resnet8", "cbam", num_classes=3)
    card = ModelCard("cifar_resnet8", "cbam", None, CARD.classes, 32, MEAN, DEVIATION)
    model.train()
    numbers = segmentation(model, card, str(source), limit=2).numbers
    assert model.training
    assert numbers["num_images"] == 2
    assert [name.split(".")[0] for name in numbers["levels"]] == ["layer1", "layer2", "layer3"]
    assert "masks" in numbers["scores"]


def test_layer_has_an_effect(model, source):
    found = [segmentation(model, CARD, str(source), layer=layer).numbers["scores"] for layer in (None, "backbone.0")]
    assert found[0]["grad-cam"] != found[1]["grad-cam"]
    assert found[0]["masks"] == found[1]["masks"]


def test_what_cannot_be_asked(model, source):
    with pytest.raises(InputError, match="unknown fusion 'produkt': did you mean product"):
        segmentation(model, CARD, str(source), fuse="produkt")
    assert "masks" not in segmentation(backbone(), CARD, str(source), fuse="0").numbers["scores"]  # a control
    with pytest.raises(InputError, match="unknown layer"):
        segmentation(model, CARD, str(source), layer="backbone.9")
    with pytest.raises(InputError, match="limit is 0"):
        segmentation(model, CARD, str(source), limit=0)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("Horse100", "horse"), ("horses", "horse"), ("HORSE_2", "horse"), ("seahorse", None), ("horsey", None),
     ("horse", "horse"), ("sea horse 3", "sea horse"), ("buses", "bus"), ("weizmann_horses", None)],
)  # fmt: skip
def test_the_class_that_a_folder_is_named_after(folder, expected):
    assert class_named(folder, ("horse", "sea", "sea horse", "bus")) == expected


def test_cam_is_there_where_scores_are_linear_in_the_means(model):
    images = torch.randn(2, 3, SIDE, SIDE)
    assert has_cam(backbone(), images, "1")
    assert not has_cam(backbone(), images, "0")
    assert not has_cam(model, images, "backbone.1")


def test_jaccard_and_otsu_are_the_libraries():
    rng = np.random.default_rng(0)
    # A few values that stand in the middle of bins, where scikit-image's own histogram is exact too.
    scores = rng.integers(0, 256, (4, 9, 9)) / 255
    masks = rng.random((4, 9, 9)) > 0.6
    above = above_otsu(scores)
    for score, each in zip(scores, above, strict=True):
        assert (each == (np.rint(255 * score) > threshold_otsu(np.rint(255 * score).astype(np.uint8)))).all()
    expected = [jaccard_score(mask.ravel(), each.ravel()) for mask, each in zip(masks, above, strict=True)]
    np.testing.assert_allclose(jaccard(above, masks), expected)
    np.testing.assert_allclose(jaccard(masks, masks), 1)
    assert jaccard(np.zeros((1, 2, 2), dtype=bool), np.zeros((1, 2, 2), dtype=bool)).tolist() == [0]
    with pytest.raises(InputError, match="bring both to the size"):
        jaccard(above, masks[:3])


def test_the_sheet_has_a_picture_for_every_map(source):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), rng.random((SIDE, SIDE)) > 0.5
    maps = {name: rng.random((SIDE, SIDE)) for name in ("a", "b", "c", "d", "masks", "grad-cam")}
    levels = {name: maps[name] for name in "abcd"}
    sizes = []
    for own, scores in ((levels, ("masks", "grad-cam")), ({}, ("grad-cam",))):
        row = Row("cat", image, mask, own, {name: maps[name] for name in scores})
        sizes.append(Image.open(io(sheet([row, row]))).size)
    assert sizes[0][0] > 2 * sizes[1][0] * 0.9
    assert Image.open(io(segmentation(bright_finder(), CARD, str(source)).pictures["segmentation"])).format == "PNG"


def test_what_was_found_is_shown_and_the_rest_greyed_and_its_agreement_written():
    image = np.full((SIDE, SIDE, 3), 250, dtype=np.uint8)
    score = np.zeros((SIDE, SIDE))
    score[:, : SIDE // 2] = 1
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[: SIDE // 2, : SIDE // 2] = True
    figure, heeded, found = segmentation_sheet._pictures(Row("cat", image, mask, {}, {"grad-cam": score}))
    assert (figure[:2], heeded[:2]) == (("cat", "figure 25 %"), ("grad-cam", "Jaccard 0.50"))
    assert found[:2] == ("found", "50 % of pixels")
    side = found[2].shape[0]
    kept, greyed = found[2][side * 3 // 4, side // 4], found[2][side * 3 // 4, side * 3 // 4]
    assert kept.tolist() == [250] * 3
    assert greyed.tolist() == [165] * 3  # 85 % of the way to 150


def io(content):
    from io import BytesIO

    return BytesIO(content)


HORSES = Path(__file__).parents[3] / "shared" / "data" / "weizmann_horses.zip"


def test_weizmann_horses_as_they_unpack(tmp_path):
    if not HORSES.is_file():
        pytest.skip("../shared/data has no Weizmann horses")
    import zipfile

    with zipfile.ZipFile(HORSES) as archive:
        for name in [name for name in archive.namelist() if name.endswith(("1.jpg", "1.png"))]:
            archive.extract(name, tmp_path / "horses")
    model = build("cifar_resnet8", "pay2-dp", num_classes=2)
    card = ModelCard("cifar_resnet8", "pay2-dp", None, ("cow", "horse"), 32, MEAN, DEVIATION)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = segmentation(model, card, str(tmp_path / "horses"), limit=20).numbers
    assert (numbers["num_images"], numbers["map_of"]) == (20, {"horses": "horse"})
    assert 0.2 < numbers["scores"]["centre_gaussian"]["jaccard"] < 0.6
