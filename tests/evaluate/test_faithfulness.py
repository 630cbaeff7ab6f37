import pytest
import torch
from torch import nn

from heedful import InputError
from heedful.evaluate.faithfulness import KERNEL_DEVIATION, KERNEL_SIZE, area, blurred, deletion, insertion
from tests.references import evidence_of_maps as slow


@pytest.fixture
def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 3)
    ).double()


@pytest.fixture
def images():
    return torch.randn(4, 3, 7, 9, dtype=torch.float64)


@pytest.fixture
def maps():
    """With ties."""
    return (torch.rand(4, 7, 9, dtype=torch.float64) * 10).round()


CLASSES = torch.tensor([0, 2, 1, 2])


def test_curves_are_the_definitions(network, images, maps):
    found = {"deletion": deletion, "insertion": insertion}
    found = {name: curve(network, images, maps, CLASSES, num_steps=5) for name, curve in found.items()}
    assert network.training
    network.eval()
    for n in range(4):
        grey, blur = torch.zeros_like(images[n]), slow.blurred(images[n], KERNEL_SIZE, KERNEL_DEVIATION)
        for name, (start, end) in {"deletion": (images[n], grey), "insertion": (blur, images[n])}.items():
            expected = slow.curve(network, start, end, maps[n], CLASSES[n], 5)
            expected = torch.tensor(expected, dtype=torch.float64)
            torch.testing.assert_close(found[name][n], expected, rtol=0, atol=1e-10)


def test_blur_is_the_gaussian(images):
    expected = torch.stack([slow.blurred(image, KERNEL_SIZE, KERNEL_DEVIATION) for image in images])
    torch.testing.assert_close(blurred(images), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(blurred(torch.ones_like(images)), torch.ones_like(images))


def test_area(images):
    curves = torch.rand(3, 6, dtype=torch.float64)
    expected = torch.tensor([slow.area(curve) for curve in curves.tolist()], dtype=torch.float64)
    torch.testing.assert_close(area(curves), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(area(torch.linspace(0, 1, 9)[None]), torch.tensor([0.5]))


class Middle(nn.Module):
    """Its first class is likely where the middle pixel is bright."""

    def forward(self, x):
        bright = 10 * x[:, :, 4, 4].mean(1) - 5
        return torch.stack([bright, -bright], 1)


def test_a_map_of_what_the_network_uses_is_better_than_one_of_the_rest():
    images = torch.ones(1, 3, 9, 9) * torch.zeros(9, 9).index_put((torch.tensor(4), torch.tensor(4)), torch.tensor(1.0))
    used = images[:, 0]
    label = torch.zeros(1, dtype=torch.int64)
    deleted, inserted = (
        [area(curve(Middle(), images, maps, label)) for maps in (used, -used)] for curve in (deletion, insertion)
    )
    assert deleted[0] < 0.1 < 0.9 < deleted[1]
    assert inserted[0] > 0.9 > 0.1 > inserted[1]


@pytest.mark.parametrize("curve", [deletion, insertion])
def test_what_cannot_be_done(network, images, maps, curve):
    with pytest.raises(InputError, match="enlarge them to their size"):
        curve(network, images, maps[:, :5], CLASSES)
    with pytest.raises(InputError, match="num_steps is 0"):
        curve(network, images, maps, CLASSES, num_steps=0)
    if curve is insertion:
        with pytest.raises(InputError, match="too small to blur"):
            curve(network, images[:, :, :5], maps[:, :5], CLASSES)
