"""The libraries that the benchmark compares with give the same Grad-CAM: `uv run --group bench pytest tests/maps`.

Where they differ: pytorch-grad-cam stretches maps from minimum to maximum, adding 1e-7 to the divisor, before and after
it enlarges them; its Grad-CAM++ adds 1e-6 to a denominator that is often smaller. torch-cam's (0.5.0) does not divide.
"""

import warnings

import numpy as np
import pytest
import torch
import torchvision

from heedful import attention_maps
from heedful.maps.processing import upsampled

LABELS = torch.tensor([3, 1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5).double().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def maps(model, images):
    return attention_maps(model, images, layers=["layer2", "layer3"], classes=LABELS)


@pytest.mark.parametrize("layer", ["layer2", "layer3"])
def test_captum(model, images, maps, layer):
    attr = pytest.importorskip("captum.attr", reason="captum is in the dependency group bench")
    method = attr.LayerGradCam(model, model.get_submodule(layer))
    theirs = method.attribute(images, target=LABELS, relu_attributions=True).detach()
    torch.testing.assert_close(maps[layer], theirs, rtol=1e-10, atol=1e-14)


def test_torch_cam(model, images, maps):
    methods = pytest.importorskip("torchcam.methods", reason="torch-cam is in the dependency group bench")
    with methods.GradCAM(model, ["layer2", "layer3"]) as extractor:
        theirs = extractor(LABELS.tolist(), model(images), normalized=False)
    for ours, found in zip(maps.values(), theirs, strict=True):
        torch.testing.assert_close(ours[:, 0], found, rtol=1e-10, atol=1e-14)


def stretched(maps):
    shifted = maps - maps.amin((2, 3), keepdim=True)
    return shifted / (1e-7 + shifted.amax((2, 3), keepdim=True))


def test_pytorch_grad_cam(model, images, maps):
    library = pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is in the dependency group bench")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in LABELS.tolist()]
    with warnings.catch_warnings(), library.GradCAM(model=model, target_layers=[model.layer3]) as method:
        warnings.simplefilter("ignore")
        theirs = method(input_tensor=images, targets=targets)
    ours = stretched(upsampled(stretched(maps["layer3"]), (64, 64)))[:, 0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # its resizing is float32
