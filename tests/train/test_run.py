"""One run: what it writes, that it learns, that interruptions change nothing, that a diverging loss is named."""

import csv
import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from heedful import InputError, data
from heedful.models.saved import load, read_card
from heedful.train.classify import Classification
from heedful.train.module import Training, epoch_seed, rate_factor
from heedful.train.run import Machine, execute, is_done, runs_of
from heedful.train.settings import Settings

CPU = Machine(device="cpu", num_workers=0)
FILES = {"run.yaml", "metrics.csv", "last.ckpt", "model.safetensors", "model.json", "evidence.npz", "result.json"}


def ignore(progress):
    pass


def result_of(run, out):
    return json.loads((out / run.folder / "result.json").read_text())


def numbers(run, out):
    """Every number of a run but the times."""
    result = result_of(run, out)
    with (out / run.folder / "metrics.csv").open() as file:
        history = [{key: value for key, value in line.items() if key != "seconds"} for line in csv.DictReader(file)]
    return result["metrics"], result["cost"]["flops"], history, torch_weights(out / run.folder)


def torch_weights(folder):
    return {key: value.tolist() for key, value in load(folder).state_dict().items()}


def test_a_run_leaves_its_files_and_true_numbers(recipe, tmp_path):
    (run,) = runs_of(recipe("cbam-ign1(0.5)"))
    told = []
    assert execute(run, tmp_path, machine=CPU, report=told.append) is None
    folder = tmp_path / run.folder
    assert {path.name for path in folder.iterdir()} == FILES
    assert is_done(run, tmp_path)
    assert [p.epoch for p in told if p.epoch == int(p.epoch)][-1] == 3
    result = result_of(run, tmp_path)
    settings = run.row.settings
    dataset = data.load(settings.data, seed=0, val_fraction=settings.val_fraction)
    assert result["data"]["train_images"] == len(dataset.train) == 48
    assert (result["data"]["val_images"], result["data"]["test_images"]) == (6, 6)
    assert result["data"]["classes"] == ["class 0", "class 1", "class 2"]
    assert result["cost"]["parameters"] == sum(p.numel() for p in load(folder).parameters())
    assert yaml.safe_load((folder / "run.yaml").read_text())["settings"]["variant"] == "cbam-ign1(0.5)"
    assert result["metrics"]["test_top5_error"] is None
    # the numbers of the best epoch, recomputed from the saved model on images prepared by hand
    model, card = load(folder), read_card(folder)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (card.mean, card.deviation))
    for part, prefix in ((dataset.test, "test"), (dataset.val, "val")):
        with torch.no_grad():
            logits = model((part.images / 255 - mean) / deviation)
        error = 100 * (logits.argmax(1) != part.labels).double().mean().item()
        assert result["metrics"][f"{prefix}_error"] == pytest.approx(error, abs=1e-4)
        loss = torch.nn.functional.cross_entropy(logits, part.labels).item()
        assert result["metrics"][f"{prefix}_loss"] == pytest.approx(loss, rel=1e-4)
    evidence = np.load(folder / "evidence.npz", allow_pickle=False)
    assert evidence["labels"].tolist() == [0, 1, 2]
    for image, label in zip(evidence["images"], evidence["labels"], strict=True):
        same = [(image == candidate).all() for candidate in dataset.test.images.permute(0, 2, 3, 1).numpy()]
        assert dataset.test.labels[same.index(True)] == label


def test_a_run_learns(recipe, tmp_path):
    (run,) = runs_of(recipe("se-ign3", epochs=15, schedule="cosine", learning_rate=0.05))
    execute(run, tmp_path, machine=CPU, report=ignore)
    assert result_of(run, tmp_path)["metrics"]["val_error"] == 0
    with (tmp_path / run.folder / "metrics.csv").open() as file:
        history = list(csv.DictReader(file))
    assert float(history[-1]["train_loss"]) < 0.5 * float(history[0]["train_loss"])


def test_the_best_epoch_has_the_lowest_validation_error_then_loss(recipe, tmp_path):
    (run,) = runs_of(recipe("none", epochs=6))
    execute(run, tmp_path, machine=CPU, report=ignore)
    with (tmp_path / run.folder / "metrics.csv").open() as file:
        history = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]
    best = min(history, key=lambda record: (record["val_error"], record["val_loss"]))
    metrics = result_of(run, tmp_path)["metrics"]
    assert (metrics["best_epoch"], metrics["val_error"]) == (best["epoch"], best["val_error"])


def test_the_same_run_gives_the_same_numbers_and_another_seed_others(recipe, tmp_path):
    (run,), (other,) = runs_of(recipe("se")), runs_of(recipe("se", first_seed=1))
    for out in (tmp_path / "a", tmp_path / "b"):
        execute(run, out, machine=CPU, report=ignore)
    execute(other, tmp_path / "a", machine=CPU, report=ignore)
    assert numbers(run, tmp_path / "a") == numbers(run, tmp_path / "b")
    assert numbers(run, tmp_path / "a")[2] != numbers(other, tmp_path / "a")[2]


@pytest.mark.parametrize("moments", [[0.25], [1], [1.5, 2], [3], [0.5, 1, 2.2]])
def test_an_interrupted_run_ends_with_the_same_numbers(recipe, interrupted, tmp_path, moments):
    (run,) = runs_of(recipe("cbam-ign2"))
    execute(run, tmp_path / "undisturbed", machine=CPU, report=ignore)
    interrupted(run, tmp_path / "disturbed", moments)
    assert numbers(run, tmp_path / "disturbed") == numbers(run, tmp_path / "undisturbed")


def test_ctrl_c_reaches_the_caller_and_the_run_goes_on_later(recipe, tmp_path):
    (run,) = runs_of(recipe("none"))
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it in the background

    def interrupt(progress):
        if progress.epoch > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, tmp_path, machine=CPU, report=interrupt)
    assert signal.signal(signal.SIGINT, outside) == signal.default_int_handler
    assert not is_done(run, tmp_path)
    assert execute(run, tmp_path, machine=CPU, report=ignore) is None
    assert is_done(run, tmp_path)


def test_dropout_is_resumed_exactly(recipe, interrupted, tmp_path, monkeypatch):
    """Random numbers drawn inside the network follow from seed and epoch, not from how many were drawn before."""
    from heedful.train import prepare as module

    build = module.build
    monkeypatch.setattr(module, "build", lambda *a, **k: torch.nn.Sequential(torch.nn.Dropout(0.3), build(*a, **k)))
    (run,) = runs_of(recipe("none"))
    execute(run, tmp_path / "undisturbed", machine=CPU, report=ignore)
    interrupted(run, tmp_path / "disturbed", [1.2])
    first, second = (result_of(run, tmp_path / name)["metrics"] for name in ("undisturbed", "disturbed"))
    assert first == second


def test_an_epoch_may_end_where_the_loss_was_just_checked(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("heedful.train.module.STEPS_BETWEEN_CHECKS", 1)
    (run,) = runs_of(recipe())
    assert execute(run, tmp_path, machine=CPU, report=ignore) is None


def test_a_diverging_loss_ends_the_run_and_keeps_the_last_good_checkpoint(recipe, tmp_path):
    (run,) = runs_of(recipe("none", learning_rate=1e6, epochs=4))
    message = execute(run, tmp_path, machine=CPU, report=ignore)
    folder = tmp_path / run.folder
    assert message is not None
    assert "seed 0: the loss became" in message
    assert "at step" in message
    assert "with learning rate 1e+06: lower it (--learning-rate)" in message
    assert not is_done(run, tmp_path)
    assert json.loads((folder / "failure.json").read_text())["message"] == message
    if (folder / "last.ckpt").exists():
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
        assert all(math.isfinite(record["train_loss"]) for record in checkpoint["history"])
        assert str(folder / "last.ckpt") in message
    else:
        assert "no epoch was finished" in message


def test_a_diverged_run_keeps_the_epochs_before(recipe, tmp_path, monkeypatch):
    (run,) = runs_of(recipe("none"))
    forward = Training.training_step

    def poisoned(self, batch, batch_index):
        loss = forward(self, batch, batch_index)
        if self.num_finished == 2 and batch_index == 1:
            self._losses[-1] = self._losses[-1] * torch.nan
        return loss

    monkeypatch.setattr(Training, "training_step", poisoned)
    message = execute(run, tmp_path, machine=CPU, report=ignore)
    assert "nan at step 2 of epoch 3" in message
    assert str(tmp_path / run.folder / "last.ckpt") in message
    checkpoint = torch.load(tmp_path / run.folder / "last.ckpt", weights_only=True)
    assert [record["epoch"] for record in checkpoint["history"]] == [1, 2]
    monkeypatch.undo()
    assert execute(run, tmp_path, machine=CPU, report=ignore) is None  # carried on from there
    assert not (tmp_path / run.folder / "failure.json").exists()


def test_weight_decay_is_on_kernels_and_matrices_alone(recipe, tmp_path):
    (run,) = runs_of(recipe("se", weight_decay=5e-4))
    seen = {}

    def look(progress):
        seen["yes"] = True

    execute(run, tmp_path, machine=CPU, report=look)
    groups = torch.load(tmp_path / run.folder / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    decayed, free = groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0)
    model = load(tmp_path / run.folder)
    assert len(decayed["params"]) == sum(p.ndim > 1 for p in model.parameters())
    assert len(free["params"]) == sum(p.ndim == 1 for p in model.parameters())


def test_the_schedule_of_the_paper_and_the_cosine():
    steps, cosine = Settings(epochs=200), Settings(schedule="cosine", epochs=10)
    papers = [rate_factor(steps, epoch) for epoch in range(200)]
    assert [papers.index(pytest.approx(0.2**i)) for i in range(4)] == [0, 60, 120, 160]
    assert rate_factor(steps, 59.99) == 1
    assert rate_factor(cosine, 0) == 1
    assert rate_factor(cosine, 5) == rate_factor(cosine, 5.9) == pytest.approx(0.5)


def test_step10_divides_by_10_after_each_milestone():
    settings = Settings(schedule="step10", milestones=(81, 122), epochs=160)
    factors = [rate_factor(settings, epoch + part) for epoch in range(160) for part in (0, 0.9)]
    assert factors == pytest.approx(81 * 2 * [1] + 41 * 2 * [0.1] + 38 * 2 * [0.01])


def test_annealing_is_snapshot_ensembles_equation_2_with_one_cycle(recipe, tmp_path):
    """α(t) = α_0 / 2 (cos(π mod(t − 1, ⌈T/M⌉) / ⌈T/M⌉) + 1) for the steps t = 1, ..., T, with M = 1."""
    settings, steps_per_epoch = Settings(schedule="annealed", epochs=7), 13
    total = 7 * steps_per_epoch
    for t in range(1, total + 1):
        expected = 0.5 * (math.cos(math.pi * ((t - 1) % total) / total) + 1)
        assert rate_factor(settings, (t - 1) / steps_per_epoch) == pytest.approx(expected, abs=1e-12)
    (run,) = runs_of(recipe("none", schedule="annealed", epochs=4))
    rates = []
    step = Training.training_step

    def noted(self, batch, batch_index):
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, batch_index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "training_step", noted)
        execute(run, tmp_path, machine=CPU, report=ignore)
    assert len(rates) == 4 * 3
    assert rates == pytest.approx([0.05 * (math.cos(math.pi * t / 12) + 1) for t in range(12)])


def test_a_scheduled_alpha_follows_the_epochs_and_is_saved(recipe, tmp_path):
    (run,) = runs_of(recipe("se-ign1(1to0.5)"))
    execute(run, tmp_path, machine=CPU, report=ignore)
    alphas = [module.alpha.item() for module in load(tmp_path / run.folder).modules() if hasattr(module, "advance")]
    best = result_of(run, tmp_path)["metrics"]["best_epoch"]
    assert alphas == [pytest.approx({1: 1, 2: 0.75, 3: 0.5}[best])] * 3


def test_learning_rates_are_written_down_as_scheduled(recipe, tmp_path):
    (run,) = runs_of(recipe("none", epochs=10))
    execute(run, tmp_path, machine=CPU, report=ignore)
    with (tmp_path / run.folder / "metrics.csv").open() as file:
        rates = [float(line["learning_rate"]) for line in csv.DictReader(file)]
    assert rates == pytest.approx([0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2)


def test_epoch_seeds_differ_by_seed_and_epoch():
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400


def test_data_errors_come_before_anything_is_trained(recipe, tmp_path):
    (run,) = runs_of(recipe("none", data=str(tmp_path / "missing.npz")))
    with pytest.raises(InputError, match="no such file or folder"):
        execute(run, tmp_path / "out", machine=CPU, report=ignore)


def test_augmentation_is_what_the_data_suits_unless_it_is_chosen(recipe):
    (run,) = runs_of(recipe("none"))
    assert Classification(replace(run.row.settings, data="digits"), 0).augment == ("shift-zero",)
    (chosen,) = runs_of(recipe("none", augment=("flip",)))
    assert Classification(chosen.row.settings, 0).augment == ("flip",)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", ["cbam-ign2", "pay2-dp-ign1(0.5)"])
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_run_learns_on_a_gpu(recipe, tmp_path, precision, variant):
    (run,) = runs_of(recipe(variant, epochs=15, schedule="cosine", precision=precision))
    assert execute(run, tmp_path, machine=Machine(device="cuda"), report=ignore) is None
    assert result_of(run, tmp_path)["metrics"]["val_error"] < 20
    assert result_of(run, tmp_path)["environment"]["device"].startswith("cuda")


def test_a_compiled_run_learns_the_same(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: compiled(function))
    calls = []

    def compiled(function):
        def run(images):
            calls.append(len(images))
            return function(images)

        return run

    (run,) = runs_of(recipe("se", compile=True))
    execute(run, tmp_path / "compiled", machine=CPU, report=ignore)
    assert sum(calls) == 3 * (48 + 6)  # every training and validation image, and nothing after training
    (plain,) = runs_of(recipe("se"))
    execute(plain, tmp_path / "plain", machine=CPU, report=ignore)
    assert numbers(run, tmp_path / "compiled") == numbers(plain, tmp_path / "plain")
