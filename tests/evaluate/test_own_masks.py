"""The masks of a network's own gates and levels, and what is made of several."""

import numpy as np
import pytest
import torch

from heedful import InputError, build
from heedful.evaluate.own_masks import fused, own_masks
from heedful.surgery.masks import record

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", ["pay2-dp", "cbam+pay2-pc"])
def test_of_pay_attention_they_are_the_levels_weights(variant):
    model = build("cifar_resnet8", variant, num_classes=3).train()
    found = own_masks(model, IMAGES)
    assert model.training
    expected = model.eval().masks(IMAGES)
    assert list(found) == ["layer2", "layer3"]
    for level, mask in found.items():
        torch.testing.assert_close(mask, expected[level])
        assert not mask.requires_grad


@pytest.mark.parametrize(("variant", "ending"), [("cbam", ".spatial"), ("bam", "attention")])
def test_of_gates_they_are_those_that_weigh_places(variant, ending):
    model = build("cifar_resnet8", variant, num_classes=3).eval()
    with record(model) as kept, torch.no_grad():
        model(IMAGES)
    names = [name for name in kept.names() if name.endswith(ending)]
    found = own_masks(model, IMAGES)
    assert list(found) == names
    assert len(names) == 3
    for name in names:
        torch.testing.assert_close(found[name], kept[name].sum(1) / kept[name].shape[1])
        assert found[name].std() > 0


@pytest.mark.parametrize("variant", ["none", "se", "aw"])
def test_gates_of_channels_and_kernels_weigh_no_places(variant):
    assert own_masks(build("cifar_resnet8", variant, num_classes=3), IMAGES) == {}


def test_fusion_by_hand():
    masks = {"early": np.array([[[0.0, 0.25, 1.0]]]), "late": np.array([[[1.0, 1.0, 0.25]]])}
    np.testing.assert_allclose(fused(masks, "product"), [[[0, 0.5, 0.5]]])
    np.testing.assert_allclose(fused(masks, "mean"), [[[0.5, 0.625, 0.625]]])
    assert fused(masks, "late") is masks["late"]
    three = {**masks, "last": np.array([[[1.0, 0.5, 0.5]]])}
    np.testing.assert_allclose(fused(three, "product"), [[[0, 0.5, 0.5]]])
    with pytest.raises(InputError, match="unknown fusion 'latest': did you mean late"):
        fused(masks, "latest")
