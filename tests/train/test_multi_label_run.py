"""A run on images of several classes each: what it minimises, chooses by, and writes down."""

import csv
import json

import numpy as np
import pytest
import torch

from heedful import InputError, data
from heedful.evaluate.classification import mean_auc, mean_average_precision
from heedful.models.saved import load, read_card
from heedful.train.errors import RankingError, TopOneError
from heedful.train.pictured import one_of_each_class
from heedful.train.prepare import load_data
from heedful.train.run import Machine, execute, runs_of
from heedful.train.settings import Settings
from heedful.train.tasks import check_run
from tests.data_made import many_squares

CPU = Machine(device="cpu", num_workers=0)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return str(many_squares(tmp_path_factory.mktemp("data") / "several.npz", count=120))


def test_a_head_that_averages_probabilities_of_one_class_is_refused_before_the_first_step(several):
    with pytest.raises(InputError, match="variant pay2-pc-indep: its head averages the probabilities of one class"):
        check_run(Settings(data=several, variant="pay2-pc-indep"), 0)
    check_run(Settings(data=several, variant="pay2-pc"), 0)


@pytest.mark.parametrize("objective", ["cross-entropy", "icasc", "icasc-gradcam", "icasc-gradcam++"])
def test_a_run_learns_and_its_numbers_are_those_of_its_model(recipe, several, tmp_path, objective):
    chosen = {"data": several, "epochs": 12, "schedule": "annealed", "learning_rate": 0.05, "attention_weight": 0.1}
    (run,) = runs_of(recipe(f"none@{objective}", **chosen))
    assert execute(run, tmp_path, machine=CPU, report=lambda progress: None) is None
    folder = tmp_path / run.folder
    result = json.loads((folder / "result.json").read_text())
    metrics = result["metrics"]
    assert metrics["test_map"] > 90
    assert metrics["test_error"] == 100 - metrics["test_map"]
    assert metrics["test_classes_left_out"] == 0
    assert "test_top5_error" not in metrics

    model, card = load(folder), read_card(folder)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (card.mean, card.deviation))
    dataset = data.load(several, seed=0)
    for part, prefix in ((dataset.test, "test"), (dataset.val, "val")):
        with torch.no_grad():
            logits = model((part.images / 255 - mean) / deviation)
        error = 100 - mean_average_precision(logits, part.labels)
        assert metrics[f"{prefix}_error"] == pytest.approx(error, abs=1e-4)
        loss = torch.nn.functional.multilabel_soft_margin_loss(logits, part.labels.float()).item()
        assert metrics[f"{prefix}_loss"] == pytest.approx(loss, rel=1e-4)
        if prefix == "test":
            assert metrics["test_auc"] == pytest.approx(mean_auc(logits, part.labels), abs=1e-6)
    assert result["data"]["unlabelled_images"] == dataset.num_unlabelled > 0

    with (folder / "metrics.csv").open() as file:
        history = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]
    best = min(history, key=lambda record: (record["val_error"], record["val_loss"]))
    assert (metrics["best_epoch"], metrics["val_error"]) == (best["epoch"], best["val_error"])
    assert history[-1]["train_error"] < history[0]["train_error"]

    evidence = np.load(folder / "evidence.npz", allow_pickle=False)
    assert evidence["labels"].tolist() == [0, 1, 2]
    images = (torch.from_numpy(evidence["images"]).permute(0, 3, 1, 2) / 255 - mean) / deviation
    with torch.no_grad():
        expected = model(images).sigmoid()[range(3), [0, 1, 2]]
    np.testing.assert_allclose(evidence["probabilities"], expected, atol=1e-3)
    right = evidence["probabilities"] > 0.5
    assert (evidence["predictions"][right] == evidence["labels"][right]).all()


def test_errors_are_counted_over_all_batches():
    logits, labels = torch.randn(30, 4), torch.randint(0, 2, (30, 4))
    ranking, top_one = RankingError(), TopOneError()
    for part in (slice(0, 20), slice(20, 30)):
        ranking.add(logits[part], labels[part])
        top_one.add(logits[part], labels[part].argmax(1))
    assert ranking.percent() == 100 - mean_average_precision(logits, labels)
    wrong = [int(row.argmax()) != int(label) for row, label in zip(logits, labels.argmax(1), strict=True)]
    assert top_one.percent() == pytest.approx(100 * sum(wrong) / 30)


def test_an_image_of_several_classes_is_pictured_for_each_that_it_is_the_first_of():
    images = torch.arange(4.0).reshape(4, 1, 1, 1)
    labels = torch.tensor([[0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 1, 0]])
    pictured, classes = one_of_each_class([(images[:2], labels[:2]), (images[2:], labels[2:])], 8)
    assert (pictured.flatten().tolist(), classes.tolist()) == ([1, 2, 1], [0, 1, 2])
    pictured, classes = one_of_each_class([(images, torch.tensor([2, 0, 2, 1]))], 2)
    assert (pictured.flatten().tolist(), classes.tolist()) == ([1, 3], [0, 1])


def test_a_split_that_shows_no_class_is_refused_before_the_first_step(tmp_path):
    labels = np.zeros((40, 2), dtype=np.int64)
    labels[:30] = [[1, 0]] * 15 + [[0, 1]] * 15
    test = np.arange(40) >= 30
    images = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "dark.npz", images=images, labels=labels, test=test, classes=np.array(["a", "b"]))
    with pytest.raises(InputError, match="none of the 10 test images shows any class"):
        load_data(Settings(data=str(tmp_path / "dark.npz")), 0)
