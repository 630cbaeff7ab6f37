"""The pre-activation ResNets of He et al. and [J] against their definition, and the sizes that are known of them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import heedful
from heedful import InputError
from heedful.evaluate.cost import num_flops
from heedful.maps.record import recorded
from heedful.models.cifar_preresnet import CifarPreResNet


class Scaled(nn.Module):
    """Stands for a dropout: the rate has an effect, and chance has none."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        return x * (1 - self.rate)


def made(**options):
    """Return a network in float64 and evaluation mode, with statistics as after training, and without chance."""
    network = CifarPreResNet(20, num_classes=5, **options)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Scaled(child.p))
            if isinstance(child, nn.BatchNorm2d):
                child.running_mean.uniform_(-0.5, 0.5)
                child.running_var.uniform_(0.005, 0.05)  # so small that ε counts
                nn.init.uniform_(child.weight, 0.05, 0.2)
                nn.init.uniform_(child.bias, -0.5, 0.5)
            if isinstance(child, nn.Conv2d | nn.Linear) and child.bias is not None:
                nn.init.uniform_(child.bias, -0.5, 0.5)
    return network.double().eval()


def activated(x, norm, eps=1e-5):
    mean, var, weight, bias = (
        t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return ((x - mean) / (var + eps).sqrt() * weight + bias).clamp(min=0)


def stages(network, x):
    """Return the sums that end the three stages, as He et al. define them: x + F(x), F three times BN-ReLU-conv."""
    x, ends = F.conv2d(x, network.conv1.weight, padding=1), []
    for number, stage in enumerate((network.layer1, network.layer2, network.layer3)):
        for place, block in enumerate(stage):
            stride = 2 if number > 0 and place == 0 else 1
            first = activated(x, block.bn1)
            branch = F.conv2d(first, block.conv1.weight, stride=stride)
            branch = F.conv2d(activated(branch, block.bn2), block.conv2.weight, padding=1)
            branch = F.conv2d(activated(branch, block.bn3), block.conv3.weight)
            x = branch + (F.conv2d(first, block.shortcut.weight, stride=stride) if place == 0 else x)
        ends.append(x)
    return ends


@pytest.mark.parametrize("size", [32, 8, 80])
@pytest.mark.parametrize("convolved", [False, True])
def test_the_network_is_its_definition_and_its_levels_are_the_bare_sums(size, convolved):
    network = made(convolved=convolved)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with recorded(network, network.levels) as seen:
        logits = network(x)
    ends = stages(network, x)
    branch = network.global_branch
    vector = activated(ends[2], branch[0])
    if convolved:
        vector = F.max_pool2d(vector, 2)
        vector = activated(F.conv2d(vector, branch[3].weight, branch[3].bias, padding=1), branch[4], 1e-3) * 0.6
        assert size != 32 or vector.shape[2:] == (4, 4)
        vector = vector.amax((2, 3)) * 0.5 @ branch[-1].weight.T + branch[-1].bias
    else:
        vector = vector.mean((2, 3))
    expected = vector @ network.classifier.weight.T + network.classifier.bias
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-10)
    for name, end, side, width in zip(network.levels, ends, (size, size // 2, size // 4), (64, 128, 256), strict=True):
        torch.testing.assert_close(seen.outputs[name], end, rtol=1e-9, atol=1e-10)
        assert end.shape == (2, width, side, side)
        assert end.min() < 0  # no ReLU


def block_sizes(inward, outward, inner, side, *, first):
    """Return parameters and multiply-adds of a block; side is that of its output."""
    kernels = inward * inner + 9 * inner * inner + inner * outward + (inward * outward if first else 0)
    norms = 2 * (inward + inner + inner)
    return kernels + norms, kernels * side**2


def sizes(depth, num_classes):
    num_blocks, parameters, macs, inward = (depth - 2) // 9, 27 * 16, 27 * 16 * 32**2, 16
    for outward, side in ((64, 32), (128, 16), (256, 8)):
        for block in range(num_blocks):
            more = block_sizes(inward, outward, outward // 4, side, first=block == 0)
            parameters, macs, inward = parameters + more[0], macs + more[1], outward
    return parameters + 2 * 256 + 256 * num_classes + num_classes, macs + 256 * num_classes


@pytest.mark.parametrize("convolved", [False, True])
def test_sizes_are_those_of_the_definition(convolved):
    with torch.device("meta"):
        network, image = CifarPreResNet(num_classes=10, convolved=convolved), torch.empty(1, 3, 32, 32)
    parameters, macs = sizes(164, 10)
    assert round(parameters / 1e6, 1) == 1.7  # He et al., table 4
    if convolved:
        parameters += 9 * 256 * 256 + 256 + 2 * 256 + 256 * 256 + 256
        macs += 9 * 256 * 256 * 4 * 4 + 256 * 256
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert num_flops(network, image) == 2 * macs


def test_there_are_164_layers_and_the_dropout_of_the_attended_features_is_told():
    network = CifarPreResNet()
    named = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len([name for name in named if "shortcut" not in name]) == 164
    assert all(module.bias is None for module in network.modules() if isinstance(module, nn.Conv2d))
    assert network.attended_dropout == 0.3


def test_kernels_are_drawn_by_their_outputs_and_biases_are_0():
    torch.manual_seed(0)
    for module in CifarPreResNet(20, convolved=True).modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * module.weight.numel()))
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            assert not module.bias.any()


@pytest.mark.parametrize("depth", [2, 7, 163, 0, -7])
def test_depths_that_do_not_exist_are_refused(depth):
    with pytest.raises(InputError, match=rf"depth is {depth}, but .*9n\+2"):
        CifarPreResNet(depth)


@pytest.mark.parametrize("convolved", [False, True])
def test_attention_goes_before_each_addition_and_trains(convolved):
    network = CifarPreResNet(20, num_classes=3, in_channels=1, convolved=convolved)
    sites = heedful.attach(network, "se")
    assert [site.name for site in sites] == [f"layer{stage}.{block}.conv3" for stage in (1, 2, 3) for block in (0, 1)]
    network(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
