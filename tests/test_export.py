"""Exported networks compute what the network does, for any batch size; what cannot be exported leaves no file."""

import importlib.util
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heedful import InputError, build, load
from heedful.export import export
from heedful.models.cards import ModelCard
from heedful.models.saved import save, saveable

onnxruntime = pytest.importorskip("onnxruntime")
BATCHES = (1, 2, 5)


def trained(variant, image_size=8):
    """Return a network after a few steps on random images, with its card."""
    model = build("cifar_resnet8", variant, num_classes=3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        images, labels = torch.randn(6, 3, image_size, image_size), torch.arange(6) % 3
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    card = ModelCard("cifar_resnet8", variant, None, ("a", "b", "ç"), image_size, (0.1, 0.2, 0.3), (1.0, 0.5, 1.0))
    saveable(model, card)
    return model


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def run_torch(path, images):
    return torch.export.load(path).module()(images)


RUN = {"onnx": run_onnx, "torch": run_torch}


@pytest.mark.parametrize("variant", ["cbam-ign1(0.5)", "pay2-dp"])
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_trained_networks_file_computes_the_same_for_any_batch(tmp_path, format, variant):
    model = trained(variant)
    path = tmp_path / "model.pt2"
    difference = export(model, path, format=format)
    assert 0 <= difference < 1e-5
    assert model.training
    model.eval()
    for size in BATCHES:
        images = torch.randn(size, 3, 8, 8)
        torch.testing.assert_close(RUN[format](path, images), model(images), atol=1e-5, rtol=1e-5)
    assert json.loads((tmp_path / "model.pt2.json").read_text())["classes"] == ["a", "b", "ç"]
    assert not list(tmp_path.glob("*.partial"))


def test_the_card_goes_into_the_onnx_file(tmp_path):
    model = trained("none")
    save(model, model.card, tmp_path)
    export(load(tmp_path), tmp_path / "model.onnx")
    metadata = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["a", "b", "ç"]
    assert json.loads(metadata["mean"]) == [0.1, 0.2, 0.3]
    assert json.loads(metadata["deviation"]) == [1.0, 0.5, 1.0]
    assert json.loads(metadata["image_size"]) == 8
    assert metadata["variant"] == "none"


def test_the_card_goes_into_the_torch_file(tmp_path):
    model = trained("none")
    export(model, tmp_path / "model.pt2", format="torch")
    extra = {"card.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["card.json"]) == json.loads(json.dumps(asdict(model.card)))


def test_a_network_of_ones_own_is_exported_for_its_images(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 5 * 4, 2))
    export(model, tmp_path / "own.onnx", example=torch.zeros(1, 1, 7, 6))
    images = torch.randn(3, 1, 7, 6)
    torch.testing.assert_close(run_onnx(tmp_path / "own.onnx", images), model(images))
    assert [path.name for path in tmp_path.iterdir()] == ["own.onnx"]  # without a card no JSON


@pytest.mark.parametrize("type_", [torch.bfloat16, torch.float64])
def test_other_types_are_exported_as_float32(tmp_path, type_):
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten()).to(type_)
    export(model, tmp_path / "own.onnx", example=torch.zeros(1, 3, 2, 2))
    assert model[0].weight.dtype is type_
    images = torch.randn(2, 3, 2, 2)
    torch.testing.assert_close(run_onnx(tmp_path / "own.onnx", images), model.float()(images))


class TiedToItsBatch(nn.Module):
    def forward(self, x):
        return F.conv2d(x.reshape(1, -1, *x.shape[2:]), torch.ones(len(x), 3, 2, 2), groups=len(x)).flatten(2)[0]


class Two(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)), x.amax((2, 3))


class Wrong(nn.Module):
    """Computes something else when it is exported."""

    def forward(self, x):
        return x.mean((2, 3)) + (1e-3 if torch.compiler.is_exporting() else 0)


class NotANumber(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) + (float("nan") if torch.compiler.is_exporting() else 0)


class OfOneSize(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.shape[0] == 2 else x.amax((2, 3))


@pytest.mark.parametrize(
    ("model", "format", "message"),
    [
        (Two(), "torch", "puts out a tuple, but only one tensor"),
        (Wrong(), "torch", r"was not written: what was exported differs from the network by 1\.0e-03, more than 1e-04"),
        (Wrong(), "onnx", r"differs from the network by 1\.0e-03"),
        (NotANumber(), "torch", "differs from the network by inf"),
        (TiedToItsBatch(), "onnx", "cannot be exported: "),
        (OfOneSize(), "torch", "cannot be exported: "),
    ],
)
def test_what_cannot_be_exported_leaves_what_stood_there(tmp_path, model, format, message):
    path = tmp_path / "old.file"
    path.write_text("old")
    with pytest.raises(InputError, match=message):
        export(model, path, format=format, example=torch.zeros(1, 3, 4, 4))
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.file"]


def test_an_unknown_format_and_a_missing_example_are_refused(tmp_path):
    with pytest.raises(InputError, match="format is 'tflite', but it must be one of onnx, torch"):
        export(nn.Flatten(), tmp_path / "x", format="tflite")
    with pytest.raises(InputError, match="example is missing: the network has no card"):
        export(nn.Flatten(), tmp_path / "x")


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(InputError, match=r"format='onnx' needs onnxscript: pip install heedful\[export\]"):
        export(trained("none"), tmp_path / "model.onnx")
    export(trained("none"), tmp_path / "model.pt2", format="torch")


def test_only_the_shape_of_the_example_counts(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    first = export(model, tmp_path / "a.onnx", example=torch.zeros(1, 3, 2, 2))
    second = export(model, tmp_path / "b.onnx", example=torch.full((7, 3, 2, 2), np.inf))
    assert first == second
