"""What goes into a network's last linear map."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import heedful
from heedful import InputError
from heedful.evaluate.features import features, last_maps
from heedful.models.pay_attention import PayAttention


@pytest.fixture
def images():
    return torch.randn(5, 3, 16, 16)


def batched(images, size=2):
    return [(batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in images.split(size)]


def logits(model, images):
    with torch.no_grad():
        return model.eval()(images)


@pytest.mark.parametrize("variant", ["none", "se", "cbam-ign2", "pay2-pc", "pay2-dp", "se+pay2-additive"])
def test_the_last_linear_map_makes_the_logits_of_them(images, variant):
    model = heedful.build("cifar_resnet8", variant, num_classes=7).train()
    found = features(model, batched(images))
    assert all(module.training for module in model.modules())
    (name,) = last_maps(model, images[:1])
    assert name == ("fc" if "pay" not in variant else "head.linear")
    linear = model.get_submodule(name)
    torch.testing.assert_close(F.linear(found, linear.weight, linear.bias).detach(), logits(model, images))
    assert not found.requires_grad


def test_they_are_what_a_hook_sees_of_all_images_at_once(images):
    model = heedful.build("cifar_resnet8", "se", num_classes=7)
    seen = []
    hook = model.fc.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    logits(model, images)
    hook.remove()
    torch.testing.assert_close(features(model, batched(images)), seen[0])
    assert features(model, batched(images)).shape == (5, 64)


def test_of_pay_attention_they_are_the_refined_vectors_without_dropout(images):
    model = heedful.build("cifar_resnet8", "pay2-pc", num_classes=7).train()
    for refinement in model.refinement:
        refinement.norm.running_mean.uniform_(-1, 1)
    found = features(model, batched(images))
    assert isinstance(model, PayAttention)
    local = {}
    levels = {name: model.backbone.get_submodule(name) for name in model.layers}
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: local.update({name: output}))
        for name, module in levels.items()
    ]
    weights = model.eval().masks(images)
    for hook in hooks:
        hook.remove()
    expected = []
    for name, refinement in zip(model.layers, model.refinement, strict=True):
        norm = refinement.norm
        attended = (local[name] * weights[name][:, None]).sum((2, 3))
        scaled = (attended - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        expected.append(scaled.clamp(min=0))
    torch.testing.assert_close(found, torch.cat(expected, 1).detach())


def test_of_independent_heads_they_stand_one_behind_the_other(images):
    model = heedful.build("cifar_resnet8", "pay2-pc-indep", num_classes=7)
    found = features(model, batched(images))
    assert last_maps(model, images[:1]) == ["head.linears.0", "head.linears.1"]
    first, second = model.head.linears
    parts = found.split([first.in_features, second.in_features], 1)
    each = [F.linear(x, one.weight, one.bias).softmax(1) for x, one in zip(parts, (first, second), strict=True)]
    mean = torch.stack(each).mean(0)
    torch.testing.assert_close(mean.detach(), logits(model, images).softmax(1))


def test_a_linear_map_with_as_many_outputs_inside_is_not_taken(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 7), nn.ReLU(), nn.Linear(7, 7), nn.Softmax(1))
    assert last_maps(model, images) == ["3"]
    assert features(model, batched(images)).shape == (5, 7)


class Own(nn.Linear):
    """A linear map with a forward pass of its own, as timm has one."""

    def forward(self, features):
        return F.linear(features, self.weight, self.bias)


def test_maps_of_a_subclass_and_of_frozen_networks_are_found(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), Own(784, 7)).requires_grad_(False)
    assert last_maps(model, images) == ["2"]


def test_before_a_convolution_they_are_means_over_places(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 7, 1), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten())  # fmt: skip
    assert last_maps(model, images) == ["2"]
    with torch.no_grad():
        expected = model[:2](images).mean((2, 3))
    torch.testing.assert_close(features(model, batched(images)), expected)


def test_a_linear_map_over_the_channels_of_places_is_none_of_one_vector(images):
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.last = nn.Linear(3, 4), nn.Linear(4, 7)

        def forward(self, images):
            return self.last(self.inside(images.permute(0, 2, 3, 1))).mean((1, 2))

    with pytest.raises(InputError, match="no linear map and no convolution"):
        last_maps(Places(), images)


def test_no_hook_is_left_also_after_an_error(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 7))
    features(model, batched(images))
    with pytest.raises(RuntimeError, match="shape"):
        features(model, [*batched(images), (torch.zeros(1, 3, 4, 4), torch.zeros(1))])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
