"""Attention driven by another image."""

from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from scipy.stats import spearmanr

from heedful import InputError, attend, build
from heedful.evaluate import query
from heedful.evaluate.query import query_figure, query_masks, query_numbers
from heedful.maps.overlay import COLOUR_MAP, overlay

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
QUERY = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
LEVELS = ["layer2", "layer3"]


@pytest.fixture
def model():
    return build("cifar_resnet8", "pay2-dp", num_classes=3)


def test_dot_products_with_the_querys_vector(model):
    found = query_masks(model.train(), IMAGES, QUERY)
    assert model.training
    model.eval()
    vector, features = model.global_vector(QUERY), {}
    for level in LEVELS:
        module = model.backbone.get_submodule(level)
        module.register_forward_hook(lambda _m, _i, out, level=level: features.update({level: out.detach()}))
    model(IMAGES)
    assert list(found) == LEVELS
    for level, pooling in zip(LEVELS, model.attention.values(), strict=True):
        projected = pooling.vector(vector)[0].detach()
        scores = [[sum(projected * place) for place in image.flatten(1).T] for image in features[level]]
        expected = torch.tensor(scores).softmax(1).reshape(found[level].shape)
        torch.testing.assert_close(found[level], expected, rtol=1e-4, atol=1e-7)
        assert not found[level].requires_grad


def test_an_image_that_queries_itself_changes_nothing(model):
    own = model.eval().masks(IMAGES[:1])
    driven = query_masks(model, IMAGES[:1], IMAGES[:1])
    for level in LEVELS:
        torch.testing.assert_close(driven[level], own[level].detach())
    numbers = query_numbers(own, driven)
    assert numbers["rank_correlation"] == {level: [pytest.approx(1)] for level in LEVELS}
    assert numbers["change"] == {level: [pytest.approx(0, abs=1e-5)] for level in LEVELS}


def test_with_an_additive_compatibility_the_query_matters():
    model = build("cifar_resnet8", "pay2-additive", num_classes=3).eval()
    own, driven = model.masks(IMAGES), query_masks(model, IMAGES, 10 * QUERY)
    assert all((own[level] - driven[level]).abs().max() > 1e-5 for level in LEVELS)


def test_numbers_are_those_of_their_definition(model):
    own = {level: mask.detach() for level, mask in model.eval().masks(IMAGES).items()}
    driven = query_masks(model, IMAGES, QUERY)
    driven["layer3"][1] = 0.5
    numbers = query_numbers(own, driven)
    assert numbers["rank_correlation"]["layer3"][1] is None
    for level, number in [(level, number) for level in LEVELS for number in range(3)]:
        pair = [masks[level][number].double().numpy().ravel() for masks in (own, driven)]
        stretched = [(each - each.min()) / (np.ptp(each) or 1) for each in pair]
        assert numbers["change"][level][number] == pytest.approx(np.abs(stretched[0] - stretched[1]).mean(), rel=1e-4)
        if (level, number) != ("layer3", 1):
            correlation = spearmanr(*pair).statistic
            assert numbers["rank_correlation"][level][number] == pytest.approx(correlation, abs=1e-9)


def test_a_gate_of_each_place_keeps_their_order_under_pc():
    model = build("cifar_resnet8", "pay2-pc-attend", num_classes=3).eval()
    assert model.attention["at_layer2"].gate == attend
    own, driven = model.masks(IMAGES), query_masks(model, IMAGES, 3 * QUERY)
    assert all((own[level] - driven[level]).abs().max() > 1e-7 for level in LEVELS)
    ranks = query_numbers(own, driven)["rank_correlation"]
    assert min(value for values in ranks.values() for value in values) > 0.999


def test_networks_that_no_query_can_drive():
    with pytest.raises(InputError, match="softmax does not see"):
        query_masks(build("cifar_resnet8", "pay2-pc", num_classes=3), IMAGES, QUERY)
    with pytest.raises(InputError, match=r"has no global vector .* such as the variant pay2-dp"):
        query_masks(build("cifar_resnet8", "cbam", num_classes=3), IMAGES, QUERY)


def test_the_pictures_are_of_the_own_mask_the_driven_one_and_their_difference():
    image = np.zeros((128, 128, 3), dtype=np.uint8)
    own, driven = torch.zeros(4, 4), torch.zeros(4, 4)
    own[:, :2], driven[:, 2:] = 1, 3
    shown = [picture for _, _, picture in query._pictures(image, "layer2", own, driven, -1.0)]
    np.testing.assert_array_equal(shown[0], overlay(image, own.numpy()))
    np.testing.assert_array_equal(shown[1], overlay(image, driven.numpy() / 3))
    brightest = np.rint(255 * np.array(colormaps[COLOUR_MAP](1.0)[:3]))
    np.testing.assert_allclose(shown[2].reshape(-1, 3), np.broadcast_to(brightest, (128 * 128, 3)), atol=1)


def test_the_figure_and_what_it_refuses(model):
    own, driven = model.eval().masks(IMAGES), query_masks(model, IMAGES, QUERY)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    shown = Image.open(BytesIO(query_figure(pixels[0], pixels, own, driven)))
    assert shown.format == "PNG"
    assert shown.size[0] > shown.size[1]
    with pytest.raises(InputError, match="2 images, masks of"):
        query_figure(pixels[0], pixels[:2], own, driven)
    with pytest.raises(InputError, match="give all of one size"):
        query_figure(pixels[0, :16], pixels, own, driven)
    with pytest.raises(InputError, match="an own and a driven mask"):
        query_figure(pixels[0], pixels, own, {"layer2": driven["layer2"]})
