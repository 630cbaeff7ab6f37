"""Trained runs evaluated, from Python and from the command line."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from heedful import InputError, build, cli, load
from heedful.data import divided, read
from heedful.evaluate.evaluations import evaluate_runs
from heedful.evaluate.protocols import Asked
from heedful.evaluate.runs import own_images, read_run
from heedful.models.cards import ModelCard
from heedful.models.saved import save
from tests.data_made import bright_squares

CLASSES = ("class 0", "class 1", "class 2")


def made_run(folder, source, *, size=8, seed=0, **settings):
    """A run's folder as training leaves it, with an untrained network."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    pool = read(str(source), size)
    card = ModelCard("cifar_resnet8", "none", None, pool.classes, size, (0.4, 0.5, 0.6), (0.3, 0.2, 0.25))
    save(build("cifar_resnet8", num_classes=len(pool.classes)), card, folder)
    settings = {"data": str(source), "image_size": size, "val_fraction": 0.2, "limit": None, **settings}
    (folder / "run.yaml").write_text(yaml.safe_dump({"row": "none", "seed": seed, "settings": settings}))
    (folder / "result.json").write_text(json.dumps({"data": {"fingerprint": pool.fingerprint}}))
    return folder


@pytest.fixture
def squares(tmp_path):
    return bright_squares(tmp_path / "squares.npz", per_class=20)


@pytest.fixture
def photos(tmp_path):
    """Class folders of noise with a bright box, and boxes.csv beside images/."""
    rng = np.random.default_rng(0)
    lines = ["path,left,top,right,bottom"]
    for name in CLASSES:
        (tmp_path / "photos" / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8)
            left, top = rng.integers(0, 9, 2)
            pixels[top : top + 6, left : left + 6] += 150
            Image.fromarray(pixels).save(tmp_path / "photos" / "images" / name / f"{number}.png")
            lines.append(f"{name}/{number}.png,{left},{top},{left + 5},{top + 5}")
    (tmp_path / "photos" / "boxes.csv").write_text("\n".join([*lines, "class 0/0.png,3,3,3,8"]))
    return tmp_path / "photos"


@pytest.mark.parametrize("settings", [{}, {"val_fraction": 0.4, "limit": 40}, {"test_per_class": 5}])
def test_own_images_are_those_that_training_tested_on(tmp_path, squares, settings):
    sample = own_images(read_run(made_run(tmp_path / "run", squares, seed=3, **settings)))
    chosen = {"val_fraction": 0.2, **settings}
    expected = divided(read(str(squares), 8), seed=3, **chosen).test
    assert torch.equal(sample.split.images, expected.images)
    assert torch.equal(sample.split.labels, expected.labels)
    assert (sample.paths, sample.objects) == (None, None)


@pytest.mark.parametrize("size", [16, 80])
def test_own_images_of_a_folder_have_their_paths_and_objects(tmp_path, photos, size):
    sample = own_images(read_run(made_run(tmp_path / "run", photos / "images", size=size)))
    expected = divided(read(str(photos / "images"), size), seed=0, val_fraction=0.2).test
    if size == 80:
        assert sample.paths == expected.paths == sample.split.paths
    else:
        assert torch.equal(sample.split.images, expected.images)
        for image, path in zip(sample.split.images, sample.paths, strict=True):
            assert (image.permute(1, 2, 0).numpy() == np.asarray(Image.open(path))).all()
    assert [CLASSES[label] for label in sample.split.labels] == [path.parent.name for path in sample.paths]
    assert sample.objects.find(sample.paths[0], size)[1].shape == (1, 4)


def test_skipped_images_do_not_shift_the_paths(tmp_path, photos):
    (photos / "images" / "class 0" / "0.png").write_bytes(b"broken")
    folder = tmp_path / "run"
    shutil.copytree(made_run(tmp_path / "other", bright_squares(tmp_path / "a.npz"), size=16), folder)
    pool = read(str(photos / "images"), 16, skip_bad_images=True)
    settings = {"data": str(photos / "images"), "image_size": None, "skip_bad_images": True, "val_fraction": 0.2}
    (folder / "run.yaml").write_text(yaml.safe_dump({"seed": 0, "settings": settings}))
    (folder / "result.json").write_text(json.dumps({"data": {"fingerprint": pool.fingerprint}}))
    sample = own_images(read_run(folder))
    for image, path in zip(sample.split.images, sample.paths, strict=True):
        assert (image.permute(1, 2, 0).numpy() == np.asarray(Image.open(path))).all()


def test_classification_is_the_networks(tmp_path, squares):
    folder = made_run(tmp_path / "none" / "seed-0", squares)
    found = evaluate_runs([folder])[str(folder)].numbers
    sample = own_images(read_run(folder))
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.4, 0.5, 0.6), (0.3, 0.2, 0.25)))
    with torch.no_grad():
        wrong = load(folder)((sample.split.images / 255 - mean) / deviation).argmax(1) != sample.split.labels
    assert found["error"] == pytest.approx(100 * wrong.float().mean().item())
    assert (found["run"], found["num_images"], found["data"]) == ("none/seed-0", len(wrong), "squares")


def test_other_data_and_a_limit(tmp_path, squares, photos):
    folder = made_run(tmp_path / "run", squares, size=16)
    found = evaluate_runs([folder], asked=Asked(source=str(photos), limit=6))[str(folder)].numbers
    assert (found["num_images"], found["data"]) == (6, "photos")


@pytest.mark.parametrize("size", [16, 80])
@pytest.mark.parametrize("source", ["photos", "photos/images", "photos/../photos/images/"])
def test_of_a_runs_own_data_only_the_test_images_are_taken(tmp_path, photos, source, size):
    folder = made_run(tmp_path / "run", photos / "images", size=size)
    own, given = (
        evaluate_runs([folder], on="maps", asked=Asked(source=each))[str(folder)].numbers
        for each in (None, f"{tmp_path}/{source}")
    )
    assert given == own
    assert given["num_images"] == len(own_images(read_run(folder)).split) < 24
    assert (given["objects"], given["num_located"]) == ("boxes", given["num_images"])


def test_masks_beside_a_runs_own_images_are_found(tmp_path, photos):
    (photos / "boxes.csv").unlink()
    for path in (photos / "images").rglob("*.png"):
        mask = photos / "masks" / path.relative_to(photos / "images")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(mask)
    folder = made_run(tmp_path / "run", photos / "images", size=16)
    found = evaluate_runs([folder], on="maps", asked=Asked(source=str(photos)))[str(folder)].numbers
    assert (found["objects"], found["num_located"]) == ("masks", found["num_images"])
    assert found["num_images"] < 24


def test_data_that_changed_are_seen_by_the_next_call(tmp_path, photos):
    folders = [made_run(tmp_path / f"run-{seed}", photos / "images", size=16, seed=seed) for seed in (0, 1)]
    evaluate_runs(folders)
    with (photos / "images" / "class 0" / "0.png").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="has changed since the run"):
        evaluate_runs(folders)


def test_data_of_several_runs_are_read_once(tmp_path, squares, monkeypatch):
    folders = [made_run(tmp_path / f"run-{seed}", squares, seed=seed) for seed in (0, 1)]
    sources = []

    def noted(source, *rest, **options):
        sources.append(source)
        return read(source, *rest, **options)

    monkeypatch.setattr("heedful.data.read", noted)
    evaluate_runs(folders)
    assert sources == [str(squares)]


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path, squares):
    folders = [made_run(tmp_path / name, squares) for name in ("a/none/seed-0", "b/none/seed-0", "b/none/seed-1")]
    names = [found.numbers["run"] for found in evaluate_runs(folders).values()]
    assert names == [str(folders[0]), str(folders[1]), "none/seed-1"]


def test_a_network_saved_without_a_run_needs_data(tmp_path, squares):
    folder = made_run(tmp_path / "run", squares)
    (folder / "run.yaml").unlink()
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match="give --data"):
        evaluate_runs([folder])
    assert evaluate_runs([folder], asked=Asked(source=str(squares)))[str(folder)].numbers["num_images"] == 60


def damaged(folder):
    (folder / "run.yaml").write_text("row: [")


def changed(folder):
    (folder / "result.json").write_text('{"data": {"fingerprint": "another"}}')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no folder .*: give a run's folder"),
        (lambda folder: (folder / "result.json").unlink(), "is not finished"),
        (lambda folder: (folder / "recipe.yaml").write_text("title: x"), "is an experiment"),
        (lambda folder: (folder / "model.json").unlink(), "holds no trained model"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
        (damaged, "is damaged"),
        (lambda folder: (folder / "run.yaml").write_text("seed: 0"), "is damaged"),
        (changed, "has changed since the run"),
    ],
)
def test_runs_that_cannot_be_evaluated(tmp_path, squares, spoil, message):
    folder = made_run(tmp_path / "run", squares)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        evaluate_runs([folder])


def test_an_unknown_protocol(tmp_path):
    with pytest.raises(InputError, match="unknown protocol 'map': did you mean maps"):
        evaluate_runs([tmp_path], on="map")


@pytest.fixture
def heedful(monkeypatch, capfd):
    """Run the command line in this process; return exit code, standard output and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["heedful", "evaluate", *map(str, words), "--device", "cpu"])
        monkeypatch.setattr(cli.application.console, "_width", 160, raising=False)
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return end.value.code or 0, re.sub(r"\x1b\[[0-9;]*m", "", out), err

    return call


def test_the_command_prints_a_row_for_each_run_and_writes_files(heedful, tmp_path, squares, photos):
    folders = [made_run(tmp_path / "none" / f"seed-{seed}", squares, size=16, seed=seed) for seed in (0, 1)]
    code, out, err = heedful(*folders, "--on", "maps", "--data", photos, "--limit", 6)
    assert code == 0, out + err
    found = [json.loads((folder / "maps-photos.json").read_text()) for folder in folders]
    for numbers in found:
        assert len(re.findall(rf"^{numbers['run']} ", out, re.MULTILINE)) == 3
        assert f"{numbers['localisation']['pxap']:.3f} ({numbers['centre_gaussian']['pxap']:.3f})" in out
        assert f"{numbers['run']}: boxes without area, left out, in all the data: 1" in out
        assert f"{numbers['ks']:.3f}" in out
    with Image.open(folders[0] / "ks-photos.png") as chart:
        assert chart.size[0] > 300
    assert "seed-1/ks-photos.png" in out


def test_what_was_found_of_a_run_stays_if_a_later_one_fails(heedful, tmp_path, squares):
    folders = [made_run(tmp_path / "none" / f"seed-{seed}", squares, seed=seed) for seed in (0, 1)]
    changed(folders[1])
    code, _, err = heedful(*folders, "--on", "maps")
    assert code == 2
    assert "has changed since the run" in err
    assert json.loads((folders[0] / "maps.json").read_text())["run"] == "none/seed-0"
    assert (folders[0] / "ks.png").is_file()
    assert not (folders[1] / "maps.json").exists()


def test_the_command_writes_one_file_elsewhere(heedful, tmp_path, squares):
    folder = made_run(tmp_path / "run", squares)
    code, out, err = heedful(
        folder, "--on", "maps", "--out", tmp_path / "all.json", "--method", "channel", "--layer", "layer1"
    )
    assert code == 0, out + err
    numbers = json.loads((tmp_path / "all.json").read_text())[str(folder)]
    assert (numbers["layer"], numbers["method"]) == ("layer1", "channel")
    assert "no localisation, since the data have neither boxes.csv nor masks/" in out
    assert not (folder / "maps.json").exists()


@pytest.mark.parametrize(("out", "written"), [("", "classification.json"), ("new/a.json", "new/a.json")])
def test_the_one_file_may_be_in_a_folder_or_a_new_one(heedful, tmp_path, squares, out, written):
    folder = made_run(tmp_path / "run", squares)
    code, _, _ = heedful(folder, "--out", tmp_path / out)
    assert code == 0
    assert str(folder) in json.loads((tmp_path / written).read_text())


def test_the_command_prints_error_and_loss(heedful, tmp_path, squares):
    folder = made_run(tmp_path / "run", squares)
    code, out, _ = heedful(folder)
    assert code == 0
    numbers = json.loads((folder / "classification.json").read_text())
    assert f"{numbers['error']:.3f}" in out
    assert f"{numbers['loss']:.3f}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "maps", "--layer", "layer33"], "unknown layer 'layer33': did you mean layer3"),
        (["--on", "maps", "--method", "grad-can"], "did you mean grad-cam"),
        (["--limit", "0"], "limit is 0"),
        (["--data", "missing/photos"], "missing/photos: no such file or folder"),
        (["--data", "digits"], "digits has other classes than the run: unknown class '0'"),
    ],
)
def test_what_a_user_gets_wrong_is_one_message(heedful, tmp_path, squares, words, message):
    folder = made_run(tmp_path / "run", squares)
    code, out, err = heedful(folder, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert not list(folder.glob("maps.*"))


def test_images_with_several_classes_have_a_precision_but_no_maps(heedful, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 3))
    arrays = {"images": rng.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8), "labels": labels}
    np.savez(tmp_path / "several.npz", **arrays, classes=np.array(CLASSES))
    folder = made_run(tmp_path / "run", tmp_path / "several.npz")
    code, out, err = heedful(folder)
    assert code == 0, out + err
    numbers = json.loads((folder / "classification.json").read_text())
    assert f"{numbers['map']:.3f}" in out
    assert "mAP %" in out
    code, _, err = heedful(folder, "--on", "maps")
    assert code == 2
    assert "several has images with several classes" in err
    shutil.copy(tmp_path / "several.npz", tmp_path / "others.npz")
    code, _, err = heedful(folder, "--data", tmp_path / "others.npz")
    assert code == 2
    assert "must have one class each" in err
