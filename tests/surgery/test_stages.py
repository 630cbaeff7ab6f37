"""Where each resolution of a network ends."""

import pytest
import timm
import torch
from torch import nn

from heedful import InputError
from heedful.maps.record import last_layers
from heedful.surgery.stages import levels, stage_ends


def test_of_each_resolution_the_outermost_and_of_these_the_last_counts():
    finished = [
        ("conv1", (16, 16)),
        ("layer1.0.conv", (16, 16)),
        ("layer1", (16, 16)),
        ("layer2.0.conv1", (16, 16)),
        ("layer2.0.conv2", (8, 8)),
        ("layer2", (8, 8)),
        ("norm", (8, 8)),
    ]
    assert stage_ends(finished) == ["layer1", "norm"]
    assert stage_ends(list(reversed(finished))) == ["conv1", "layer2"]
    assert stage_ends([]) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", ("layer3", "layer4")),
        ("resnet18", ("layer3", "layer4")),
        ("densenet121", ("features.denseblock3", "features")),
        ("efficientnet_b0", ("blocks.4", "bn2")),
    ],
)
def test_the_last_two_stages_are_those_of_the_network_and_not_a_convolution_that_begins_the_last(name, expected):
    model = timm.create_model(name).eval()
    assert last_layers(model, torch.zeros(1, 3, 128, 128)) == expected
    assert levels(model, torch.empty(1, 3, 128, 128, device="meta"))[-2:] == expected


def test_levels_are_the_networks_own_where_it_names_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2))
    x = torch.empty(1, 3, 32, 32, device="meta")
    assert levels(model, x) == ("0", "1")
    model.levels = ("0",)
    assert levels(model, x) == ("0",)
    for other in (("low", "high"), 3, ("0", 1), ["0"]):  # an attribute of that name with another meaning
        model.levels = other
        assert levels(model, x) == ("0", "1")


def test_a_network_that_cannot_run_on_the_images_is_refused():
    with pytest.raises(InputError, match="the network cannot run on an input of shape"):
        levels(nn.Sequential(nn.Conv2d(5, 4, 3)), torch.empty(1, 3, 32, 32, device="meta"))
