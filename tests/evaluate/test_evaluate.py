import numpy as np
import pytest
import torch
from torch import nn

from heedful import attention_maps, build
from heedful.evaluate.classification import classification
from heedful.evaluate.evidence import evidence


class Fixed(nn.Module):
    """Puts out its input as the logits."""

    def forward(self, x):
        return x


def test_errors_and_loss_are_counted_over_all_images():
    logits = torch.randn(50, 10)
    labels = torch.randint(0, 10, (50,))
    found = classification(Fixed(), [(logits[:32], labels[:32]), (logits[32:], labels[32:])])
    order = logits.argsort(1, descending=True)
    wrong = sum(int(row[0]) != label for row, label in zip(order, labels.tolist(), strict=True))
    wrong5 = sum(label not in row[:5].tolist() for row, label in zip(order, labels.tolist(), strict=True))
    assert found["error"] == pytest.approx(100 * wrong / 50, abs=1e-4)
    assert found["top5_error"] == pytest.approx(100 * wrong5 / 50, abs=1e-4)
    loss = np.mean(
        [np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits.double().numpy(), labels, strict=True)]
    )
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_top5_needs_more_than_five_classes():
    assert classification(Fixed(), [(torch.eye(5), torch.arange(5))]) == {
        "error": 0.0,
        "top5_error": None,
        "loss": pytest.approx(np.log(np.e + 4) - 1, rel=1e-5),
    }


def test_evidence_is_what_the_network_did():
    model = build("cifar_resnet8", "cbam-ign1(0.5)", num_classes=3)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    found = evidence(model, (images, labels), [(images[:2], labels[:2]), (images[2:], labels[2:])])
    model.eval()
    with torch.no_grad():
        probabilities = model(images).softmax(1)
    assert found["predictions"].tolist() == probabilities.argmax(1).tolist()
    np.testing.assert_allclose(found["probabilities"], probabilities[range(4), labels], rtol=1e-5)
    assert found["layer"] == "layer3"
    maps = attention_maps(model, images, layers=["layer3"], classes=labels)["layer3"][:, 0]
    expected = maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    np.testing.assert_allclose(found["maps"].astype(float), expected, atol=1e-3)
    assert found["gates"].tolist() == [
        f"layer{i}.0.bn2.attention.{half}" for i in (1, 2, 3) for half in ("channel", "spatial")
    ]
    assert found["kinds"].tolist() == ["channel", "spatial"] * 3
    inputs = {}
    spatial = model.layer2[0].bn2.attention.spatial
    spatial.register_forward_pre_hook(lambda module, args: inputs.update(x=args[0].clone()))
    with torch.no_grad():
        model(images)
        mask = spatial.mask(inputs["x"])[:, 0]
    np.testing.assert_allclose(found["spatial/layer2.0.bn2.attention.spatial"].astype(float), mask, atol=1e-3)
    histograms = found["histograms"]
    assert histograms.sum(1).tolist() == [4 * 16, 4 * 16 * 16, 4 * 32, 4 * 64, 4 * 64, 4 * 16]
    assert histograms[3].tolist() == np.histogram(mask.numpy(), 100, (0, 1))[0].tolist()
    assert (histograms[:, :50] == 0).all()  # ign1(0.5) stays above a half


def test_evidence_of_masks_that_are_neither_a_channels_nor_a_places():
    model = build("resnet18", "coord", num_classes=3)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    found = evidence(model, (images, labels), [(images, labels)])
    assert (found["histograms"].sum(1) > 0).all()
    assert set(found["kinds"]) == {"channel"}


def test_evidence_of_a_network_without_attention_or_maps():
    images, labels = torch.randn(2, 3, 2, 2), torch.tensor([0, 1])
    found = evidence(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (images, labels), [(images, labels)])
    assert found["layer"] == ""
    assert found["maps"].shape == (2, 1, 1)
    assert found["histograms"].shape == (0, 100)
