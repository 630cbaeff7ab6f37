"""Training with attention losses: what is minimised, what is written down, and that interruptions change nothing."""

import copy
import csv
import json

import pytest
import torch
import yaml

from heedful import InputError, build
from heedful.experiment import carry_out
from heedful.losses import ICASC, Weights
from heedful.models.saved import load
from heedful.train.classify import Classifier
from heedful.train.module import Training
from heedful.train.objective import attention_losses, check_objective
from heedful.train.run import Machine, execute, runs_of
from heedful.train.settings import OBJECTIVES, Settings

CPU = Machine(device="cpu", num_workers=0)
PARTS = ("classification", "inner_separation", "last_separation", "consistency")
ICASCS = [name for name, method in OBJECTIVES.items() if method]


def ignore(progress):
    pass


def history_of(run, out):
    with (out / run.folder / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in line.items() if key != "seconds"} for line in csv.DictReader(file)]


def weights_of(run, out):
    return {name: value.tolist() for name, value in load(out / run.folder).state_dict().items()}


def metrics_of(run, out):
    return json.loads((out / run.folder / "result.json").read_text())["metrics"]


@pytest.mark.parametrize("objective", ICASCS)
def test_the_step_minimises_the_losses_on_the_networks_own_maps(objective):
    settings = Settings(objective=objective, attention_weight=(0.5, 0.25, 2.0))
    model = build("cifar_resnet8", "se", num_classes=3)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    twin = copy.deepcopy(model)
    losses = ICASC(
        twin, "layer2", "layer3", method=OBJECTIVES[objective], weights=Weights(inner=0.5, last=0.25, consistency=2.0)
    )(images, labels)
    losses.total.backward()
    plain = copy.deepcopy(model)
    torch.nn.functional.cross_entropy(plain(images), labels).backward()

    learner = Classifier(model, attention=attention_losses(model, settings, images))
    module = Training(model, learner, settings, seed=0)
    module.training_step((images, labels), 1).backward()
    for ours, expected, without in zip(model.parameters(), twin.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)
        assert without.grad is not None
    assert not torch.allclose(model.conv1.weight.grad, plain.conv1.weight.grad)  # it reaches the trunk
    for buffer, expected in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected)  # statistics are updated once
    (step,) = module._parts
    assert {name: value.item() for name, value in step.items()} == {
        name: pytest.approx(getattr(losses, name).item()) for name in PARTS
    }


def test_the_parts_stand_beside_the_loss_in_the_history(recipe, tmp_path):
    none, icasc = runs_of(recipe("none", "none@icasc", attention_weight=0.5))
    for run in (none, icasc):
        assert execute(run, tmp_path, machine=CPU, report=ignore) is None
    assert not set(PARTS) & set(history_of(none, tmp_path)[0])
    for record in history_of(icasc, tmp_path):
        attention = 0.5 * sum(record[name] for name in PARTS[1:])
        assert record["train_loss"] == pytest.approx(record["classification"] + attention, rel=1e-5)
        assert 0 < record["inner_separation"] < 1
    assert (icasc.folder.parent.name, icasc.row.settings.objective) == ("none@icasc", "icasc")
    assert yaml.safe_load((tmp_path / icasc.folder / "run.yaml").read_text())["settings"]["objective"] == "icasc"


def test_attention_counts_from_its_first_epoch_on_and_grows(recipe, tmp_path):
    """Until then a run is the plain one, to the bit; from then on another."""
    plain, icasc = runs_of(recipe("none", "none@icasc", epochs=4, start_epoch=2, ramp=1))
    for run in (plain, icasc):
        execute(run, tmp_path, machine=CPU, report=ignore)
    ours, theirs = history_of(icasc, tmp_path), history_of(plain, tmp_path)
    for epoch in (0, 1):
        assert {name: ours[epoch][name] for name in theirs[epoch]} == theirs[epoch]
        assert ours[epoch]["inner_separation"] == 0
    for epoch, strength in ((2, 0.5), (3, 1)):
        attention = strength * sum(ours[epoch][name] for name in PARTS[1:])
        assert ours[epoch]["train_loss"] == pytest.approx(ours[epoch]["classification"] + attention, rel=1e-5)
        assert ours[epoch]["train_loss"] != theirs[epoch]["train_loss"]


@pytest.mark.parametrize("moments", [[0.25], [1], [1.5, 2]])
def test_an_interrupted_run_ends_with_the_same_numbers(recipe, interrupted, tmp_path, moments):
    (run,) = runs_of(recipe("se@icasc", start_epoch=1, ramp=2))
    execute(run, tmp_path / "undisturbed", machine=CPU, report=ignore)
    interrupted(run, tmp_path / "disturbed", moments)
    for found in (history_of, weights_of, metrics_of):
        assert found(run, tmp_path / "disturbed") == found(run, tmp_path / "undisturbed")


def test_first_order_gives_another_gradient():
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    gradients = []
    for first_order in (False, True):
        torch.manual_seed(1)
        model = build("cifar_resnet8", num_classes=3)
        settings = Settings(objective="icasc", first_order=first_order)
        attention_losses(model, settings, images)(images, labels).total.backward()
        gradients.append(model.conv1.weight.grad)
    assert not torch.allclose(*gradients)


def test_layers_are_found_or_taken_as_named():
    model, images = build("cifar_resnet8", num_classes=3), torch.randn(1, 3, 32, 32)
    found = attention_losses(model, Settings(objective="icasc"), images)
    assert (found.inner, found.last) == ("layer2", "layer3")
    named = attention_losses(model, Settings(objective="icasc", inner="layer1", last="layer2"), images)
    assert (named.inner, named.last) == ("layer1", "layer2")
    assert attention_losses(model, Settings(), images) is None


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({"inner": "layer2", "last": "layr3"}, 32, r"unknown layer 'layr3': did you mean layer3"),
        ({"inner": "layer2", "last": "fc"}, 32, r"layer 'fc' puts out \(3,\) on images of 32 x 32"),
        (
            {"inner": "layer2", "last": "layer3"},
            8,
            r"'layer3' puts out \(64, 2, 2\) on images of 8 x 8 .* larger",
        ),
        ({}, 4, r"on images of 4 x 4 pixels this network has no two resolutions .* 8 x 8"),
    ],
)
def test_layers_without_maps_are_refused(settings, size, message):
    model = build("cifar_resnet8", num_classes=3)
    with pytest.raises(InputError, match=f"objective icasc, model .*{message}"):
        check_objective(model, Settings(objective="icasc", **settings), size)


def test_a_network_without_maps_is_refused_before_any_row_is_trained(recipe, tmp_path):
    with pytest.raises(InputError, match=r"objective icasc, model resnet18: .*larger images"):
        carry_out(recipe("none", "none@icasc", model="resnet18"), tmp_path / "out", machine=CPU)
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.parametrize("objective", ICASCS)
def test_a_run_learns_on_a_gpu(recipe, tmp_path, precision, objective):
    (run,) = runs_of(recipe(f"se@{objective}", epochs=15, schedule="cosine", precision=precision))
    assert execute(run, tmp_path, machine=Machine(device="cuda"), report=ignore) is None
    assert metrics_of(run, tmp_path)["val_error"] < 20
