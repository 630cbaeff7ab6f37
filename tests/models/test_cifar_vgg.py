"""The VGG networks of [J] against their definition, layer by layer, and the sizes that are known of them."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import heedful
from heedful.evaluate.cost import num_flops
from heedful.maps.record import recorded
from heedful.models.cifar_vgg import CifarVGG, CifarVGGTrunk
from heedful.train.classify import Classifier
from heedful.train.module import Training
from heedful.train.settings import Settings

BASELINE = (64, 0.3, 64, "P", 128, 0.4, 128, "P", 256, 0.4, 256, 0.4, 256, "P",
            512, 0.4, 512, 0.4, 512, "P", 512, 0.4, 512, 0.4, 512, "P")  # fmt: skip
LEVELS = (64, 0.3, 64, 128, 0.4, 128, 256, 0.4, 256, 0.4, 256, "L", "P",
          512, 0.4, 512, 0.4, 512, "L", "P", 512, 0.4, 512, 0.4, 512, "L")  # fmt: skip
TRUNK = (*LEVELS, "P", 512, 0.4, "P", 512, 0.4, "P")
"""Width: a convolution with batch norm and ReLU; rate: a dropout; P: a pooling; L: a level of attention."""


class Scaled(nn.Module):
    """Stands for a dropout: the rate has an effect, and chance has none."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        return x * (1 - self.rate)


def made(network):
    """Return the network in float64 and evaluation mode, with statistics as after training, and without chance."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Scaled(child.p))
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                child.running_mean.uniform_(-0.1, 0.1)
                child.running_var.uniform_(0.001, 0.01)  # so small that ε counts
                nn.init.uniform_(child.weight, 0.05, 0.1)
                nn.init.uniform_(child.bias, -0.1, 0.1)
            if isinstance(child, nn.Conv2d):
                nn.init.uniform_(child.bias, -0.1, 0.1)
    return network.double().eval()


def normalised(x, norm, eps):
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, var, weight, bias = (t.view(shape) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / (var + eps).sqrt() * weight + bias


def features(network, plan, x):
    """Return what the plan says of the network's convolutions, taken in order, and what it says at each level."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    pairs, levels = iter(zip(convolutions, norms, strict=True)), []
    for item in plan:
        if item == "P":
            x = F.max_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=-math.inf), 2)
        elif item == "L":
            levels.append(x)
        elif item < 1:
            x = x * (1 - item)
        else:
            convolution, norm = next(pairs)
            x = F.conv2d(x, convolution.weight, convolution.bias, padding=1)
            x = normalised(x, norm, 1e-3).clamp(min=0)
    assert next(pairs, None) is None
    return x, levels


def affine(linear, x):
    return x @ linear.weight.T + linear.bias


@pytest.mark.parametrize("size", [32, 8, 80])
def test_the_baseline_is_its_definition(size):
    network = made(CifarVGG(num_classes=7))
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        found, _ = features(network, BASELINE, x)
        linear, norm = network.hidden[3], network.hidden[4]
        hidden = normalised(affine(linear, found.amax((2, 3)) * 0.5), norm, 1e-5).clamp(min=0) * 0.5
        torch.testing.assert_close(network(x), affine(network.classifier, hidden), rtol=1e-9, atol=1e-12)
    assert size != 32 or found.shape == (2, 512, 1, 1)  # nothing is left to maximise over


@pytest.mark.parametrize(("size", "sides"), [(32, [32, 16, 8]), (8, [8, 4, 2]), (80, [80, 40, 20]), (36, [36, 18, 9])])
def test_the_trunk_is_its_definition_and_levels_lie_before_the_pools(size, sides):
    network = made(CifarVGGTrunk(num_classes=7, width_divisor=16))
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad(), recorded(network, network.levels) as seen:
        found, levels = features(network, TRUNK, x)
        vector = affine(network.global_branch[-1], found.amax((2, 3)) * 0.5)
        logits = network(x).detach()
    torch.testing.assert_close(logits, affine(network.classifier, vector).detach(), rtol=1e-9, atol=1e-12)
    for name, expected, side, width in zip(network.levels, levels, sides, (16, 32, 32), strict=True):
        torch.testing.assert_close(seen.outputs[name].detach(), expected, rtol=1e-9, atol=1e-12)
        assert expected.shape == (2, width, side, side)
        assert expected.min() == 0  # after ReLU
    assert size != 32 or found.shape == (2, 32, 1, 1)


def test_vgg_gap_averages_the_maps_of_its_classes():
    network = made(CifarVGGTrunk(num_classes=7, width_divisor=16, averaged=True))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        found, _ = features(network, LEVELS, x)
        maps = torch.einsum("kc,nchw->nkhw", network.classifier.weight, found)
        expected = maps.mean((2, 3)) + network.classifier.bias
        torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-12)
    assert maps.shape == (2, 7, 8, 8)
    assert sum(map(len, (network.block1, network.block2, network.block3))) == 49  # the module with the authors' maps


def convolution_macs(plan, side, width=3):
    """Return multiply-adds and parameters of the convolutions of a plan, and their batch norms' parameters."""
    macs = parameters = 0
    for item in plan:
        if item == "P":
            side = math.ceil(side / 2)
        elif item != "L" and item > 1:
            macs += 9 * width * item * side**2
            parameters += 9 * width * item + item + 2 * item
            width = item
    return macs, parameters


def linear_maps(*widths):
    macs = sum(a * b for a, b in itertools.pairwise(widths))
    return macs, macs + sum(widths[1:])


@pytest.mark.parametrize(
    ("make", "plan", "widths", "more", "giga_macs", "million"),
    [
        (CifarVGG, BASELINE, (512, 512, 100), 2 * 512, "0.314", "15.0"),
        (lambda **of: CifarVGGTrunk(averaged=True, **of), LEVELS, (512, 100), 0, "3.74", "14.8"),
        (CifarVGGTrunk, TRUNK, (512, 512, 100), 0, "3.79", "19.8"),
    ],
)
def test_sizes_are_those_of_the_definition_and_as_told(make, plan, widths, more, giga_macs, million):
    with torch.device("meta"):
        network, image = make(num_classes=100), torch.empty(1, 3, 32, 32)
    (macs, parameters), (linear_macs, linear_parameters) = convolution_macs(plan, 32), linear_maps(*widths)
    assert num_flops(network, image) == 2 * (macs + linear_macs)
    assert sum(p.numel() for p in network.parameters()) == parameters + linear_parameters + more
    assert f"{(macs + linear_macs) / 1e9:.{len(giga_macs) - 2}f}" == giga_macs
    assert f"{(parameters + linear_parameters + more) / 1e6:.1f}" == million


def test_kernels_are_drawn_by_their_outputs_and_linear_maps_as_torch_does():
    torch.manual_seed(0)
    for network in (CifarVGG(), CifarVGGTrunk()):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                expected = math.sqrt(2 / (9 * module.out_channels))
                count = module.weight.numel()
                assert module.weight.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * count))
                assert not module.bias.any()
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                assert 0.98 * bound < module.weight.abs().max() <= bound
                assert module.bias.any()


def test_the_small_trunk_is_an_eighth_as_wide():
    small, whole = CifarVGGTrunk(width_divisor=8), CifarVGGTrunk()
    for name, module in small.named_modules():
        other = whole.get_submodule(name)
        if isinstance(module, nn.Conv2d):
            assert 8 * module.out_channels == other.out_channels
        if isinstance(module, nn.Dropout):
            assert module.p == other.p
    assert small.classifier.in_features == 64


@pytest.mark.parametrize("averaged", [False, True])
def test_the_trunk_learns_a_batch_of_8_pixels(averaged):
    torch.manual_seed(0)
    network = CifarVGGTrunk(num_classes=2, width_divisor=16, averaged=averaged)
    images, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 2
    images += 2 * labels.view(-1, 1, 1, 1)
    module = Training(network, Classifier(network), Settings(), seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(60):
        loss = module.training_step((images, labels), 1)
        optimizer.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.5 * math.log(2)


@pytest.mark.parametrize("make", [CifarVGG, lambda **of: CifarVGGTrunk(width_divisor=16, **of)])
def test_attention_layers_and_grey_images_go_in(make):
    network = make(num_classes=3, in_channels=1)
    num_convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert len(heedful.attach(network, "se")) == num_convolutions
    network(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
