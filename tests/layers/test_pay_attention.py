"""Attention that pools, against its equations in loops; what each compatibility and gate can and cannot see."""

import math

import numpy as np
import pytest
import torch

from heedful import InputError, attend, ign1, ign2, ign3
from heedful.layers.pay_attention import COMPATIBILITIES, AttentivePooling, Refinement, softmax
from tests.references import pay_attention as slow


def sigma(z):
    return 1 / (1 + math.exp(-z))


GATES = {
    "softmax": (softmax, None),
    "attend": (attend, sigma),
    "ign1(0.5)": (ign1(0.5), lambda z: 1 - 0.5 * sigma(z)),
    "ign2": (ign2, lambda z: sigma(1 + math.exp(-z))),
    "ign3": (ign3, lambda z: 1 - sigma(z)),
}


def pooling(compatibility, gate, channels=6, **options):
    torch.manual_seed(3)
    return AttentivePooling(channels, compatibility=compatibility, gate=gate, **options).double().eval()


def maps(channels=6, number=2, height=3, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    local = torch.randn(number, channels, height, width, generator=generator, dtype=torch.float64)
    return local, torch.randn(number, channels, generator=generator, dtype=torch.float64)


def parameters(layer):
    found = {name: p.detach().numpy() for name, p in layer.compatibility.named_parameters()}
    if "local.weight" in found:
        found |= {
            "local": found["local.weight"][:, :, 0, 0],
            "vector": found["vector.weight"],
            "bias": found["vector.bias"],
        }
    return found


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_weights_and_pooled_vector_equal_the_equations(compatibility, gate):
    fast, reference = GATES[gate]
    layer = pooling(compatibility, fast)
    local, vector = maps()
    mask, pooled = layer.mask(local, vector), layer(local, vector)
    for n in range(len(local)):
        one, g = local[n].numpy(), vector[n].numpy()
        expected = slow.weights(compatibility, one, g, parameters(layer), reference)
        np.testing.assert_allclose(mask[n, 0].detach().numpy(), expected, rtol=1e-12)
        np.testing.assert_allclose(pooled[n].detach().numpy(), slow.attended(one, expected), rtol=1e-11)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_gradients_are_those_of_the_equations(compatibility, gate):
    layer = pooling(compatibility, GATES[gate][0], channels=3)
    local, vector = (tensor.requires_grad_() for tensor in maps(channels=3))
    assert torch.autograd.gradcheck(layer, (local, vector))
    layer(local, vector).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        index = (0,) * parameter.ndim
        step, values = 1e-6, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[index] += sign * step
                values.append(layer(local, vector).square().sum().item())
                parameter[index] -= sign * step
        assert parameter.grad[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_softmax_weights_sum_to_one_at_any_size(compatibility):
    layer = pooling(compatibility, softmax)
    for height, width in ((1, 1), (3, 4), (16, 9)):
        mask = layer.mask(*maps(height=height, width=width))
        assert mask.shape[2:] == (height, width)
        torch.testing.assert_close(mask.sum((2, 3)), torch.ones(2, 1, dtype=torch.float64))


def test_the_global_vector_cannot_matter_to_pc_under_a_softmax_and_does_elsewhere():
    local, vector = maps()
    noise = 10 * torch.randn_like(vector)
    for compatibility in COMPATIBILITIES:
        for gate, _ in GATES.values():
            layer = pooling(compatibility, gate)
            moved = (layer.mask(local, vector) - layer.mask(local, noise)).abs().max().item()
            assert layer.heeds_global == (moved > 1e-6), (compatibility, gate)
            assert layer.heeds_global or moved < 1e-15
    assert not pooling("pc", softmax).heeds_global


def test_what_makes_the_global_vector_has_no_gradient_under_pc_and_softmax():
    local, vector = maps()
    norms = {}
    for compatibility in COMPATIBILITIES:
        vector.grad = None
        pooling(compatibility, softmax)(local, vector.requires_grad_()).square().sum().backward()
        norms[compatibility] = vector.grad.abs().max().item()
    assert norms["pc"] < 1e-15
    assert min(norms["dp"], norms["additive"]) > 1e-4


def test_ign3_is_attend_with_the_sign_of_u_turned_and_ign1_keeps_its_share_of_every_place():
    local, vector = maps()
    ignoring, attending = pooling("pc", ign3), pooling("pc", attend)
    with torch.no_grad():
        attending.compatibility.weight.neg_()
    torch.testing.assert_close(ignoring(local, vector), attending(local, vector))
    torch.testing.assert_close(ignoring.mask(local, vector), pooling("pc", ign1(1)).mask(local, vector))
    far = 50 * vector
    least = pooling("dp", ign1(0.8)).mask(local, far).min().item() * local[0, 0].numel()
    assert least == pytest.approx(0.2)
    assert pooling("dp", softmax).mask(local, far).min() < 1e-12


@pytest.mark.parametrize(("project", "width"), [("global", 4), ("local", 6)])
def test_the_wider_or_the_narrower_side_is_projected(project, width):
    torch.manual_seed(0)
    layer = AttentivePooling(4, global_channels=6, project=project).double().eval()
    local, _ = maps(channels=4)
    vector = maps(channels=6)[1]
    assert layer.width == layer(local, vector).shape[1] == width
    names = {name for name, _ in layer.named_parameters()}
    expected = (
        {"local.weight"}
        if project == "local"
        else {"vector.0.norm.weight", "vector.0.norm.bias", "vector.1.weight", "vector.1.bias"}
    )
    assert names == {"compatibility.weight"} | expected
    if project == "global":
        g = torch.relu(layer.vector[0].norm(vector)) @ layer.vector[1].weight.T + layer.vector[1].bias
        expected_logits = torch.einsum("nchw,c->nhw", local + g[:, :, None, None], layer.compatibility.weight)
        torch.testing.assert_close(layer.logits(local, vector)[:, 0], expected_logits)


def test_the_pooled_vector_does_not_depend_on_the_number_of_equal_places():
    layer = pooling("dp", attend)
    local, vector = maps(height=1, width=1)
    torch.testing.assert_close(layer(local, vector), layer(local.expand(-1, -1, 5, 7), vector))


def test_refinement_is_norm_relu_dropout_and_takes_one_image_in_training():
    refine = Refinement(5, 0.5)
    assert refine(torch.randn(1, 5)).shape == (1, 5)
    x = torch.randn(64, 5)
    zeros = (refine(x) == 0).float().mean().item()
    assert 0.6 < zeros < 0.9
    refine.eval()
    torch.testing.assert_close(refine(x), torch.relu(refine.norm(x)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compatibility": "cosine"}, "unknown compatibility 'cosine'"),
        ({"project": "both"}, "unknown project 'both'"),
        ({"channels": 0}, "channels is 0"),
        ({"global_channels": 0}, "channels is 0"),
        ({"global_channels": 9, "dropout": 1.5}, r"dropout is 1.5, but it must be in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        AttentivePooling(**{"channels": 6, **arguments})
