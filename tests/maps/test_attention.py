import pytest
import torch
from torch import nn

from heedful import InputError, attention_maps, build, grad_cam
from heedful.maps.record import last_layer, recorded
from tests.references.maps import slow_grad_cam


@pytest.fixture
def network():
    """A trunk, a layer that in-place ReLU follows, and a head that is not linear in it."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
    ).double()


@pytest.fixture
def images():
    return torch.randn(2, 3, 7, 6, dtype=torch.float64)


def test_maps_equal_finite_differences_layer_by_layer_and_class_by_class(network, images):
    classes = torch.tensor([[0, 3, 3], [4, 1, 0]])
    maps = attention_maps(network, images, layers=["0", "3"], classes=classes)
    network.eval()
    for layer in ("0", "3"):
        for n in range(2):
            for k in range(3):
                expected = slow_grad_cam(network, int(layer), images[n : n + 1], int(classes[n, k]))
                torch.testing.assert_close(maps[layer][n, k], expected, rtol=1e-5, atol=1e-8)
    assert maps["3"].abs().max() > 0


def test_labels_are_one_class_each(network, images):
    labels = torch.tensor([2, 0])
    one = attention_maps(network, images, layers=["3"], classes=labels)["3"]
    assert one.shape == (2, 1, 7, 6)
    assert torch.equal(one, attention_maps(network, images, layers=["3"], classes=labels[:, None])["3"])


def test_the_formula():
    activations = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, -1.0]]]])
    assert torch.equal(grad_cam(activations, gradients), torch.tensor([[[0.0, 8.0]]]))  # relu(2 A1 - 1 A2)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_comes_back_as_it_was(network, images, mode):
    network[0].weight.requires_grad_(False)
    network.train()
    network[1].eval()
    network[7].weight.grad = torch.ones_like(network[7].weight)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with mode():
        before = torch.is_grad_enabled()
        maps = attention_maps(network, images, layers=["3"], classes=torch.tensor([0, 1]))
        assert torch.is_grad_enabled() == before
    assert not maps["3"].requires_grad
    assert [m.training for m in network] == [True, False] + 6 * [True]
    assert not network[0].weight.requires_grad
    assert (network[7].weight.grad == 1).all()
    assert all(parameter.grad is None for name, parameter in network.named_parameters() if name != "7.weight")
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(m._forward_hooks for m in network)


def test_the_model_comes_back_after_an_exception(network, images):
    network.train()
    with pytest.raises(RuntimeError, match="boom"), recorded(network, ["3"]):
        raise RuntimeError("boom")
    assert network.training
    assert torch.is_grad_enabled()
    assert not network[3]._forward_hooks


def test_frozen_networks_have_the_same_maps(network, images):
    labels = torch.tensor([0, 1])
    maps = attention_maps(network, images, layers=["3"], classes=labels)["3"]
    network.requires_grad_(False)
    assert torch.equal(maps, attention_maps(network, images, layers=["3"], classes=labels)["3"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["33"]}, "unknown layer '33'"),
        ({"method": "grad-can"}, "unknown method 'grad-can': did you mean grad-cam"),
        ({"classes": torch.tensor([1])}, "classes has 1 rows for 2 images"),
        ({"layers": ["7"]}, "which is no feature map"),
    ],
)
def test_what_cannot_be_mapped_is_refused(network, images, options, message):
    chosen = {"layers": ["3"], "classes": torch.tensor([0, 1]), **options}
    with pytest.raises(InputError, match=message):
        attention_maps(network, images, **chosen)


def test_a_layer_that_is_not_reached_is_refused(network, images):
    network.unused = nn.Conv2d(3, 3, 1)
    network.forward = lambda x: nn.Sequential.forward(network[:8], x)
    with pytest.raises(InputError, match="'unused' was not reached"):
        attention_maps(network, images, layers=["unused", "3"], classes=torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [("cifar_resnet8", 32, "layer3"), ("cifar_resnet8", 8, "layer2"), ("resnet18", 128, "layer4")],
)
def test_the_last_layer_is_the_last_with_places_enough(name, size, layer):
    model = build(name, "cbam", num_classes=3).train()
    assert last_layer(model, torch.randn(2, 3, size, size)) == layer
    assert model.training


def test_a_network_without_maps_has_no_last_layer():
    with pytest.raises(InputError, match="no module of this network"):
        last_layer(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(1, 3, 2, 2))
