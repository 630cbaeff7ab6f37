"""Images of several classes: mean average precision and AUC against their definitions."""

import numpy as np
import pytest
import torch
from torch import nn

from heedful import InputError
from heedful.evaluate.classification import classification, classification_loss, mean_auc, mean_average_precision
from tests.references.ranking import area_under_roc, average_precision


@pytest.fixture
def logits():
    """Of 40 images and 6 classes, with ties."""
    return (3 * torch.randn(40, 6)).round(decimals=1)


@pytest.fixture
def labels():
    return torch.randint(0, 2, (40, 6))


def columns(logits, labels):
    return list(zip(logits.T.tolist(), labels.T.tolist(), strict=True))


def test_map_and_auc_are_the_means_over_classes(logits, labels):
    assert len(logits[:, 0].unique()) < len(logits)  # or ties are not tested
    expected = np.mean([average_precision(*each) for each in columns(logits, labels)])
    assert mean_average_precision(logits, labels) == pytest.approx(100 * expected, abs=1e-4)
    expected = np.mean([area_under_roc(*each) for each in columns(logits, labels)])
    assert mean_auc(logits, labels) == pytest.approx(expected, abs=1e-6)


def test_only_the_order_of_scores_counts(logits, labels):
    steep = 100 * logits + 500  # a sigmoid of these is 1 in float32
    assert mean_average_precision(steep, labels) == mean_average_precision(logits, labels)
    assert mean_auc(steep, labels) == mean_auc(logits, labels)
    assert mean_auc(-logits, labels) == pytest.approx(1 - mean_auc(logits, labels), abs=1e-6)


def test_a_perfect_ranking_is_100_and_constant_scores_are_the_share_of_each_class(labels):
    assert mean_average_precision(labels.float(), labels) == 100
    assert mean_auc(labels.float(), labels) == 1
    constant = torch.zeros(40, 6)
    assert mean_average_precision(constant, labels) == pytest.approx(100 * labels.float().mean().item(), abs=1e-4)
    assert mean_auc(constant, labels) == pytest.approx(0.5)


def test_classes_that_no_image_shows_are_left_out_and_counted(logits, labels):
    labels[:, 2] = 0
    kept = [0, 1, 3, 4, 5]
    found = classification(nn.Identity(), [(logits[:32], labels[:32]), (logits[32:], labels[32:])])
    assert found["classes_left_out"] == 1
    assert found["map"] == mean_average_precision(logits[:, kept], labels[:, kept])
    assert found["auc"] == mean_auc(logits[:, kept], labels[:, kept])
    assert found["error"] == 100 - found["map"]
    assert "top5_error" not in found


def test_a_class_of_all_images_has_a_precision_of_1_and_no_curve(logits, labels):
    labels[:, 2] = 1
    others = [0, 1, 3, 4, 5]
    assert mean_auc(logits, labels) == mean_auc(logits[:, others], labels[:, others])
    expected = (5 * mean_average_precision(logits[:, others], labels[:, others]) + 100) / 6
    assert mean_average_precision(logits, labels) == pytest.approx(expected, abs=1e-4)
    assert mean_auc(logits[:, [2]], labels[:, [2]]) is None


def test_without_any_class_there_is_no_precision(logits):
    with pytest.raises(InputError, match="none of 40 images shows any class"):
        mean_average_precision(logits, torch.zeros(40, 6, dtype=torch.int64))


def test_the_loss_is_the_mean_over_classes_of_binary_cross_entropy(logits, labels):
    probability = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = -np.where(labels.numpy() == 1, np.log(probability), np.log(1 - probability)).mean()
    assert classification_loss(logits.double(), labels).item() == pytest.approx(expected, abs=1e-10)
    found = classification(nn.Identity(), [(logits, labels)])
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert classification_loss(logits.bfloat16(), labels).dtype == torch.float32
