"""`heedful explain`: its maps against the network fed by hand, its files and page, and what can go wrong."""

import html.parser
import re
import sys
import urllib.parse

import numpy as np
import pytest
import torch
from PIL import Image

from heedful import attention_maps, build, cli
from heedful.data.dataset import ImageFiles
from heedful.data.file_batches import file_batches
from heedful.errors import InputError
from heedful.explain import explain
from heedful.explain.images import image_files, shown_names, stems
from heedful.explain.page import MARK
from heedful.explain.question import Question, chosen
from heedful.explain.subject import subject
from heedful.maps.classes import Top
from heedful.models.cards import ModelCard
from heedful.models.saved import save

MEAN, DEVIATION = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES = ("cat", "Dog", "house, small", "dog house")


def write_image(path, seed=0, width=40, height=30, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def write_run(folder, *, classes=CLASSES, size=16, model="cifar_resnet8", variant="none"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    network = build(model, variant, num_classes=len(classes))
    save(network, ModelCard(model, variant, None, classes, size, MEAN, DEVIATION), folder)
    return network.eval()


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run"), tmp_path / "run"


@pytest.fixture
def heedful(monkeypatch, capfd):
    """Run the command in this process; return exit code, standard output and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["heedful", "explain", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return end.value.code or 0, re.sub(r"\x1b\[[0-9;]*m", "", out), err

    return call


def middle_square(path, size):
    """The network's view by hand: the middle square, scaled by Pillow, normalised."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    normalised = (pixels / 255.0 - np.array(MEAN)) / np.array(DEVIATION)
    return pixels, torch.tensor(normalised, dtype=torch.float32).permute(2, 0, 1)[None]


def test_a_network_that_pays_attention_shows_its_own_masks(tmp_path):
    network = write_run(tmp_path / "run", variant="pay2-dp")
    paths = [write_image(tmp_path / "in" / f"{seed}.png", seed) for seed in range(3)]
    outcome = explain(paths, tmp_path / "run", out=tmp_path / "out", batch_size=2)
    assert outcome.levels == ("layer2", "layer3")
    for n, path in enumerate(paths):
        expected = network.masks(middle_square(path, 16)[1])
        with np.load(tmp_path / "out" / f"{n}.maps.npz") as arrays:
            assert [name for name in arrays if name.startswith("masks/")] == ["masks/layer2", "masks/layer3"]
            for level, mask in expected.items():
                np.testing.assert_allclose(arrays[f"masks/{level}"], mask[0].detach().numpy(), rtol=1e-4, atol=1e-7)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "own, at layer2 and layer3" in page
    assert "last row of each picture" in page


def test_arrays_hold_the_maps_of_the_network_fed_by_hand(run, tmp_path):
    network, folder = run
    paths = [write_image(tmp_path / "in" / f"{seed}.png", seed) for seed in range(3)]
    explain(
        paths, folder, out=tmp_path / "out", layers=["layer2", "layer3"], method="channel", classes="top3", batch_size=2
    )
    for path in paths:
        pixels, image = middle_square(path, 16)
        with np.load(tmp_path / "out" / f"{path.stem}.maps.npz") as arrays, torch.no_grad():
            scores = network(image)[0]
            order = scores.argsort(descending=True)[:3]
            np.testing.assert_array_equal(arrays["image"], pixels)
            np.testing.assert_array_equal(arrays["classes"], order)
            assert arrays["names"].tolist() == [CLASSES[number] for number in order]
            exponentials = np.exp(scores.double().numpy())
            np.testing.assert_allclose(arrays["probabilities"], (exponentials / exponentials.sum())[order], rtol=1e-4)
            for layer in ("layer2", "layer3"):
                expected = attention_maps(network, image, layers=[layer], classes=order[None], method="channel")[layer]
                np.testing.assert_allclose(arrays[f"maps/{layer}"], expected[0], rtol=1e-3, atol=1e-6)
                assert arrays[f"maps/{layer}"].max() > 0


def test_large_images_are_prepared_as_the_test_images_of_a_run_were(tmp_path):
    write_run(tmp_path / "run", size=72)
    path = write_image(tmp_path / "a.png", width=130, height=100)
    network = subject(tmp_path / "run")
    files = ImageFiles((path,), torch.zeros(1, dtype=torch.int64), 72)
    expected, _ = next(iter(file_batches(files, MEAN, DEVIATION, 1)))
    torch.testing.assert_close(network.normalised(network.read(path)[None]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_networks_of_timm_see_images_as_timm_prepares_them(tmp_path, name):
    import timm
    from timm.data import create_transform, resolve_model_data_config

    path = write_image(tmp_path / "a.png", width=300, height=210)
    network = subject(name, pretrained=False)
    config = resolve_model_data_config(timm.create_model(name))
    expected = create_transform(**config, is_training=False)(Image.open(path))
    found = network.normalised(network.read(path)[None])[0]
    assert tuple(found.shape[1:]) == network.size
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert network.classes[1] == "goldfish"
    assert network.numbers("n01443537") == [1]
    assert "random" in network.warning


def test_maps_do_not_depend_on_the_batch_and_memory_holds_one(run, tmp_path, monkeypatch):
    paths = [write_image(tmp_path / "in" / f"{seed}.png", seed) for seed in range(5)]
    reports, sizes = [], []
    answer = Question.answer

    def noted(self, model, images):
        sizes.append(len(images))
        return answer(self, model, images)

    monkeypatch.setattr(Question, "answer", noted)
    for batch_size in (2, 5):
        explain(
            paths,
            run[1],
            out=tmp_path / str(batch_size),
            batch_size=batch_size,
            report=lambda *done: reports.append(done),
        )
    assert sizes == [1, 2, 2, 1, 1, 5]  # each time a grey image first
    assert reports == [(0, 5), (2, 5), (4, 5), (5, 5), (0, 5), (5, 5)]
    for path in paths:
        name = f"{path.stem}.maps.npz"
        with np.load(tmp_path / "2" / name) as two, np.load(tmp_path / "5" / name) as five:
            assert set(two) == set(five)
            np.testing.assert_array_equal(two["classes"], five["classes"])
            maps = [key for key in two if key.startswith("maps/")]
            np.testing.assert_allclose(two[maps[0]], five[maps[0]], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("smooth", ["flip", "noise"])
def test_smoothing_changes_the_maps_and_not_the_classes(run, tmp_path, smooth):
    path = write_image(tmp_path / "a.png")
    found = {}
    for how in ("none", smooth):
        explain([path], run[1], out=tmp_path / how, smooth=how, layers=["layer3"])
        with np.load(tmp_path / how / "a.maps.npz") as arrays:
            found[how] = dict(arrays)
    np.testing.assert_array_equal(found["none"]["probabilities"], found[smooth]["probabilities"])
    assert not np.allclose(found["none"]["maps/layer3"], found[smooth]["maps/layer3"])
    if smooth == "flip":
        _, image = middle_square(path, 16)
        classes = torch.tensor(found["none"]["classes"])[None]
        both = [
            attention_maps(run[0], each, layers=["layer3"], classes=classes)["layer3"]
            for each in (image, image.flip(3))
        ]
        expected = (both[0] + both[1].flip(3)) / 2
        np.testing.assert_allclose(found["flip"]["maps/layer3"], expected[0], rtol=1e-3, atol=1e-6)


class Links(html.parser.HTMLParser):
    """The page's pictures, links and text."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.images, self.words = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        self.targets += [attributes[name] for name in ("href", "src") if name in attributes and tag != "link"]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_shows_every_image_and_all_its_links_lead_to_files(run, tmp_path):
    paths = [
        write_image(tmp_path / "in" / name) for name in ("cat/a.png", "Dog/b & <i>.png", "other/50%#?.png", "ä ö.png")
    ]
    explain([tmp_path / "in"], run[1], out=tmp_path / "out")
    found = Links((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert len(found.images) == len(paths)
    assert len(found.targets) == 3 * len(paths)
    for target in found.targets:
        assert (tmp_path / "out" / urllib.parse.unquote(target)).is_file(), target
    for name in ("cat/a.png", "Dog/b & <i>.png", "other/50%#?.png", "ä ö.png", "cifar_resnet8", "4 images", "grad-cam"):
        assert name in found.text
    for image in found.images:
        with Image.open(tmp_path / "out" / urllib.parse.unquote(image["src"])) as picture:
            assert picture.width / picture.height == pytest.approx(int(image["width"]) / int(image["height"]), rel=0.02)
        assert "and its maps of" in image["alt"]
    assert "true class cat" in found.text
    assert "true class Dog" in found.text
    assert found.text.count("true class ") == 2


def test_pages_of_random_weights_and_of_coarse_maps_warn(tmp_path):
    path = write_image(tmp_path / "a.png")
    explain([path], "test_resnet", out=tmp_path / "random", pretrained=False, classes="goldfish")
    text = Links((tmp_path / "random" / "index.html").read_text()).text
    assert "weights of this network are random" in text
    assert "goldfish" in text
    assert "next to nothing" not in text
    write_run(tmp_path / "run", size=8)
    explain([path], tmp_path / "run", out=tmp_path / "coarse", layers=["layer3"])
    text = Links((tmp_path / "coarse" / "index.html").read_text()).text
    assert "layer3 (2 × 2 places)" in text
    assert "those of layer3, show next to nothing" in text
    assert "random" not in text
    explain([path], tmp_path / "run", out=tmp_path / "fine")
    assert "next to nothing" not in (tmp_path / "fine" / "index.html").read_text()


def test_one_bad_image_among_many_is_named_and_the_others_are_done(run, tmp_path, heedful):
    folder = tmp_path / "in"
    for seed in range(7):
        write_image(folder / f"{seed}.png", seed)
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_bytes(b"this is text")
    write_image(folder / "long.png", width=2000, height=3)
    code, out, err = heedful(folder, "--model", run[1], "--out", tmp_path / "out", "--batch-size", 3)
    assert code == 1, out + err
    assert re.search("3.png cannot be read: .*truncated", out)
    assert "text.jpg cannot be read: not an image" in out
    assert "long.png cannot be read: its 2000 x 3 pixels are more than 50 times as long as wide" in out
    done = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert done == {"0", "1", "2", "4", "5", "6"}
    text = Links((tmp_path / "out" / "index.html").read_text()).text
    assert "6 of 9 images, 3 could not be read" in text
    assert "long.png: its 2000 x 3 pixels" in text


def test_when_no_image_can_be_read_there_is_a_page_that_says_so(run, tmp_path, heedful):
    (tmp_path / "a.jpg").write_bytes(b"")
    code, _, _ = heedful(tmp_path / "a.jpg", "--model", run[1], "--out", tmp_path / "out")
    assert code == 1
    assert "0 of 1 images, 1 could not be read" in Links((tmp_path / "out" / "index.html").read_text()).text


@pytest.mark.parametrize(
    ("name", "mode"),
    [*(("a.png", mode) for mode in ("L", "LA", "RGBA", "I;16", "P", "1")), ("a.jpg", "CMYK"), ("a.jpg", "L"),
     ("a.gif", "P"), ("a.webp", "RGB"), ("a.tif", "I;16"), ("a.tif", "CMYK"), ("a.bmp", "RGB")],
)  # fmt: skip
def test_all_kinds_of_images_are_shown_as_they_look(run, tmp_path, name, mode):
    grey = np.linspace(20, 230, 16 * 16).reshape(16, 16).round()
    if mode == "I;16":
        image = Image.fromarray((grey * 257).astype(np.uint16))
    else:
        image = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
        image = image.quantize(64) if mode == "P" else image.convert(mode)
    image.save(tmp_path / name)
    assert explain([tmp_path / name], run[1], out=tmp_path / "out").failures == []
    with np.load(tmp_path / "out" / "a.maps.npz") as arrays:
        found = arrays["image"].astype(float)
    if mode == "1":
        assert set(found.flatten()) == {0, 255}
    else:
        np.testing.assert_allclose(found.mean(2), grey, atol=8)


def test_of_an_animation_the_first_frame_is_taken(run, tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    explain([tmp_path / "a.gif"], run[1], out=tmp_path / "out")
    with np.load(tmp_path / "out" / "a.maps.npz") as arrays:
        assert (arrays["image"] == (255, 0, 0)).all()


def test_images_of_one_name_keep_apart(run, tmp_path):
    for i, name in enumerate(("a/x.png", "b/x.png", "b/x.jpg", "b/X.bmp", "a-x.png")):
        write_image(tmp_path / "in" / name, seed=i)
    explain([tmp_path / "in"], run[1], out=tmp_path / "out")
    assert len({path.name.casefold() for path in (tmp_path / "out").glob("*.png")}) == 5
    images = []
    for path in sorted((tmp_path / "out").glob("*.npz")):
        with np.load(path) as arrays:
            images.append(arrays["image"].tobytes())
    assert len(set(images)) == 5


def test_names_of_files_are_short_plain_and_different(tmp_path):
    names = [
        "a/b.png",
        "a-b.jpg",
        "A/B.png",
        "x" * 300 + ".png",
        "y" + "x" * 300 + ".png",
        "....png",
        "漢字 1.png",
        "a\udcff.png",
    ]
    found = stems(names)
    assert found[:3] == ["a-b", "a-b-2", "A-B-3"]
    assert len({stem.casefold() for stem in found}) == len(names)
    assert all(len(stem.encode()) <= 240 for stem in found)
    assert not any(re.search(r'[/\\#?%&<>"\s]', stem) or stem.startswith(".") for stem in found)
    assert found[6] == "漢字_1"
    assert shown_names([tmp_path / "a" / "x.png"]) == ["x.png"]
    assert shown_names([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]) == ["a/x.png", "b/x.png"]


def test_folders_are_searched_at_any_depth_and_what_is_hidden_or_no_image_is_not(tmp_path):
    for name in ("b.png", "a/c/d.JPG", ".hidden.png", ".git/e.png", "notes.txt", "out/f.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = image_files([tmp_path, tmp_path / "b.png"], without=tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b.png", "a/c/d.JPG"]
    assert image_files([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]


def test_a_second_call_replaces_the_page_and_leaves_its_pictures_out(run, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    out = tmp_path / "in" / "explained"
    for _ in range(2):
        assert explain([tmp_path / "in"], run[1], out=out).num_images == 1


def test_the_images_themselves_are_never_overwritten(run, tmp_path):
    path = write_image(tmp_path / "in" / "a.png")
    explain([path], run[1], out=tmp_path / "out")
    before = (tmp_path / "out" / "a.png").read_bytes()
    with pytest.raises(InputError, match="holds images to explain"):
        explain([tmp_path / "out" / "a.png"], run[1], out=tmp_path / "out")
    assert (tmp_path / "out" / "a.png").read_bytes() == before


@pytest.mark.parametrize("name", ["out", "out/index.html", "out/a.png"])
def test_what_is_there_of_something_else_is_left_alone(run, tmp_path, name):
    path = write_image(tmp_path / "in" / "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"\(--out\)"):
        explain([path], run[1], out=tmp_path / "out")
    assert (tmp_path / name).read_text() == "mine"
    assert not list(tmp_path.rglob("*.npz"))


def test_what_was_done_before_an_interruption_is_on_the_page(run, tmp_path):
    paths = [write_image(tmp_path / "in" / f"{seed}.png", seed) for seed in range(4)]

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(paths, run[1], out=tmp_path / "out", batch_size=2, report=stop)
    found = Links((tmp_path / "out" / "index.html").read_text())
    assert "2 of 4 images, then stopped" in found.text
    assert len(found.images) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", [0]), ("3, 1", [3, 1]), ("cat,dog", [0, 1]), ("DOG HOUSE", [3]), ("house, small", [2]), ("1,dog", [1])],
)
def test_classes_by_name_and_number(run, text, expected):
    assert list(chosen(text, subject(run[1]))) == expected


@pytest.mark.parametrize(("text", "k"), [("top1", 1), ("top4", 4), ("top5", 4)])
def test_the_highest_classes(run, text, k):
    found = chosen(text, subject(run[1]))
    assert isinstance(found, Top)
    assert found.k == k


def test_names_go_before_numbers_and_two_of_a_name_are_refused(tmp_path):
    write_run(tmp_path, classes=("3", "crane", "crane", "x"))
    network = subject(tmp_path)
    assert chosen("3", network) == (0,)
    assert chosen("1", network) == (1,)
    with pytest.raises(InputError, match="'crane' is the name of classes 1, 2"):
        chosen("crane", network)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "cta"], "unknown class 'cta': did you mean cat"),
        (["--classes", "4"], "4 is out of range: this network has classes 0 to 3"),
        (["--classes", "-1"], "-1 is out of range"),
        (["--classes", " , "], "give top5, or names or numbers"),
        (["--classes", "top0"], "k is 0"),
        (["--layers", "layer4"], "unknown layer 'layer4': did you mean layer3"),
        (["--layers", "fc"], "no feature map"),
        (["--method", "gradcam"], "unknown method 'gradcam': did you mean grad-cam"),
        (["--smooth", "flop"], "unknown smoothing 'flop': did you mean flip"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--model", "resnet1"], "unknown model 'resnet1': did you mean resnet1"),
        (["--model", "nowhere/run/1"], "no such folder"),
        (["--model", "."], "holds no trained model"),
        (["missing.png"], "missing.png: no such file or folder"),
        (["empty"], "empty holds no images"),
    ],
)
def test_what_a_user_gets_wrong_is_one_message_before_any_work(run, tmp_path, heedful, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    model = [] if "--model" in words else ["--model", run[1]]
    code, out, err = heedful(
        write_image(tmp_path / "a.png"), *words, *model, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()


def test_weights_that_cannot_be_had_are_one_message(tmp_path, heedful, monkeypatch):
    def offline(*_arguments, **_options):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("timm.create_model", offline)
    code, _, err = heedful(write_image(tmp_path / "a.png"), "--model", "test_resnet", "--out", tmp_path / "out")
    assert code == 2
    assert "weights of test_resnet cannot be had (no route to host): mend the connection" in err
    assert not (tmp_path / "out").exists()


def test_networks_for_other_channels_or_without_classes_are_refused(tmp_path, monkeypatch):
    import timm

    features = timm.create_model("test_resnet", num_classes=0)
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: features)
    with pytest.raises(InputError, match="test_resnet has no classes, only features"):
        subject("test_resnet", pretrained=False)
    card = ModelCard("cifar_resnet8", "none", None, ("a", "b"), 8, (0.5,), (1.0,), in_channels=1)
    save(build("cifar_resnet8", num_classes=2, in_channels=1), card, tmp_path)
    with pytest.raises(InputError, match="images of 1 channels"):
        subject(tmp_path)


def test_more_classes_than_a_picture_holds_are_all_in_the_arrays(tmp_path):
    write_run(tmp_path / "run", classes=tuple("abcdefghijkl"))
    found = explain([write_image(tmp_path / "x.png")], tmp_path / "run", out=tmp_path / "out", classes="top12")
    assert len(found.entries[0].found) == 10
    assert found.entries[0].size[0] == 1000  # eleven columns fill the width
    with np.load(tmp_path / "out" / "x.maps.npz") as arrays:
        assert sorted(arrays["names"]) == list("abcdefghijkl")


def test_too_little_memory_asks_for_smaller_batches(run, tmp_path, monkeypatch):
    answer = Question.answer

    def greedy(self, model, images):
        if len(images) > 1:
            raise torch.OutOfMemoryError
        return answer(self, model, images)

    monkeypatch.setattr(Question, "answer", greedy)
    paths = [write_image(tmp_path / "in" / f"{seed}.png", seed) for seed in range(2)]
    with pytest.raises(InputError, match="batch_size: 2 images at a time need too much memory"):
        explain(paths, run[1], out=tmp_path / "out")
    assert len(explain(paths, run[1], out=tmp_path / "out", batch_size=1).entries) == 2


def test_tokens_of_a_transformer_are_not_taken_for_a_map(tmp_path):
    path = write_image(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"numbers for images of 160 x 160 pixels, which is no map of them"):
        explain([path], "test_vit", out=tmp_path / "out", pretrained=False)
    assert not (tmp_path / "out").exists()


def test_help_names_the_options(heedful):
    code, out, _ = heedful("--help")
    assert code == 0
    assert all(name in out for name in ("--model", "--layers", "--method", "--classes", "--smooth", "--out"))


def test_the_page_of_many_images_is_lazy_and_asks_nobody(run, tmp_path):
    explain([write_image(tmp_path / "a.png")], run[1], out=tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert MARK in text
    assert 'loading="lazy"' in text
    assert not re.search(r"https?://", text)
