import io
import json
import statistics

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from heedful import InputError
from heedful.data.batches import normalise
from heedful.data.dataset import ImageArray, ImageFiles
from heedful.evaluate.attacked_images import sheet
from heedful.evaluate.attacks import fgsm, pgd
from heedful.evaluate.classification import classification
from heedful.evaluate.corruptions import AMOUNTS, CORRUPTIONS, STRENGTHS, corrupted
from heedful.evaluate.epsilons import named, parse_epsilons
from heedful.evaluate.maps import batches_of
from heedful.evaluate.object_data import Sample
from heedful.evaluate.robustness import EPSILONS, robustness
from tests.data_made import save_image

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FEW = (0.0, 1 / 255, 4 / 255, 0.1)
NUM_IMAGES = 70  # more than one batch


@pytest.fixture
def network():
    """Of many predictions, which it changes easily."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, 4)
    )


@pytest.fixture
def sample(network):
    """A third of the labels is chance, the others are what the network says."""
    images = torch.randint(0, 256, (NUM_IMAGES, 3, 8, 8), dtype=torch.uint8)
    labels = predicted(network, normalise(images, MEAN, DEVIATION))
    labels[::3] = torch.randint(0, 4, labels[::3].shape)
    return Sample("noise", ImageArray(images, labels))


@torch.no_grad()
def predicted(network, inputs):
    network.eval()
    found = network(inputs).argmax(1)
    network.train()
    return found


def scaled(pixels):
    return (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)


def test_without_attack_the_error_is_that_of_the_plain_evaluation(network, sample):
    found = robustness(network, sample, MEAN, DEVIATION, epsilons=FEW, steps=2).numbers
    plain = classification(network, batches_of(sample.split, MEAN, DEVIATION, torch.device("cpu")))["error"]
    assert 10 < plain < 40
    assert found["clean_error"] == found["fgsm"]["errors"][0] == found["pgd"]["errors"][0] == plain
    assert found["fgsm"]["fooling_rates"][0] == found["pgd"]["fooling_rates"][0] == 0
    assert network.training


def test_files_are_attacked_as_the_network_sees_them(network, tmp_path):
    paths = tuple(save_image(tmp_path / f"{number}.png", size=20) for number in range(5))
    sample = Sample("files", ImageFiles(paths, torch.tensor([0, 1, 2, 3, 0]), 8))
    found = robustness(network, sample, MEAN, DEVIATION, epsilons=(0.0, 0.5), steps=1, corruptions=True).numbers
    batches = batches_of(sample.split, MEAN, DEVIATION, torch.device("cpu"))
    assert found["clean_error"] == classification(network, batches)["error"]
    (images, labels), *_ = batches
    pixels = (images * torch.tensor(DEVIATION).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)).clamp(0, 1)
    attacked = scaled(fgsm(network, pixels, labels, 0.5, MEAN, DEVIATION).images)
    expected = 100 * (predicted(network, attacked) != labels).double().mean().item()
    assert found["fgsm"]["errors"][1] == pytest.approx(expected, abs=1e-4)


def test_errors_and_fooling_rates_are_counted_over_all_images(network, sample):
    found = robustness(network, sample, MEAN, DEVIATION, epsilons=FEW, steps=3, seed=5).numbers
    images, labels = sample.split.images / 255, sample.split.labels
    right = predicted(network, scaled(images)) == labels
    for place, epsilon in enumerate(FEW[1:], start=1):
        generator = torch.Generator().manual_seed(5)
        attacked = {
            "fgsm": fgsm(network, images, labels, epsilon, MEAN, DEVIATION),
            "pgd": pgd(network, images, labels, epsilon, MEAN, DEVIATION, steps=3, generator=generator),
        }
        for name, expected in attacked.items():
            wrong = predicted(network, scaled(expected.images)) != labels
            assert found[name]["errors"][place] == pytest.approx(100 * int(wrong.sum()) / NUM_IMAGES, abs=1e-4)
            fooled = 100 * sum(bool(w) for w, r in zip(wrong, right, strict=True) if r) / int(right.sum())
            assert found[name]["fooling_rates"][place] == pytest.approx(fooled)
    assert found["fgsm"]["errors"][-1] > found["fgsm"]["errors"][0] + 20
    assert found["pgd"]["errors"][-1] >= found["fgsm"]["errors"][-1]
    assert found["epsilons"] == list(FEW)
    assert (found["data"], found["num_images"]) == ("noise", NUM_IMAGES)
    assert (found["steps"], found["step_size"], found["seed"]) == (3, pytest.approx(2.5 / 3), 5)
    assert found["corruptions"] is found["corruption_error"] is None


def test_the_seed_decides_the_starts(network, sample):
    def errors(seed):
        return robustness(network, sample, MEAN, DEVIATION, epsilons=(0.01, 0.02, 0.04), steps=1, seed=seed).numbers

    assert errors(0) == errors(0)
    assert errors(0)["pgd"]["errors"] != errors(1)["pgd"]["errors"]
    assert errors(0)["fgsm"] == errors(1)["fgsm"]


def test_numbers_do_not_depend_on_the_batches(network, sample, monkeypatch):
    def numbers():
        options = {"epsilons": (0, 0.02), "steps": 1, "corruptions": True}
        return robustness(network, sample, MEAN, DEVIATION, **options).numbers

    whole = numbers()
    monkeypatch.setattr("heedful.evaluate.maps.BATCH_SIZE", 7)
    assert numbers() == whole


class Deaf(nn.Module):
    """Its outputs have no gradient by the pixels of images that are dark, and the right class is 0 for them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        bright = (x.mean((1, 2, 3)) - x.new_tensor(0.5)) * self.scale
        return torch.stack([1e6 * (bright < 0) + 0 * bright, bright.relu()], 1)


def test_images_without_gradient_are_counted():
    images = torch.cat([torch.full((3, 3, 8, 8), 20), torch.full((66, 3, 8, 8), 200)]).to(torch.uint8)
    sample = Sample("grey", ImageArray(images, torch.tensor([0] * 3 + [1] * 66)))
    found = robustness(Deaf(), sample, (0, 0, 0), (1, 1, 1), epsilons=(0, 0.01, 0.02), steps=2).numbers
    for name in ("fgsm", "pgd"):
        assert found[name]["num_without_gradient"] == [None, 3, 3]


def test_corruptions_are_counted(network, sample):
    found = robustness(network, sample, MEAN, DEVIATION, epsilons=(0,), corruptions=True, seed=2)
    labels = sample.split.labels
    errors = []
    for name in CORRUPTIONS:
        numbers = found.numbers["corruptions"][name]
        assert numbers["amounts"] == list(AMOUNTS[name][0])
        for strength, error in zip(STRENGTHS, numbers["errors"], strict=True):
            changed = corrupted(sample.split.images, name, strength, seed=2)
            wrong = predicted(network, normalise(changed, MEAN, DEVIATION)) != labels
            assert error == pytest.approx(100 * int(wrong.sum()) / NUM_IMAGES, abs=1e-4)
            errors.append(error)
    assert found.numbers["corruption_error"] == pytest.approx(statistics.fmean(errors))
    assert found.headlines[-1].name == "corruption error"
    assert found.headlines[-1].value == found.numbers["corruption_error"]
    curves = found.curves[-1]
    assert curves.x == (0, 1, 2, 3, 4, 5)
    assert curves.lines["blur"] == (found.numbers["clean_error"], *found.numbers["corruptions"]["blur"]["errors"])


def test_what_tables_figures_and_files_get(network, sample):
    found = robustness(network, sample, MEAN, DEVIATION, steps=2, classes=["cat", "a $very$ long name of a class"])
    assert [each.name for each in found.headlines] == ["FGSM 8/255 error", "PGD-2 8/255 error"]
    assert {(each.unit, each.better) for each in found.headlines} == {("%", "lower")}
    assert [each.value for each in found.headlines] == [found.numbers[name]["errors"][4] for name in ("fgsm", "pgd")]
    errors, rates = found.curves
    assert errors.x == rates.x == pytest.approx([0, 1, 2, 4, 8, 16])
    assert errors.lines == {
        "FGSM": tuple(found.numbers["fgsm"]["errors"]),
        "PGD-2": tuple(found.numbers["pgd"]["errors"]),
    }
    assert rates.lines["PGD-2"] == tuple(found.numbers["pgd"]["fooling_rates"])
    assert json.loads(json.dumps(found.numbers, allow_nan=False)) == found.numbers
    assert found.numbers["epsilons"] == list(EPSILONS)


@pytest.mark.parametrize(
    ("epsilons", "name"),
    [
        ((0, 0.01, 0.05), "0.01"),
        ((0.25, 0.5), "0.25"),
        ((0, 1 / 255), "1/255"),
        ((0, 8 / 255, 9 / 255), "8/255"),
        ((0, 0.1, 0.3), "0.1"),
        ((0,), "0"),
    ],
)
def test_the_headline_is_at_8_of_255_or_next_below(network, sample, epsilons, name):
    found = robustness(network, sample, MEAN, DEVIATION, epsilons=epsilons, steps=1)
    assert [each.name for each in found.headlines] == [f"FGSM {name} error", f"PGD-1 {name} error"]


def test_no_fooling_rate_where_no_image_is_right(network, sample):
    split = ImageArray(
        sample.split.images, (predicted(network, normalise(sample.split.images, MEAN, DEVIATION)) + 1) % 4
    )
    found = robustness(network, Sample("wrong", split), MEAN, DEVIATION, epsilons=(0, 0.01), steps=1)
    assert found.numbers["clean_error"] == 100
    assert found.numbers["pgd"]["fooling_rates"] == [None, None]
    assert [curves.title for curves in found.curves] == ["Error under attack"]


def test_the_sheet_shows_images_and_their_stretched_changes():
    image = torch.full((2, 3, 8, 8), 0.5)
    attacked = image.clone()
    attacked[0], attacked[1, :, :, :4] = 0.6, 0.4
    labels, fooled = torch.tensor([0, 5]), torch.tensor([1, 5])
    content = sheet([("image", image, labels), ("FGSM", attacked, fooled)], labels, 0.1, ["$cat", "dog"])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    rows = np.array_split(pixels, 2)
    (of_image, _, white), (_, _, halves) = (np.array_split(row, 3, axis=1) for row in rows)
    assert part_of(of_image, 128) > 0.4
    assert part_of(white, 128) < 0.01  # by +ε everywhere
    assert part_of(halves, 0) > 0.2  # the left half by −ε: black
    assert part_of(halves, 128) > 0.2  # the right half not at all: grey
    frames = [(np.abs(row - (0x0A, 0x6B, 0x3D)).max(2) < 3).sum() for row in rows]
    assert frames[1] > 1.8 * frames[0] > 0  # of the first image one version is right, of the second both


def part_of(picture, value):
    return (np.abs(picture - value).max(2) <= 1).mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilons": ()}, "epsilons is empty"),
        ({"epsilons": (0, 0.2, 0.1)}, r"0.1 stands after 0.2, but they must rise"),
        ({"epsilons": (0, 1 / 255, 1 / 255)}, "1/255 stands after 1/255"),
        ({"epsilons": (-0.1, 0)}, r"epsilon is -0.1, but it must be in \[0, 1\]"),
        ({"epsilons": (0, 8)}, "write eight grey levels as 8/255"),
        ({"epsilons": (0, float("nan"))}, "epsilon is nan"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_arguments_that_cannot_be(network, sample, options, message):
    with pytest.raises(InputError, match=message):
        robustness(network, sample, MEAN, DEVIATION, **options)


def test_samples_that_cannot_be(network, sample):
    many = Sample("voc", ImageArray(sample.split.images, torch.ones(NUM_IMAGES, 4, dtype=torch.int64)))
    with pytest.raises(InputError, match="voc has images with several classes"):
        robustness(network, many, MEAN, DEVIATION)
    none = Sample("nothing", ImageArray(sample.split.images[:0], sample.split.labels[:0]))
    with pytest.raises(InputError, match="nothing has no images"):
        robustness(network, none, MEAN, DEVIATION)


def test_epsilons_are_read():
    assert parse_epsilons("0,1/255,2/255, 4/255 ,8/255,16/255") == EPSILONS
    assert parse_epsilons("0,0.01,1e-1,1") == (0, 0.01, 0.1, 1)
    for text, message in {
        "": "epsilons is empty",
        " ": "epsilons is empty",
        "0,x": "'x' is no number: write for example",
        "0,": "'' is no number",
        "1/0": "'1/0' is no number",
        "nan": "'nan' is no number",
        "inf": "'inf' is no number",
        "8": "epsilon is 8",
        "-1/255": "must be in",
        "2/255,1/255": "1/255 stands after 2/255",
    }.items():
        with pytest.raises(InputError, match=message):
            parse_epsilons(text)


def test_epsilons_are_named_in_grey_levels_where_that_is_shorter():
    names = {0.0: "0", 1 / 255: "1/255", 8 / 255: "8/255", 0.2: "0.2", 1.0: "1", 0.01: "0.01", 0.0314: "0.0314"}
    assert {epsilon: named(epsilon) for epsilon in names} == names
