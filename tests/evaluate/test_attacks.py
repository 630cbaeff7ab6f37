import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from heedful import InputError
from heedful.evaluate.attacks import REACH, fgsm, normalised_pixels, pgd
from tests.references import attacks as slow

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LABELS = torch.tensor([0, 2, 1, 2])


def made(num_classes=3):
    """A network with a batch norm and a dropout, which differ in training, and with statistics of its own."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(80, num_classes)
    ).double()
    network(torch.randn(8, 3, 6, 7, dtype=torch.float64))
    return network


@pytest.fixture
def network():
    return made()


@pytest.fixture
def images():
    """With pixels of 0 and 1."""
    return (torch.rand(4, 3, 6, 7, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)


def from_seed(seed=0):
    return torch.Generator().manual_seed(seed)


def loss(model, images, labels):
    return F.cross_entropy(model(normalised_pixels(images, MEAN, DEVIATION)), labels, reduction="none")


@pytest.mark.parametrize("epsilon", [0, 0.03, 0.7])
def test_fgsm_is_the_definition(network, images, epsilon):
    found = fgsm(network, images, LABELS, epsilon, MEAN, DEVIATION)
    network.eval()
    for n in range(4):
        expected = slow.fgsm(network, images[n], LABELS[n], epsilon, MEAN, DEVIATION)
        torch.testing.assert_close(found.images[n], expected, rtol=0, atol=1e-12)
    assert not found.without_gradient.any()
    assert torch.equal(found.images, images) == (epsilon == 0)


@pytest.mark.parametrize("options", [{"steps": 3}, {"steps": 2, "step_size": 0.013}])
def test_pgd_is_the_definition(network, images, options):
    epsilon = 0.04
    found = pgd(network, images, LABELS, epsilon, MEAN, DEVIATION, **options, generator=from_seed(5))
    network.eval()
    starts = torch.rand(images.shape, generator=from_seed(5), dtype=torch.float64)
    size = options.get("step_size", REACH * epsilon / options["steps"])
    for n in range(4):
        start = (images[n] + epsilon * (2 * starts[n] - 1)).clamp(0, 1)
        args = (epsilon, MEAN, DEVIATION, options["steps"], size, start)
        torch.testing.assert_close(found.images[n], slow.pgd(network, images[n], LABELS[n], *args), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    epsilon=st.floats(0, 1),
    steps=st.integers(1, 4),
    step_size=st.none() | st.floats(1e-6, 10),
    seed=st.integers(0, 2**16),
    is_double=st.booleans(),
)
def test_attacks_stay_in_the_ball_and_among_pixels(epsilon, steps, step_size, seed, is_double):
    dtype = torch.float64 if is_double else torch.float32
    network = made().to(dtype)
    images = (torch.rand(4, 3, 6, 7, generator=from_seed(seed), dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    options = {"steps": steps, "step_size": step_size, "generator": from_seed(seed)}
    for attacked in (
        pgd(network, images, LABELS, epsilon, MEAN, DEVIATION, **options).images,
        fgsm(network, images, LABELS, epsilon, MEAN, DEVIATION).images,
    ):
        assert attacked.dtype == dtype
        assert ((attacked >= 0) & (attacked <= 1)).all()
        assert ((attacked - images).abs() <= epsilon + 2 * torch.finfo(dtype).eps).all()


class Linear(nn.Module):
    """Two classes by a linear map."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3 * 6 * 7, 2).double()

    def forward(self, x):
        return self.map(x.flatten(1))


def test_both_find_the_optimum_of_a_linear_network(images):
    network, labels, epsilon = Linear(), torch.tensor([0, 1, 1, 0]), 0.02
    towards_one = (network.map.weight[1] - network.map.weight[0]).detach().reshape(3, 6, 7).sign()
    signs = torch.where(labels == 0, 1.0, -1.0).double()[:, None, None, None]
    optimum = (images + epsilon * signs * towards_one).clamp(0, 1)
    one = fgsm(network, images, labels, epsilon, MEAN, DEVIATION).images
    torch.testing.assert_close(one, optimum, rtol=0, atol=1e-12)
    several = pgd(network, images, labels, epsilon, MEAN, DEVIATION, generator=from_seed()).images
    assert (loss(network, several, labels) >= loss(network, one, labels) - 1e-9).all()
    assert (loss(network, one, labels) > loss(network, images, labels)).all()


def test_pgd_raises_the_loss_beyond_fgsm(network, images):
    network.eval()
    one = fgsm(network, images, LABELS, 0.1, MEAN, DEVIATION).images
    several = pgd(network, images, LABELS, 0.1, MEAN, DEVIATION, generator=from_seed()).images
    assert loss(network, several, LABELS).sum() > loss(network, one, LABELS).sum() + 1e-6
    assert (loss(network, several, LABELS) > loss(network, images, LABELS)).all()


def test_starts_depend_on_the_seed_and_not_on_the_batch(network, images):
    def attacked(seed, pieces):
        generator = from_seed(seed)
        pairs = zip(images.split(pieces), LABELS.split(pieces), strict=True)
        # One short step, so that the start is still to be seen.
        options = {"steps": 1, "step_size": 1e-3, "generator": generator}
        return torch.cat([pgd(network, i, t, 0.04, MEAN, DEVIATION, **options).images for i, t in pairs])

    whole = attacked(0, 4)
    torch.testing.assert_close(attacked(0, 3), whole, rtol=0, atol=1e-12)
    changed = (attacked(1, 4) - whole).abs()
    assert changed.mean() > 0.005
    state = torch.get_rng_state()
    attacked(2, 4)
    assert torch.equal(torch.get_rng_state(), state)


class Saturated(nn.Module):
    """Its softmax is exactly 1 for class 0, wherever the first pixel is bright."""

    def forward(self, x):
        bright = 1e6 * x[:, :, 0, 0].mean(1)
        return torch.stack([bright, -bright], 1)


def test_images_without_gradient_are_found_and_stay(images):
    images[:, :, 0, 0] = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)[:, None]
    labels = torch.tensor([0, 1, 0, 1])  # right, wrong, wrong, right
    for found in (
        fgsm(Saturated(), images, labels, 0.1, MEAN, DEVIATION),
        pgd(Saturated(), images, labels, 0.1, MEAN, DEVIATION, steps=3, generator=from_seed()),
    ):
        assert found.without_gradient.tolist() == [True, False, False, True]
    assert torch.equal(fgsm(Saturated(), images, labels, 0.1, MEAN, DEVIATION).images[0], images[0])


class Broken(nn.Module):
    """Its outputs are finite, and their gradient is not a number: the root of 0, times 0."""

    def forward(self, x):
        nothing = 0 * x.mean((1, 2, 3))
        return torch.stack([nothing.sqrt(), nothing], 1)


def test_an_image_whose_gradient_is_no_number_was_not_attacked(images):
    found = fgsm(Broken(), images, torch.tensor([0, 1, 0, 1]), 0.1, MEAN, DEVIATION)
    assert found.without_gradient.all()
    assert torch.equal(found.images, images)


class Flat(nn.Module):
    """Its outputs have a gradient above grey alone, and the attack leads down there."""

    def forward(self, x):
        brightness = x.mean((1, 2, 3))
        return torch.stack([(brightness - 0.5).relu(), 0 * brightness], 1)


def test_an_image_with_a_gradient_at_first_is_attacked():
    images, labels = torch.full((2, 3, 6, 7), 0.54), torch.tensor([0, 0])
    images[1] = 0.3
    found = pgd(Flat(), images, labels, 0.1, (0, 0, 0), (1, 1, 1), steps=4, generator=from_seed())
    assert found.images[0].mean() < 0.5
    assert found.without_gradient.tolist() == [False, True]


class Stops(nn.Module):
    """Fails at its third pass, and remembers the mode that it was in."""

    def __init__(self):
        super().__init__()
        self.inner, self.modes = Linear(), []

    def forward(self, x):
        self.modes.append((self.training, self.inner.training, self.inner.map.weight.requires_grad))
        if len(self.modes) == 3:
            raise RuntimeError("boom")
        return self.inner(x)


def test_the_network_comes_back_as_it_was_also_after_an_exception(images):
    model, labels = Stops(), torch.tensor([0, 1, 1, 0])
    model.inner.eval()
    model.inner.map.bias.requires_grad_(False)
    fgsm(model, images, labels, 0.1, MEAN, DEVIATION)
    with pytest.raises(RuntimeError, match="boom"):
        pgd(model, images, labels, 0.1, MEAN, DEVIATION, generator=from_seed())
    assert model.modes == [(False, False, False)] * 3
    assert (model.training, model.inner.training) == (True, False)
    assert (model.inner.map.weight.requires_grad, model.inner.map.bias.requires_grad) == (True, False)
    assert model.inner.map.weight.grad is None
    assert not images.requires_grad


def test_an_image_is_attacked_alike_in_any_batch_and_without_gradients_outside(network, images):
    with torch.no_grad():
        whole = fgsm(network, images, LABELS, 0.05, MEAN, DEVIATION).images
    alone = fgsm(network, images[2:3], LABELS[2:3], 0.05, MEAN, DEVIATION).images
    torch.testing.assert_close(whole[2:3], alone, rtol=0, atol=1e-12)
    assert not whole.requires_grad


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, 8, float("nan")])
def test_epsilons_that_cannot_be(network, images, epsilon):
    with pytest.raises(InputError, match="must be in"):
        fgsm(network, images, LABELS, epsilon, MEAN, DEVIATION)
    with pytest.raises(InputError, match="must be in"):
        pgd(network, images, LABELS, epsilon, MEAN, DEVIATION, generator=from_seed())


def test_what_else_cannot_be_done(network, images):
    for wrong in (images * 255, images - 0.5):
        with pytest.raises(InputError, match="before they are normalised"):
            fgsm(network, wrong, LABELS, 0.1, MEAN, DEVIATION)
    with pytest.raises(InputError, match="steps is 0"):
        pgd(network, images, LABELS, 0.1, MEAN, DEVIATION, steps=0, generator=from_seed())
    with pytest.raises(InputError, match=r"step_size is 0"):
        pgd(network, images, LABELS, 0.1, MEAN, DEVIATION, step_size=0.0, generator=from_seed())
