"""A network's features on other data: what is read, how it is seen, and domains."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heedful
from heedful import InputError, data
from heedful.data.images import read_square
from heedful.evaluate.linear_probe import Featured, probe
from heedful.evaluate.linear_svm import linear_svm
from heedful.evaluate.transfer import domains_of, transfer
from heedful.models.cards import ModelCard
from tests.data_made import bright_squares, many_squares, save_image

SIDE = 8
CARD = ModelCard("cifar_resnet8", "none", None, ("a", "b"), SIDE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))


def pixels(num_classes=2):
    """Return a network whose features are the pixels that it is given."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, num_classes))


def halves(root, name, *, count=8, side=SIDE, bright=("left", "right"), seed=0):
    """Write images of two classes, `left` and `right`; the brighter half is of the side that `bright` says."""
    rng = np.random.default_rng(seed)
    for folder, shown in zip(("left", "right"), bright, strict=True):
        for number in range(count):
            image = rng.integers(0, 100, (side, side, 3), dtype=np.uint8)
            half = slice(0, side // 2) if shown == "left" else slice(side // 2, side)
            image[:, half] += 150
            path = root / name / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def test_the_numbers_are_those_of_the_features_of_the_images(tmp_path):
    source = bright_squares(tmp_path / "squares.npz", per_class=16, with_test=True)
    model = heedful.build("cifar_resnet8", "se", num_classes=2)
    found = transfer(model, CARD, str(source))
    pool = data.read(str(source), SIDE)
    seen = []
    hook = model.fc.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    model.eval()(data.normalise(pool.images, CARD.mean, CARD.deviation))
    hook.remove()
    expected = probe(Featured("squares", pool.classes, seen[0], pool.labels, pool.given))
    assert found.numbers == {"data": "squares", "num_images": 48, **expected}
    (headline,) = found.headlines
    assert (headline.name, headline.value, headline.unit, headline.better) == (
        "accuracy", expected["accuracy"], "%", "higher",
    )  # fmt: skip


class Seeing(nn.Module):
    """Remembers what it was given."""

    def __init__(self, side):
        super().__init__()
        self.last = nn.Linear(3 * side**2, 2)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return self.last(images.flatten(1))


@pytest.mark.parametrize("side", [SIDE, 72])
def test_images_have_the_size_and_the_normalisation_of_the_runs(tmp_path, side):
    halves(tmp_path, "photos", count=6, side=96, seed=1)
    model = Seeing(side)
    card = ModelCard("cifar_resnet8", "none", None, ("a", "b"), side, CARD.mean, CARD.deviation)
    numbers = transfer(model, card, str(tmp_path / "photos"), num_seeds=1).numbers
    assert numbers["classes"] == ["left", "right"]  # the source's, not the network's
    batch = torch.cat(model.seen[1:])  # after the one image by which the last map is found
    assert batch.shape == (12, 3, side, side)
    if side == SIDE:  # larger ones are read as training reads files: the middle of a larger picture
        first = read_square(tmp_path / "photos" / "left" / "0.png", side) / 255
        expected = (first - CARD.mean) / CARD.deviation
        np.testing.assert_allclose(batch[0].permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-5)


def test_what_can_be_seen_in_pixels_is_told_apart(tmp_path):
    halves(tmp_path, "photos", count=12)
    found = transfer(pixels(), CARD, str(tmp_path / "photos"), num_seeds=2)
    assert found.numbers["accuracies"] == [100, 100]
    assert found.numbers["dimension"] == 3 * SIDE**2
    few = transfer(pixels(), CARD, str(tmp_path / "photos"), num_seeds=3, train_per_class=2)
    assert (few.numbers["num_train"], few.numbers["num_test"], len(few.numbers["c"])) == (4, 20, 3)


@pytest.fixture
def domains(tmp_path):
    """Three domains; in `mirror` the classes are the wrong way round."""
    root = tmp_path / "pictures"
    halves(root, "photo", seed=1)
    halves(root, "sketch", count=6, seed=2)
    halves(root, "mirror", count=4, seed=3, bright=("right", "left"))
    (root / "SOURCE.txt").write_text("where from\n")
    return root


def test_of_domains_each_is_left_out_once(domains):
    found = transfer(pixels(), CARD, str(domains), num_seeds=2)
    numbers = found.numbers
    assert (numbers["data"], numbers["num_images"], numbers["num_classes"]) == ("pictures", 36, 2)
    assert numbers["domains"] == {"mirror": 8, "photo": 16, "sketch": 12}
    assert numbers["from_to"] == {
        "mirror": {"photo": 0, "sketch": 0},
        "photo": {"mirror": 0, "sketch": 100},
        "sketch": {"mirror": 0, "photo": 100},
    }
    sizes = {name: (each["num_train"], each["num_test"]) for name, each in numbers["held_out"].items()}
    assert sizes == {"mirror": (28, 8), "photo": (20, 16), "sketch": (24, 12)}
    assert numbers["held_out"]["mirror"]["accuracy"] == 0
    assert {name: each["accuracy"] for name, each in numbers["within"].items()} == dict.fromkeys(
        ("mirror", "photo", "sketch"), 100
    )
    mean = np.mean([each["accuracy"] for each in numbers["held_out"].values()])
    assert found.headlines[0].value == numbers["accuracy"] == pytest.approx(mean)


def test_a_machine_for_new_domains_learns_from_all_images_of_the_others(domains):
    numbers = transfer(pixels(), CARD, str(domains), num_seeds=1).numbers
    rows, labels, parts = [], [], []
    for part, name in enumerate(("mirror", "photo", "sketch")):
        pool = data.read(str(domains / name), SIDE)
        rows.append(pool.images.flatten(1).double().numpy() / 255)
        labels.append(pool.labels.numpy())
        parts += [part] * len(pool.labels)
    rows, labels, parts = np.concatenate(rows), np.concatenate(labels), np.array(parts)
    machine = linear_svm(rows[parts != 1], labels[parts != 1], ("left", "right"), seed=0)
    expected = 100 * (machine.predicted(rows[parts == 1]) == labels[parts == 1]).mean()
    assert numbers["held_out"]["photo"]["accuracy"] == pytest.approx(expected)
    assert numbers["held_out"]["photo"]["c"] == machine.c


def test_domains_are_told_from_classes(domains, tmp_path):
    assert [path.name for path in domains_of(str(domains))] == ["mirror", "photo", "sketch"]
    assert domains_of(str(domains / "photo")) == ()
    assert domains_of("digits") == ()
    for part in ("train", "test"):
        halves(tmp_path / "split", part, count=1)
    assert domains_of(str(tmp_path / "split")) == ()
    for name in ("cat", "dog"):
        save_image(tmp_path / "deep" / name / f"of the {name}s" / "1.png")
    assert domains_of(str(tmp_path / "deep")) == ()
    (domains / "labels.csv").write_text("path,a,b\n")
    assert domains_of(str(domains)) == ()


def test_a_domain_without_one_of_the_classes_is_named(domains):
    save_image(domains / "photo" / "above" / "1.png")
    with pytest.raises(InputError, match=r"photo holds above/, left/, right/ and mirror left/, right/: domains hold"):
        domains_of(str(domains))


@pytest.mark.parametrize(
    "folders", [("p/a", "p/b", "q/a", "q/c"), ("p/train/a", "p/train/b", "q/train/a", "q/train/b")]
)
def test_folders_that_may_be_domains_are_not_taken_for_classes(tmp_path, folders):
    for folder in folders:
        save_image(tmp_path / "d" / folder / "1.png")
    with pytest.raises(InputError, match="its folders seem to be domains"):
        transfer(pixels(), CARD, str(tmp_path / "d"))


def test_domains_whose_lists_name_other_classes_are_refused(domains):
    for name in ("train.txt", "test.txt"):
        save_image(domains / "photo" / "left" / f"{name}.png")
        save_image(domains / "photo" / "right" / f"{name}.png")
    for domain, classes in (("photo", "left right"), ("sketch", "left right"), ("mirror", "left right")):
        for kind in classes.split():
            images = sorted((domains / domain / kind).iterdir())
            half = len(images) // 2
            for name, part in (("train.txt", images[:half]), ("test.txt", images[half:])):
                path = domains / domain / name
                before = path.read_text() if path.exists() else ""
                path.write_text(before + "".join(f"{kind}/{image.name}\n" for image in part))
    assert transfer(pixels(), CARD, str(domains), num_seeds=1).numbers["num_classes"] == 2
    for kind in ("down", "up"):  # the same folders everywhere, and lists of other classes in one
        for domain in ("photo", "sketch", "mirror"):
            for number in range(4):
                save_image(domains / domain / kind / f"{number}.png")
    for name, numbers in (("train.txt", (0, 1)), ("test.txt", (2, 3))):
        lines = [f"{kind}/{number}.png\n" for kind in ("down", "up") for number in numbers]
        (domains / "photo" / name).write_text("".join(lines))
    with pytest.raises(InputError, match="domain photo has the classes"):
        transfer(pixels(), CARD, str(domains), num_seeds=1)


def test_domains_that_are_links_to_folders_of_one_name_are_two(domains, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("photo", "sketch"):
        (tmp_path / name).mkdir()
        (domains / name).rename(tmp_path / name / "files")
        (linked / name).symlink_to(tmp_path / name / "files")
    numbers = transfer(pixels(), CARD, str(linked), num_seeds=1).numbers
    assert numbers["domains"] == {"photo": 16, "sketch": 12}


def test_images_with_masks_beside_them_are_no_domains(tmp_path):
    halves(tmp_path / "horses", "images", count=8, seed=1)
    halves(tmp_path / "horses", "masks", count=8, seed=2)
    numbers = transfer(pixels(), CARD, str(tmp_path / "horses"), num_seeds=1).numbers
    assert (numbers["num_images"], numbers["num_classes"]) == (16, 2)


def test_data_that_cannot_be_learnt_from_are_refused(tmp_path):
    several = many_squares(tmp_path / "several.npz")
    with pytest.raises(InputError, match="several has images with several classes, but an SVM learns from one"):
        transfer(pixels(), CARD, str(several))
    save_image(tmp_path / "one" / "left" / "1.png")
    with pytest.raises(InputError, match="one holds one class, 'left', so there is nothing to tell apart"):
        transfer(pixels(), CARD, str(tmp_path / "one"))
    (tmp_path / "one" / "right").mkdir()
    with pytest.raises(InputError, match=r"class folder .*right holds no images"):
        transfer(pixels(), CARD, str(tmp_path / "one"))
    save_image(tmp_path / "one" / "right" / "1.png")
    with pytest.raises(InputError, match=r"class 'left' of one has 1 images outside a given test split"):
        transfer(pixels(), CARD, str(tmp_path / "one"))
    with pytest.raises(InputError, match="no such file or folder"):
        transfer(pixels(), CARD, str(tmp_path / "elsewhere"))


def test_arguments_are_looked_at_before_any_image(tmp_path):
    def read(*_):
        raise AssertionError("read")

    with pytest.raises(InputError, match="num_seeds is 0"):
        transfer(pixels(), CARD, "digits", num_seeds=0, read=read)
    with pytest.raises(InputError, match="train_per_class is 1"):
        transfer(pixels(), CARD, "digits", train_per_class=1, read=read)
    with pytest.raises(AssertionError, match="read"):
        transfer(pixels(), CARD, "digits", read=read)


def test_a_network_of_grey_images_is_refused(tmp_path):
    halves(tmp_path, "photos", count=3)
    card = ModelCard("cifar_resnet8", "none", None, ("a", "b"), SIDE, (0.5,), (0.2,), in_channels=1)
    with pytest.raises(InputError, match="takes images of 1 channels"):
        transfer(pixels(), card, str(tmp_path / "photos"))
