import pytest
import torch
import torch.nn.functional as F
from torch import nn

from heedful import InputError, attention_maps, top
from heedful.maps.attention import METHODS, explained
from heedful.maps.methods import BY_GRADIENTS
from heedful.maps.processing import normalised, upsampled
from heedful.maps.smoothing import flip_averaged, noise_averaged
from tests.references.class_maps import class_map, gradient

CLASSES = torch.tensor([[0, 4, 2], [3, 1, 3]])


class Net(nn.Module):
    """Convolutions up to `trunk` and `last`, then a head that pools to one place (the known gradient) or to four."""

    def __init__(self, places):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(6, 7, 3, padding=1, stride=2), nn.ReLU())
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(places), nn.Flatten(), nn.Dropout(0.5), nn.Linear(7 * places**2, 5)
        )

    def forward(self, x):
        return self.head(self.last(self.trunk(x)))


@pytest.fixture(params=[1, 2], ids=["known gradient", "no known gradient"])
def network(request):
    torch.manual_seed(0)
    return Net(request.param).double()


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def references(network, images, method):
    network.eval()
    inner = network.trunk(images).detach()
    last = network.last(inner).detach()
    heads = {"trunk": (inner, lambda x: network.head(network.last(x))), "last": (last, network.head)}
    return {
        layer: torch.stack(
            [
                torch.stack([class_map(method, a[n], gradient(head, a, n, int(c))) for c in CLASSES[n]])
                for n in range(len(images))
            ]
        )
        for layer, (a, head) in heads.items()
    }


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("method", BY_GRADIENTS)
def test_every_method_layer_and_class_equals_the_equations(network, images, method, differentiable):
    expected = references(network, images, method)
    maps = attention_maps(
        network, images, layers=["trunk", "last"], classes=CLASSES, method=method, differentiable=differentiable
    )
    for layer in ("trunk", "last"):
        torch.testing.assert_close(maps[layer].detach(), expected[layer], rtol=1e-10, atol=1e-12)
        assert maps[layer].abs().max() > 0
        assert maps[layer].requires_grad == differentiable


def test_methods_differ_on_an_inner_layer(network, images):
    found = [attention_maps(network, images, layers=["trunk"], classes=CLASSES, method=m)["trunk"] for m in METHODS]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert not torch.allclose(one, other)


def test_eigen_cam_is_the_first_principal_component(network, images):
    maps = attention_maps(network, images, layers=["last"], classes=CLASSES, method="eigen-cam")["last"]
    network.eval()
    for n, a in enumerate(network.last(network.trunk(images)).detach().double()):
        matrix = a.flatten(1).T  # places x channels
        _, vectors = torch.linalg.eigh(matrix.T @ matrix)
        component = matrix @ vectors[:, -1]
        component = component if component.sum() >= 0 else -component
        torch.testing.assert_close(maps[n, 0].flatten(), component.clamp(min=0))
        assert torch.equal(maps[n, 0], maps[n, 2])


def test_score_cam_masks_the_image_with_each_channel(network, images):
    maps = attention_maps(network, images, layers=["last"], classes=CLASSES, method="score-cam")["last"]
    network.eval()
    activations = network.last(network.trunk(images)).detach()
    for n in range(2):
        for k, cls in enumerate(CLASSES[n].tolist()):
            scores = []
            for channel in activations[n]:
                span = channel.max() - channel.min()
                mask = (channel - channel.min()) / (span if span > 0 else 1)
                mask = F.interpolate(mask[None, None], images.shape[2:], mode="bilinear", align_corners=False)
                scores.append(network(images[n : n + 1] * mask)[0, cls].item())
            weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
            expected = (weights[:, None, None] * activations[n]).sum(0).clamp(min=0)
            torch.testing.assert_close(maps[n, k], expected)


def test_differentiable_maps_have_exact_gradients(images):
    torch.manual_seed(0)
    trunk = nn.Conv2d(3, 3, 3), nn.Softplus(), nn.Conv2d(3, 4, 3), nn.Softplus()
    net = nn.Sequential(*trunk, nn.Flatten(), nn.Linear(96, 3)).double().eval()
    weight = net[0].weight

    def total():
        maps = attention_maps(
            net, images, layers=["1", "3"], classes=torch.tensor([1, 2]), method="channel", differentiable=True
        )
        return (maps["1"] ** 2).sum() + maps["3"].sum()

    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (slope,) = torch.autograd.grad(total(), weight)
    step, before, moved = 1e-6, weight.detach().clone(), []
    for sign in (1, -1):
        weight.data = before + sign * step * direction
        moved.append(total().item())
    numeric = (moved[0] - moved[1]) / (2 * step)
    assert (slope * direction).sum().item() == pytest.approx(numeric, rel=1e-6)
    assert abs(numeric) > 1e-3


def test_classes_are_labels_columns_top_or_all(network, images):
    of = {"layers": ["last"]}
    every = attention_maps(network, images, **of)["last"]
    assert every.shape[1] == 5
    found = explained(network, images, classes=top(2), **of)
    network.eval()
    scores = network(images)
    assert torch.equal(found.classes, scores.topk(2).indices)
    torch.testing.assert_close(found.scores, scores.detach())
    index = found.classes[:, :, None, None].expand(-1, -1, *every.shape[2:])
    torch.testing.assert_close(found.maps["last"], every.gather(1, index))


def test_the_most_confusing_class_is_the_best_but_the_true_ones(network, images):
    network.eval()
    ranks = network(images).argsort(1, descending=True)
    but = explained(network, images, layers=["last"], classes=top(1, but=ranks[:, 0])).classes
    assert torch.equal(but, ranks[:, 1:2])
    two = explained(network, images, layers=["last"], classes=top(2, but=ranks[:, [0, 2]])).classes
    assert torch.equal(two, ranks[:, [1, 3]])
    hot = torch.zeros(2, 5, dtype=torch.bool).scatter(1, ranks[:, :3], True)
    assert torch.equal(explained(network, images, layers=["last"], classes=top(2, but=hot)).classes, ranks[:, 3:])
    with pytest.raises(InputError, match="k is 3, but an image has fewer classes to choose from, of 5"):
        explained(network, images, layers=["last"], classes=top(3, but=hot))


def test_a_score_of_ones_own_is_explained(network, images):
    """Of a network that puts out something else than logits; here the difference of two classes."""

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x):
            return {"logits": self.inner(x)}

    maps = attention_maps(
        Wrapped(),
        images,
        layers=["inner.trunk"],
        score=lambda out: (out["logits"][:, 0] - out["logits"][:, 1])[:, None],
        method="hires-cam",
    )["inner.trunk"]
    network.eval()
    a = network.trunk(images).detach()
    rest = nn.Sequential(network.last, network.head)
    for n in range(2):
        expected = ((gradient(rest, a, n, 0) - gradient(rest, a, n, 1)) * a[n]).sum(0).clamp(min=0)
        torch.testing.assert_close(maps[n, 0], expected)
    with pytest.raises(InputError, match=r"the class scores are dict, but must be a tensor \(2, classes\): give score"):
        attention_maps(Wrapped(), images, layers=["inner.trunk"])


class Tokens(nn.Module):
    """A small transformer-like network: (N, 1 + places, C) in the middle."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.block(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        return self.head((tokens[:, 1:] ** 2).mean(1) + tokens[:, 0])


def test_transformers_are_mapped_by_reshaping(images):
    torch.manual_seed(0)
    model = Tokens().double().eval()
    labels = torch.tensor([1, 3])

    def grid(tokens):
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 5))

    maps = attention_maps(model, images, layers=["block"], classes=labels, reshape=grid)["block"]
    tokens = model.patches(images).flatten(2).transpose(1, 2)
    leaf = model.block(torch.cat([tokens.mean(1, keepdim=True), tokens], 1)).detach().requires_grad_()
    scores = model.head((leaf[:, 1:] ** 2).mean(1) + leaf[:, 0])
    (slope,) = torch.autograd.grad(scores[0, 1] + scores[1, 3], leaf)
    for n in range(2):
        expected = class_map("grad-cam", grid(leaf.detach())[n], grid(slope)[n])
        torch.testing.assert_close(maps[n, 0], expected)
    with pytest.raises(InputError, match=r"layer 'block' puts out \(2, 21, 8\), .* or give reshape="):
        attention_maps(model, images, layers=["block"], classes=labels)


def test_normalising():
    maps = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]], [[-1.0, 1.0]]]])
    assert torch.equal(normalised(maps), torch.tensor([[[[1 / 3, 1.0]], [[0.0, 0.0]], [[-1.0, 1.0]]]]))
    assert torch.equal(normalised(maps, "min-max"), torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]], [[0.0, 1.0]]]]))
    assert torch.equal(normalised(maps, "sum")[0, 0], torch.tensor([[0.25, 0.75]]))
    with pytest.raises(InputError, match="unknown scale 'maximum'"):
        normalised(maps, "maximum")


def test_upsampling_is_bilinear_between_centres():
    maps = torch.tensor([[[[0.0, 1.0]]]]).expand(2, 3, 1, 2)
    assert torch.equal(upsampled(maps, (1, 4))[1, 2], torch.tensor([[0.0, 0.25, 0.75, 1.0]]))


@pytest.fixture
def explain(network):
    return lambda images, classes: explained(network, images, layers=["last"], classes=classes)


def test_flip_averaging_makes_maps_that_mirror_with_the_image(explain, images):
    found = flip_averaged(explain, images, CLASSES).maps["last"]
    mirrored = flip_averaged(explain, images.flip(3), CLASSES).maps["last"]
    torch.testing.assert_close(found, mirrored.flip(3))
    assert not torch.allclose(explain(images, CLASSES).maps["last"], found)


def test_noise_averaging_is_the_mean_over_noisy_copies(explain, images):
    plain = explain(images, top(2))
    still = noise_averaged(explain, images, top(2), num=3, deviation=0.0)
    torch.testing.assert_close(still.maps["last"], plain.maps["last"])
    generator = torch.Generator().manual_seed(5)
    span = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    total = 0
    for _ in range(3):
        noise = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        total = total + explain(images + 0.2 * span * noise, plain.classes).maps["last"]
    found = noise_averaged(explain, images, top(2), num=3, deviation=0.2, seed=5)
    torch.testing.assert_close(found.maps["last"], total / 3)
    assert torch.equal(found.classes, plain.classes)
    with pytest.raises(InputError, match="num=0 must be at least 1"):
        noise_averaged(explain, images, top(2), num=0)
