"""`heedful explain` of a detector: its boxes against the network fed by hand, its files and page, what is refused."""

import re
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from heedful import InputError, build, cli
from heedful.data.box_batches import box_batches
from heedful.data.boxes import Boxed, upright_size
from heedful.evaluate.detected import seen
from heedful.explain import detections, explain
from heedful.explain.detections import explain_detections, is_detector
from heedful.explain.page import Entry, Found, counted
from heedful.models import saved
from heedful.models.cards import ModelCard
from heedful.models.saved import save
from tests.detectors_made import CLASSES, SIZE, write_detector


def write_image(path, seed=0, width=100, height=75):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_classifier(folder):
    folder.mkdir()
    card = ModelCard("cifar_resnet8", "none", None, ("a", "b"), 16, (0.5,) * 3, (0.2,) * 3)
    save(build("cifar_resnet8", num_classes=2), card, folder)
    return folder


@pytest.fixture
def heedful(monkeypatch, capfd):
    """Run the command in this process; return exit code, standard output and standard error in one line."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["heedful", "explain", *map(str, words), "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return end.value.code or 0, re.sub(r"\x1b\[[0-9;]*m", "", out), " ".join(err.split())

    return call


def prepared(path):
    """The image as a batch of the network's own test images gives it."""
    alone = Boxed(path, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0).bool(), upright_size(path))
    ((image,), _) = next(iter(box_batches((alone,), 1, image_size=SIZE)))
    return image


def test_arrays_hold_what_the_network_fed_by_hand_finds(tmp_path):
    model = write_detector(tmp_path / "run", "cbam")
    sizes = ((100, 75), (61, 93), (200, 40))
    paths = [write_image(tmp_path / "in" / f"{n}.png", n, *size) for n, size in enumerate(sizes)]
    outcome = explain_detections(paths, tmp_path / "run", out=tmp_path / "out", score=0.3, device="cpu")
    assert len(outcome.entries) == 3
    for path, entry in zip(paths, outcome.entries, strict=True):
        image = prepared(path)
        (expected,), masks = model([image]), seen(model, image, least_score=0.3).masks
        kept = expected["scores"] >= 0.3
        with np.load(tmp_path / "out" / f"{path.stem}.detections.npz") as arrays:
            np.testing.assert_array_equal(arrays["image"], (255 * image).round().permute(1, 2, 0))
            np.testing.assert_allclose(arrays["boxes"], expected["boxes"][kept].detach(), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(arrays["scores"], expected["scores"][kept].detach(), rtol=1e-4)
            np.testing.assert_array_equal(arrays["classes"], expected["labels"][kept] - 1)
            assert arrays["names"].tolist() == [CLASSES[label] for label in arrays["classes"]]
            own = {name.removeprefix("masks/"): arrays[name] for name in arrays if "/" in name}
            assert list(own) == list(masks)
            for gate, mask in own.items():
                assert mask.shape == arrays["image"].shape[:2]
                np.testing.assert_allclose(mask, masks[gate], rtol=1e-3)
            found = list(zip(arrays["names"].tolist(), arrays["scores"].tolist(), strict=True))
        assert found
        assert [(each.name, each.probability) for each in entry.found] == found
    assert len(outcome.levels) > 1


def test_the_page_shows_every_picture_and_what_could_not_be_read(tmp_path, heedful):
    write_detector(tmp_path / "run", "cbam")
    write_image(tmp_path / "in" / "a b.png")
    (tmp_path / "in" / "c.png").write_text("no image")
    code, out, _ = heedful(tmp_path / "in", "--model", tmp_path / "run", "--score", 0.3, "--out", tmp_path / "out")
    assert code == 1
    assert "c.png cannot be read: not an image" in out
    assert "page: " in out
    page = (tmp_path / "out" / "index.html").read_text()
    for text in ("What fasterrcnn_resnet18_fpn_small with cbam heeds", "of score 0.3 or more", "× cat", "not an image",
                 'src="a_b.png"', 'href="a_b.detections.npz"', "how attention weighs the places",
                 "of the feature pyramid, where it has 4 × 4 places or more"):  # fmt: skip
        assert text in page
    assert "maps" not in page.split("<body>")[1]
    with Image.open(tmp_path / "out" / "a_b.png") as picture:
        assert picture.size[0] == 1300


def test_where_no_gate_weighs_places_page_and_terminal_say_so(tmp_path, heedful):
    write_detector(tmp_path / "run", "se")
    code, out, _ = heedful(write_image(tmp_path / "a.png"), "--model", tmp_path / "run", "--out", tmp_path / "out")
    said = "Nothing in this network's feature pyramid weighs places, as cbam does"
    assert (code, said in out) == (0, True)
    page = (tmp_path / "out" / "index.html").read_text()
    assert said in page.replace("&#39;", "'")
    assert "how attention weighs" not in page
    assert "boxes as numbers lie beside it" in page
    write_detector(tmp_path / "run", "cbam")
    _, out, _ = heedful(tmp_path / "a.png", "--model", tmp_path / "run", "--out", tmp_path / "out")
    assert said not in out


def test_a_network_on_the_hub_is_loaded_once(tmp_path, heedful, monkeypatch):
    write_detector(tmp_path / "run", "se")
    loaded = []

    def load(model):
        loaded.append(model)
        return saved.load(model)

    for place in (detections, sys.modules["heedful.explain.subject"]):  # whose name in the package is a function's
        monkeypatch.setattr(place, "load", load)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "run"))
    image = write_image(tmp_path / "a.png")
    assert heedful(image, "--model", "someone/detector", "--out", tmp_path / "out")[0] == 0
    assert loaded == ["someone/detector"]

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    code, _, err = heedful(image, "--model", "someone/detector", "--out", tmp_path / "out")
    assert (code, "no such network on the Hub (no route to host)" in err) == (2, True)


def test_a_higher_score_shows_fewer_boxes_and_the_default_is_a_half(tmp_path):
    write_detector(tmp_path / "run")
    path = write_image(tmp_path / "a.png")

    def scores(**options):
        outcome = explain_detections([path], tmp_path / "run", out=tmp_path / "out", **options)
        return [found.probability for found in outcome.entries[0].found]

    everything = scores(score=0.0)
    assert min(everything) < 0.5
    for least in (0.0, 0.2, 0.5):
        assert scores(score=least) == pytest.approx([score for score in everything if score >= least])
    assert scores() == scores(score=0.5)


def test_counts_of_classes_the_most_frequent_first():
    entry = Entry("a", "a", (1, 1), "", [Found("cat", 0.9), Found("dog", 0.8), Found("dog", 0.7)])
    assert counted(entry) == "2 × dog and 1 × cat"
    assert counted(Entry("a", "a", (1, 1), "", [])) == "nothing"


@pytest.mark.parametrize(
    "option",
    [
        ("--layers", "layer2"),
        ("--method", "cam"),
        ("--classes", "cat"),
        ("--smooth", "flip"),
        ("--query", "a.png"),
        ("--batch-size", 4),
    ],
)
def test_options_of_maps_are_refused_for_a_detector(tmp_path, heedful, option):
    write_detector(tmp_path / "run")
    image = write_image(tmp_path / "a.png")
    code, _, err = heedful(image, "--model", tmp_path / "run", "--out", tmp_path / "out", *option)
    assert code == 2
    assert f"this network finds objects, which has no use for {option[0]}: leave it out" in err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_asked(tmp_path, heedful):
    write_detector(tmp_path / "run")
    classifier, image = write_classifier(tmp_path / "classes"), write_image(tmp_path / "a.png")
    code, _, err = heedful(image, "--model", classifier, "--out", tmp_path / "out", "--score", 0.5)
    assert (code, "this network classifies images, which has no use for --score" in err) == (2, True)
    for score in (-0.1, 1.0):
        with pytest.raises(InputError, match=r"score is .*, but it must be in \[0, 1\)"):
            explain_detections([image], tmp_path / "run", out=tmp_path / "out", score=score)
    with pytest.raises(InputError, match="classes finds no objects: give the run of a detector"):
        explain_detections([image], classifier, out=tmp_path / "out")
    with pytest.raises(InputError, match="is a network for detection, which has no maps of classes"):
        explain([image], tmp_path / "run", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_which_networks_are_detectors(tmp_path):
    write_detector(tmp_path / "run")
    assert is_detector(tmp_path / "run")
    assert not is_detector(write_classifier(tmp_path / "classes"))
    assert not is_detector("resnet18")
    assert not is_detector("no such network")
    assert not is_detector(tmp_path)
