import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from heedful import InputError, attention_maps, build
from heedful.evaluate.randomisation import randomisation, rank_correlation, redraw


@pytest.fixture
def network():
    model = build("cifar_resnet8", "cbam", num_classes=3).train()
    model.layer1.eval()
    with torch.no_grad():
        model(torch.randn(4, 3, 16, 16))
    return model


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16)


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def explained_by(model, images):
    labels = torch.tensor([0, 1, 2])
    return lambda: attention_maps(model, images, layers=["layer3"], classes=labels, method="channel")["layer3"][:, 0]


def test_rank_correlation_is_spearmans():
    first, second = (torch.rand(5, 3, 4, dtype=torch.float64).mul(6).round() for _ in range(2))
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlation(first, second), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(first, 3 * first + 1), 1)
    np.testing.assert_allclose(rank_correlation(first, -first), -1)
    first[2] = 0.5
    assert np.isnan(rank_correlation(first, second)).tolist() == [False, False, True, False, False]


def test_parts_are_drawn_from_the_head_down_and_stay_so(network, images):
    before, seen = state_of(network), []

    def explain():
        now = state_of(network)
        changed = [name for name in before if not torch.equal(now[name], before[name])]
        seen.append({name.split(".")[0] for name in changed})
        return torch.rand(3, 4, 4)

    found = randomisation(network, explain)
    order = ["fc", "layer3", "layer2", "layer1", "bn1", "conv1"]
    assert list(found) == order
    assert seen == [set(order[:count]) for count in range(len(order) + 1)]


def test_the_network_comes_back_as_it_was(network, images):
    before, modes = state_of(network), [module.training for module in network.modules()]
    numbers = torch.get_rng_state()
    found = randomisation(network, explained_by(network, images))
    assert all(torch.equal(value, before[name]) for name, value in state_of(network).items())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(parameter.grad is None for parameter in network.parameters())
    again = randomisation(network, explained_by(network, images))
    assert all(np.array_equal(found[name], again[name], equal_nan=True) for name in found)


def test_it_comes_back_after_an_exception(network):
    before, calls = state_of(network), []

    def explain():
        calls.append(None)
        if len(calls) == 3:
            raise RuntimeError("boom")
        return torch.rand(2, 4, 4)

    with pytest.raises(RuntimeError, match="boom"):
        randomisation(network, explain)
    assert all(torch.equal(value, before[name]) for name, value in state_of(network).items())


def test_maps_that_do_not_depend_on_the_network_stay(network):
    found = randomisation(network, lambda: torch.arange(32.0).reshape(2, 4, 4))
    assert all((values == 1).all() for values in found.values())


def test_seeds_differ(network, images):
    found = [randomisation(network, explained_by(network, images), seed=seed) for seed in (0, 1)]
    last = list(found[0])[-1]
    assert not np.array_equal(found[0][last], found[1][last])


def test_a_parameter_of_its_own_is_shuffled():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.arange(24.0).reshape(2, 3, 4))

    module = nn.Sequential(Scale(), nn.Linear(3, 2))
    before = state_of(module)
    redraw(module)
    assert not torch.equal(module[0].scale, before["0.scale"])
    assert torch.equal(module[0].scale.flatten().sort().values, before["0.scale"].flatten())
    assert not torch.equal(module[1].weight, before["1.weight"])


def test_a_network_without_parameters():
    with pytest.raises(InputError, match="no part with parameters"):
        randomisation(nn.Sequential(nn.ReLU()), lambda: torch.rand(1, 2, 2))
