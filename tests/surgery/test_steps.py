"""Networks run from layer to layer: what they compute is what they would have, and what is sent goes on."""

import gc
import weakref

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from heedful import InputError
from heedful.models.streams import HCN
from heedful.surgery.steps import order_of, steps
from tests.surgery.networks import Branching, Making, Plain, Residual, Twice

NETWORKS = {
    "resnet18": (
        lambda: torchvision.models.resnet18(num_classes=4),
        ["layer1", "layer2.0", "layer2.1.conv2", "layer4"],
    ),
    "vgg11": (
        lambda: torchvision.models.vgg11(num_classes=4),
        ["features.2", "features.10", "avgpool", "classifier.3"],
    ),
    "densenet121": (
        lambda: timm.create_model("densenet121", num_classes=4),
        ["features.denseblock1", "features.norm5"],
    ),
    "efficientnet_b0": (lambda: timm.create_model("efficientnet_b0", num_classes=4), ["blocks.1", "blocks.4", "bn2"]),
    "convnext_atto": (lambda: timm.create_model("convnext_atto", num_classes=4), ["stages.0", "stages.3", "stages"]),
}


class Dropping(nn.Module):
    """Drops half in its own forward, in training alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 1)
        self.head = nn.Linear(64, 2)

    def forward(self, x):
        return self.head(F.dropout(self.conv(x), 0.5, self.training).mean((2, 3)))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x, mask=None):
        return self.conv(x if mask is None else x * mask)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_run_in_steps_computes_what_it_does_in_one(name):
    make, layers = NETWORKS[name]
    model, x = make().eval(), torch.randn(2, 3, 64, 64)
    assert order_of(model, layers) == layers
    expected = {}
    hooks = [
        model.get_submodule(layer).register_forward_hook(
            lambda _m, _i, out, layer=layer: expected.update({layer: out.clone()})
        )
        for layer in layers
        if layer != "stages"  # an opened module, whose hooks do not run
    ]
    with torch.no_grad():
        whole, seen = model(x), expected.copy()
        run = steps(model, layers, x)
        features = next(run)
        for layer in layers:
            if layer in seen:
                assert torch.equal(features, seen[layer])
            features = run.send(features)
    assert torch.equal(features, whole)
    assert len(hooks) == len(seen)
    with pytest.raises(StopIteration):
        next(run)


def test_the_network_goes_on_with_what_is_sent():
    model, x = Residual().eval(), torch.randn(2, 1, 8, 8)
    run = steps(model, ["stage1", "stage2"], x)
    first = next(run)
    second = run.send(first * 2)
    torch.testing.assert_close(second, model.stage2(model.stage1(model.stem(x)) * 2))
    torch.testing.assert_close(run.send(second * 3), model.head((second * 3).mean((2, 3))))


def test_gradients_are_those_of_the_network():
    model, x = HCN(num_classes=3, num_joints=4, num_frames=16).eval(), torch.randn(2, 3, 16, 4, 2)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    run = steps(model, model.levels, x)
    features = next(run)
    for _ in model.levels:
        features = run.send(features)
    features.square().sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_what_a_forward_does_in_training_alone_is_done_in_training_alone():
    model, x = Dropping(), torch.randn(1, 3, 8, 8)
    for training in (True, False, True):
        model.train(training)
        run = steps(model, ["conv"], x)
        features = next(run)
        torch.manual_seed(1)
        out = run.send(features)
        torch.manual_seed(1)
        torch.testing.assert_close(out, model(x))
    assert not torch.equal(out, model.eval()(x))


def test_a_module_that_was_exchanged_is_the_one_that_runs():
    model, x = Residual().eval(), torch.randn(2, 1, 8, 8)
    list(zip(range(1), steps(model, ["stage1"], x), strict=False))
    model.head = nn.Identity()
    run = steps(model, ["stage1"], x)
    assert run.send(next(run)).shape == (2, 16)


def test_without_layers_any_network_runs():
    model, x = Branching().eval(), torch.randn(1, 3, 8, 8)
    assert order_of(model, []) == []
    assert torch.equal(next(steps(model, [], x)), model(x))


def test_nothing_of_a_network_is_kept():
    model = Plain()
    next(steps(model, ["conv2"], torch.randn(1, 3, 12, 12)))
    assert isinstance(model.kept, torch.Tensor) or model.kept is None
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None


def test_layers_are_counted_in_the_order_in_which_they_run():
    assert order_of(Residual(), ["stage2", "stage1.1", "stage1", "head"]) == ["stage1.1", "stage1", "stage2", "head"]
    assert order_of(Twice(), ["conv"]) == ["conv", "conv"]
    assert order_of(Residual(), ["stage1.0.down"]) == []


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (Branching(), "conv1", "inside Branching, whose forward depends on the values"),
        (TwoInputs(), "conv", "takes 2 inputs"),
        (Making(), "conv", "makes tensors of its own"),
    ],
    ids=["branching", "two inputs", "making"],
)
def test_a_network_that_cannot_be_stopped_is_refused(model, layer, message):
    with pytest.raises(InputError, match=message):
        order_of(model, [layer])
    with pytest.raises(InputError, match=message):
        next(steps(model, [layer], torch.randn(1, 3, 8, 8)))
