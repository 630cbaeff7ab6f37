"""Where attention goes, by structure and by choice."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from heedful import InputError, build
from heedful.surgery.convolutions import convolution_sites
from heedful.surgery.dry_run import outputs
from heedful.surgery.sites import output_sites
from tests.surgery.networks import Branching, Making, Plain, Residual, Tied, Twice


def torchvisions(name, **options):
    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None, **options)


def timms(name):
    with torch.device("meta"):
        return timm.create_model(name)


@pytest.mark.parametrize(
    ("model", "number", "first", "last"),
    [
        (lambda: torchvisions("resnet18"), 8, "layer1.0.bn2", "layer4.1.bn2"),
        (lambda: torchvisions("resnet50"), 16, "layer1.0.bn3", "layer4.2.bn3"),
        (lambda: timms("resnet50d"), 16, "layer1.0.bn3", "layer4.2.bn3"),
        (lambda: timms("seresnet50"), 16, "layer1.0.se", "layer4.2.se"),
        (lambda: torchvisions("mobilenet_v2"), 17, "features.1.conv.2", "features.17.conv.3"),
        (lambda: torchvisions("efficientnet_b0"), 16, "features.1.0.block.2.1", "features.7.0.block.3.1"),
        (lambda: torchvision.models.regnet_y_400mf(), 16, "trunk_output.block1.block1-0.f.c.1", None),
        (lambda: torchvisions("convnext_tiny"), 18, "features.1.0.stochastic_depth", "features.7.2.stochastic_depth"),
        (lambda: timms("dla34"), 12, None, None),
        (lambda: torchvisions("densenet121"), 7, "features.denseblock1", "features.denseblock4"),
        (lambda: timms("densenet121"), 7, "features.denseblock1", "features.denseblock4"),
        (lambda: torchvisions("inception_v3", init_weights=False), 11, "Mixed_5b", "Mixed_7c"),
        (lambda: torchvisions("squeezenet1_1"), 8, "features.3", "features.12"),
        (lambda: torchvisions("vgg11"), 8, "features.1", "features.19"),
        (lambda: torchvisions("vgg11_bn"), 8, "features.2", "features.27"),
        (lambda: timms("mobilenetv1_100"), 27, "bn1", "blocks.4.1.bn2"),
        (lambda: build("cifar_resnet20", num_classes=2), 9, "layer1.0.bn2", "layer3.2.bn2"),
        (lambda: build("cifar_densenet40", num_classes=2), 5, "block1", "block3"),
        (Residual, 4, "stage1.0.bn", "stage2.1.bn"),
        (Plain, 2, "bn1", "conv2"),
        (Branching, 2, "conv1", "conv2"),
    ],
)
def test_sites_by_structure(model, number, first, last):
    sites = output_sites(model())
    assert len(sites) == number
    assert first in (None, sites[0])
    assert last in (None, sites[-1])


@pytest.mark.parametrize(
    ("model", "number", "first", "kernel"),
    [
        (lambda: torchvisions("resnet50"), 16, "layer1.0.conv2", {(3, 3)}),
        (lambda: torchvisions("resnext50_32x4d"), 16, "layer1.0.conv2", {(3, 3)}),
        (lambda: timms("resnet50d"), 16, "layer1.0.conv2", {(3, 3)}),
        (lambda: torchvisions("resnet18"), 16, "layer1.0.conv1", {(3, 3)}),
        (lambda: timms("mobilenetv1_100"), 6, "blocks.1.0.conv_pw", {(1, 1)}),
        (lambda: torchvisions("mobilenet_v2"), 8, "features.2.conv.2", {(1, 1)}),
        (lambda: timms("efficientnet_b0"), 8, "blocks.1.0.conv_pwl", {(1, 1)}),
        (lambda: torchvisions("vgg11"), 7, "features.3", {(3, 3)}),
        (lambda: timms("convnext_atto"), 6, "stages.0.blocks.1.mlp.fc1", {(1, 1)}),
        (lambda: torchvisions("convnext_tiny"), 18, "features.1.0.block.0", {(7, 7)}),
        (Residual, 4, "stage1.0.conv", {(3, 3)}),
    ],
)
def test_convolutions_by_structure(model, number, first, kernel):
    model = model()
    sites = convolution_sites(model)
    assert len(sites) == number, sites
    assert first in (None, sites[0])
    assert {model.get_submodule(name).kernel_size for name in sites} == kernel


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ("layer3", ["layer3.0.bn2", "layer3.1.bn2"]),
        ("layer3.1", ["layer3.1.bn2"]),
        ("layer*.1", [f"layer{i}.1.bn2" for i in (1, 2, 3, 4)]),
        (["layer1", "layer4.0"], ["layer1.0.bn2", "layer1.1.bn2", "layer4.0.bn2"]),
        ("layer1.*.bn1", ["layer1.0.bn1", "layer1.1.bn1"]),
        ("maxpool", ["maxpool"]),
        (lambda name, module: isinstance(module, nn.MaxPool2d), ["maxpool"]),
        (lambda name, module: name in ("layer1", "layer2.0"), ["layer1.1", "layer2.0"]),
    ],
)
def test_sites_by_choice(sites, expected):
    assert output_sites(torchvisions("resnet18"), sites) == expected


def test_convolutions_by_choice():
    model = torchvisions("resnet50")
    assert convolution_sites(model, "layer3.1") == ["layer3.1.conv2"]
    assert convolution_sites(model, "layer3.1.conv1") == ["layer3.1.conv1"]
    assert convolution_sites(model, lambda name, module: name.startswith("layer4.2")) == [
        f"layer4.2.conv{i}" for i in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ("layer7", "unknown site 'layer7': did you mean layer"),
        ("layer*.7", r"unknown site 'layer\*.7'"),
        (["layer1.0", "layer1.0"], "'layer1.0.bn2' occurs twice"),
        (["layer1", "layer*.0"], "'layer1.0.bn2' occurs twice"),
        (lambda name, module: name in ("layer1.0", "layer1.0.bn1"), "'layer1.0.bn1' lies within 'layer1.0'"),
        (lambda name, module: False, "the predicate is true for no module"),
    ],
)
def test_sites_that_match_nothing_or_too_much_are_refused(sites, message):
    with pytest.raises(InputError, match=message):
        output_sites(torchvisions("resnet18"), sites)


def test_convolutions_that_are_none_are_refused():
    model = torchvisions("resnet18")
    with pytest.raises(InputError, match=r"'layer1.0.bn1' is a BatchNorm2d, but attention on weights needs"):
        convolution_sites(model, "layer1.0.bn1")
    with pytest.raises(InputError, match="no convolution was found"):
        convolution_sites(model, lambda name, module: name == "fc")
    with pytest.raises(InputError, match="no plain convolution"):
        convolution_sites(nn.Sequential(nn.Linear(3, 3)))


def test_a_network_without_convolutions_is_refused():
    with pytest.raises(InputError, match="no place for attention was found"):
        output_sites(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))


def test_a_dry_run_computes_nothing_and_leaves_the_network_as_it_was():
    model = Residual().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    shapes = outputs(model, ["stage1.0", "stage2"])
    assert [call.shape for call in shapes["stage2"]] == [(1, 16, 112, 112)]
    assert shapes["stage1.0"][0].device.type == "meta"
    assert model.training
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_dry_run_counts_calls_and_takes_networks_that_make_tensors_or_fail_late():
    assert len(outputs(Twice(), ["conv"])["conv"]) == 2
    assert len(outputs(Tied(), ["first"])["first"]) == 2
    assert outputs(Making(), ["conv"])["conv"][0].shape == (1, 4, 224, 224)
    late = Plain()
    assert outputs(late, ["conv2"])["conv2"][0].shape == (1, 16, 220, 220)
    assert outputs(late, ["head"], torch.empty(2, 3, 12, 12))["head"][0].shape == (2, 3)


def test_a_network_that_cannot_run_says_what_to_give():
    with pytest.raises(InputError, match=r"cannot run on an input of shape \(1, 3, 224, 224\).*example="):
        outputs(Plain(), ["head"])


def test_tracing_leaves_no_proxy_in_a_network_that_keeps_its_activations():
    model = Plain()
    output_sites(model)
    assert model.kept is None
