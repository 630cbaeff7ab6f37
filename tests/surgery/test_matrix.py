"""Every architecture takes every layer with every gate, and gives it back: small networks, small images."""

import functools
import itertools

import pytest
import timm
import torch
import torchvision
from timm.models.densenet import DenseNet as TimmDenseNet
from timm.models.resnet import BasicBlock as TimmBasicBlock
from timm.models.resnet import ResNet as TimmResNet
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
from torchvision.models.vgg import make_layers
from torchvision.ops import StochasticDepth

from heedful import attach, attend, build, detach, ign1, ign2, ign3
from heedful.gates import fresh
from heedful.layers import CONVOLUTIONS, LAYERS
from heedful.models.cifar_densenet import CifarDenseNet
from heedful.surgery.gating import gates_of
from heedful.temporary import exchange
from tests.surgery.networks import Branching, Residual

GATES = (attend, ign1(1), ign1(0.5), ign1("learned"), ign1("1to0.5"), ign2, ign3)
create = functools.partial(functools.partial, timm.create_model, num_classes=5)
small_resnet = functools.partial(functools.partial, ResNet, Bottleneck, [1, 1, 1, 1], num_classes=5)


def vgg(batch_norm):
    widths = [16, "M", 32, "M", 32, 32, "M", 32, "M"]
    return nn.Sequential(make_layers(widths, batch_norm), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


def convnext():
    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 2)], stochastic_depth_prob=0.1, num_classes=5)


NETWORKS = {
    "torchvision ResNet, bottlenecks": small_resnet(),
    "torchvision ResNeXt": small_resnet(groups=32, width_per_group=4),
    "torchvision Wide ResNet": small_resnet(width_per_group=128),
    "timm ResNet": create("resnet10t"),
    "timm ResNet-D, average pooling": create("resnet10t", stem_type="deep", avg_down=True),
    "timm ResNet with SE": lambda: TimmResNet(
        TimmBasicBlock, (1, 1, 1, 1), num_classes=5, block_args={"attn_layer": "se"}, drop_path_rate=0.1
    ),
    "torchvision DenseNet": lambda: DenseNet(8, (2, 2, 2, 2), 16, num_classes=5),
    "timm DenseNet": lambda: TimmDenseNet(growth_rate=8, block_config=(2, 2, 2, 2), num_classes=5),
    "VGG": lambda: vgg(False),
    "VGG with batch norm": lambda: vgg(True),
    "MobileNet v1": create("mobilenetv1_100"),
    "MobileNet v2": lambda: torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=5),
    "MobileNet v3": lambda: torchvision.models.mobilenet_v3_small(width_mult=0.25, num_classes=5),
    "timm MobileNet v3": create("mobilenetv3_small_050"),
    "EfficientNet": create("efficientnet_lite0"),
    "RegNetX": create("regnetx_002"),
    "RegNetY": create("regnety_002"),
    "timm ConvNeXt": create("convnext_atto", depths=(1, 1, 2, 1)),
    "torchvision ConvNeXt": convnext,
    "GoogLeNet": lambda: torchvision.models.googlenet(aux_logits=False, init_weights=False, num_classes=5),
    "SqueezeNet": lambda: torchvision.models.squeezenet1_1(num_classes=5),
    "ShuffleNet": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
    "LR-ASPP": lambda: lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5),
    "CIFAR ResNet": lambda: build("cifar_resnet8", num_classes=5),
    "CIFAR DenseNet": lambda: CifarDenseNet(10, num_classes=5),
    "a user's residual network": Residual,
    "a network that cannot be traced": Branching,
}


@functools.cache
def network(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    channels = next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    x = torch.randn(2, channels, 32, 32)
    with torch.no_grad():
        return model, x, tensor_of(model(x))


def tensor_of(output):
    return output["out"] if isinstance(output, dict) else output


@pytest.mark.parametrize("layer", [*LAYERS, *CONVOLUTIONS])
@pytest.mark.parametrize("name", NETWORKS)
def test_attach_run_and_detach(name, layer):
    model, x, plain = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    sites = attach(model, layer, start="paper")
    assert sites
    gated = [g for site in sites for g in gates_of(model.get_submodule(site.name).attention)]
    assert len(gated) >= len(sites)
    for shift in range(0, len(GATES), len(gated)):  # every gate somewhere in the network
        for place, gate in zip(gated, itertools.islice(itertools.cycle(GATES), shift, None), strict=False):
            exchange(place.module, place.attribute, fresh(gate))
        output = tensor_of(model(x))
        assert output.shape == plain.shape
        assert torch.isfinite(output).all()
        trained = list(model.parameters())
        gradients = torch.autograd.grad(output.square().sum(), trained, allow_unused=True)
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)
        assert any(gradient is not None for gradient in gradients)
    assert detach(model) == len(sites)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    with torch.no_grad():
        assert torch.equal(tensor_of(model(x)), plain)


def test_there_are_more_than_twenty_architectures():
    assert len(NETWORKS) > 20
    assert len(LAYERS) + len(CONVOLUTIONS) >= 11
    assert any(isinstance(module, StochasticDepth) for module in network("torchvision ConvNeXt")[0].modules())
