"""Runs of the task `detection`: they learn, are resumed, measured and drawn; what cannot be trained on is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import heedful
from heedful import InputError
from heedful.experiment import carry_out
from heedful.models.cards import DetectorCard
from heedful.report import read
from heedful.train import recipe as recipes
from heedful.train.detect import Detection, Detector
from heedful.train.run import Machine, runs_of
from heedful.train.settings import Settings
from heedful.train.tasks import check_run
from tests.detectors_made import boxes_folder

CPU = Machine(device="cpu", num_workers=0)
SMALL = {
    "task": "detection", "model": "fasterrcnn_resnet18_fpn_small", "image_size": 64, "batch_size": 4, "epochs": 1,
    "optimizer": "adam", "learning_rate": 0.001, "val_fraction": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(boxes_folder(tmp_path_factory.mktemp("boxes"), num_train=8))


def recipe_of(source, *variants, **settings):
    rows = [{"name": name, "variant": name} for name in variants]
    return recipes.from_plain({"seeds": [0], "rows": rows, "data": source, **SMALL, **settings})


def result_of(out, name):
    return json.loads((out / "runs" / name / "seed-0" / "result.json").read_text())


@pytest.fixture(scope="module")
def experiment(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("detection") / "out"
    return carry_out(recipe_of(source, "none", "aw+cbam-ign1(0.5)"), out, machine=CPU, evaluate=["detection"]), out


def test_a_run_leaves_its_numbers(experiment):
    _, out = experiment
    result = result_of(out, "none")
    metrics = result["metrics"]
    assert metrics["test_error"] == pytest.approx(100 - metrics["test_map"])
    assert 0 <= metrics["test_map"] <= metrics["test_map50"] <= 100
    assert result["data"]["test_images"] == 5
    assert result["data"]["test_boxes"] == 7
    assert result["data"]["dropped_boxes"] == {}
    assert result["data"]["augmentation"] == ["flip"]
    header, line = (out / "runs" / "none" / "seed-0" / "metrics.csv").read_text().splitlines()
    record = dict(zip(header.split(","), line.split(","), strict=True))
    assert "train_error" not in record  # detectors give no detections while they train, and no loss afterwards
    assert "val_loss" not in record
    parts = [float(record[name]) for name in record if name.startswith("loss_")]
    assert sum(parts) == pytest.approx(float(record["train_loss"]))
    assert len(parts) == 4


def test_the_saved_detector_is_the_measured_one(experiment):
    _, out = experiment
    folder = out / "runs" / "aw+cbam-ign1(0.5)" / "seed-0"
    model = heedful.load(folder)
    assert isinstance(model.card, DetectorCard)
    assert (model.card.classes, model.card.image_size) == (("cat", "dog"), 64)
    numbers = json.loads((folder / "detection.json").read_text())
    assert numbers["map"] == pytest.approx(result_of(out, folder.parent.name)["metrics"]["test_map"])
    assert set(model([torch.rand(3, 40, 60)])[0]) == {"boxes", "labels", "scores"}


def test_the_page_is_of_precision_and_shows_what_was_found(experiment):
    found, out = experiment
    (group,) = found.groups
    assert group.error_name == "100 − mAP"
    assert read(out).rows[0].runs[0].metrics.test_loss is None
    page = (out / "index.html").read_text()
    assert "mean average precision (mAP, over overlaps of 0.5 to 0.95)" in page
    assert "mAP@0.5" in page
    assert "validation 100 − mAP" in page or "Mean validation error" in page
    assert "Grad-CAM" not in page
    header, line, *_ = (out / "results.csv").read_text().splitlines()
    numbers = dict(zip(header.split(","), line.split(","), strict=True))
    assert numbers["test_map50"] == repr(result_of(out, "none")["metrics"]["test_map50"])
    assert numbers["test_loss"] == ""


def test_a_run_of_detection_is_resumed_exactly(source, interrupted, tmp_path):
    recipe = recipe_of(source, "se", epochs=2)
    (run,) = runs_of(recipe)
    interrupted(run, tmp_path / "disturbed", [1.4])
    carry_out(recipe, tmp_path / "undisturbed", machine=CPU)
    rows = [(tmp_path / name / run.folder / "metrics.csv").read_text().splitlines() for name in
            ("undisturbed", "disturbed")]  # fmt: skip
    untimed = [[line.split(",")[:4] for line in lines] for lines in rows]
    assert untimed[0] == untimed[1]


def test_a_detector_learns_where_bright_squares_are(tmp_path):
    """One bright square on dark ground is found after a few steps: losses and boxes fit together."""
    source = boxes_folder(tmp_path / "squares", num_train=12, num_test=2)
    for part in ("train", "val"):
        listed = json.loads((source / f"{part}.json").read_text())
        listed["annotations"] = []
        for number, image in enumerate(listed["images"]):
            x, y = 4 + 9 * (number % 3), 6 + 7 * (number % 4)
            pixels = np.zeros((48, 48, 3), dtype=np.uint8)
            pixels[y : y + 16, x : x + 16] = 255
            Image.fromarray(pixels).save(source / "images" / image["file_name"])
            annotation = {"id": number, "image_id": image["id"], "category_id": 1, "bbox": [x, y, 16, 16], "iscrowd": 0}
            listed["annotations"].append(annotation)
        (source / f"{part}.json").write_text(json.dumps(listed))
    settings = Settings(data=str(source), **{**SMALL, "augment": ()})
    task = Detection(settings, 0)
    torch.manual_seed(0)
    model = task.new_model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    learner = task.learner(model)
    for epoch in range(25):
        for batch in task.batches("train", torch.device("cpu"), seed=epoch):
            optimizer.zero_grad()
            learner.train(batch, epoch).loss.backward()
            optimizer.step()
    assert task.test(model, torch.device("cpu"))["map50"] > 90


def test_crowds_are_not_learnt_from():
    seen = []

    class Notes(torch.nn.Module):
        def forward(self, images, targets):
            seen.extend(targets)
            return {"loss": images[0].sum()}

    boxes, labels = torch.tensor([[0.0, 0, 5, 5], [1, 1, 9, 9]]), torch.tensor([1, 2])
    target = {"boxes": boxes, "labels": labels, "crowd": torch.tensor([True, False])}
    Detector(Notes()).train(([torch.ones(3, 4, 4)], [target]), 0)
    assert torch.equal(seen[0]["boxes"], boxes[1:])
    assert torch.equal(seen[0]["labels"], labels[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "fasterrcnn_resnet19_fpn"}, "unknown detector 'fasterrcnn_resnet19_fpn': did you mean"),
        ({"model": "cifar_resnet8"}, "unknown detector 'cifar_resnet8'"),
        ({"variant": "pay2-pc"}, "variant 'pay2-pc' cannot go into"),
        ({"variant": "mmtm"}, "variant 'mmtm' cannot go into"),
        ({"objective": "icasc"}, "objective is 'icasc', but only the task classification has it"),
        ({"test_crops": 10}, "test_crops is 10, but only the task classification has it"),
        ({"task": "detecting"}, "task is 'detecting'"),
        ({"image_size": 16}, "image_size is 16, but it must be at least 32"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, source, change, message):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"seeds": 1, "data": source, **SMALL, "rows": [{"name": "a", **change}]}))
    with pytest.raises(InputError, match=message):
        recipes.read(str(path))


def test_augmentations_that_are_not_for_boxes_are_refused(source):
    with pytest.raises(InputError, match="augment has 'shift', but images with boxes can only be flipped"):
        check_run(Settings(data=source, **{**SMALL, "augment": ("shift",)}), 0)


def test_images_that_are_too_small_are_refused_before_the_first_step(source):
    with pytest.raises(InputError, match="image_size is 16, but it must be at least 32"):
        check_run(Settings(data=source, **{**SMALL, "image_size": 16}), 0)


def test_data_without_boxes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"bccd.* --data bccd=FOLDER"):
        check_run(Settings(data="bccd", **SMALL), 0)
    with pytest.raises(InputError, match="nowhere"):
        check_run(Settings(data=str(tmp_path / "nowhere"), **SMALL), 0)
