"""Detectors with attention in their FPN: where it stands, what it computes, how they learn, save and come back."""

import dataclasses
import functools
import urllib.error

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from heedful import InputError, detach, load
from heedful.gates import Opening
from heedful.layers import AWConv2d
from heedful.models.cards import DetectorCard
from heedful.models.detection import ANCHOR_SHARES, DETECTORS, build_detector, detector_of
from heedful.surgery.masks import record

SMALL = "fasterrcnn_resnet18_fpn_small"


def small(variant="none", **options):
    torch.manual_seed(3)
    return build_detector(SMALL, variant, **{"num_classes": 2, "image_size": 64, **options})


def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 61, 93, generator=generator), torch.rand(3, 80, 64, generator=generator)]


def targets():
    return [
        {"boxes": torch.tensor([[4.0, 5, 40, 50], [20, 20, 90, 60]]), "labels": torch.tensor([1, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]


def trained(model):
    """Return the detector after batch norms have seen images and boxes have got scores, so that it finds something."""
    model.train()
    with torch.no_grad():
        model(images(), targets())
    return model.eval()


@functools.cache
def trained_plain():
    return trained(small())


def same(first, second):
    return all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_built_without_computing_with_two_sites_a_level(name):
    with torch.device("meta"):
        model = build_detector(name, "aw+se", num_classes=7, image_size=200)
    num_levels = 2 if "mobilenet" in name else 4
    fpn = model.backbone.fpn
    convolutions = [block[0] for block in [*fpn.inner_blocks, *fpn.layer_blocks]]
    assert len(convolutions) == 2 * num_levels
    assert all(isinstance(convolution, AWConv2d) for convolution in convolutions)
    assert [c.before.mlp[0].in_features for c in convolutions] == [c.in_channels for c in convolutions]
    assert sum(isinstance(module, AWConv2d) for module in model.modules()) == 2 * num_levels
    assert model.roi_heads.box_predictor.cls_score.out_features == 8  # with background
    assert (model.transform.min_size, model.transform.max_size) == ((200,), 400)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("fasterrcnn_resnet50_fpn", torchvision.models.detection.fasterrcnn_resnet50_fpn),
        ("fasterrcnn_mobilenet_v3_large_fpn", torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn),
    ],
)
def test_those_that_torchvision_has_are_the_same(name, twin):
    with torch.device("meta"):
        ours = build_detector(name, num_classes=90, image_size=800)
        theirs = twin(weights=None, weights_backbone=None, num_classes=91)
    described = [{key: tuple(value.shape) for key, value in model.state_dict().items()} for model in (ours, theirs)]
    assert described[0] == described[1]
    assert ours.rpn.anchor_generator.sizes == theirs.rpn.anchor_generator.sizes
    assert ours.rpn.score_thresh == theirs.rpn.score_thresh


@pytest.mark.parametrize("variant", ["aw", "cbam", "aw+se", "se-ign1(0.5)", "sk+eca-ign2"])
def test_attention_that_begins_as_the_identity_changes_nothing(variant):
    plain, model = trained_plain(), trained(small(variant, start="identity"))
    shared = plain.state_dict()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in shared.items() if "backbone.body" in key)
    with torch.no_grad():
        expected = plain(images())
        assert same(model(images()), expected)
        assert sum(len(found["boxes"]) for found in expected) > 0
    num_sites = 8 * (1 + ("+" in variant))
    assert detach(model.backbone) == num_sites
    assert model.state_dict().keys() == shared.keys()


@pytest.mark.parametrize("variant", ["se-ign3", "aw+cbam"])
def test_attention_as_in_the_papers_changes_the_maps_and_not_the_trunk(variant):
    plain, model = small().eval(), small(variant).eval()
    assert not any(isinstance(module, Opening) for module in model.modules())
    for key, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for level, maps in plain.backbone(x).items():
            assert not torch.allclose(maps, model.backbone(x)[level])


def test_the_fpn_is_that_of_the_equations():
    """SE right before, AW in the lateral and the output convolutions; the sum of levels as in a plain FPN."""
    model = small("aw+se").eval()
    fpn, x = model.backbone.fpn, torch.rand(2, 3, 64, 96)

    def attended(block, maps):
        convolution = block[0]
        maps = maps * convolution.before.mask(maps)
        weights = convolution.weight * (1 + convolution.attention.mask(maps))
        padding = convolution.padding
        rows = [F.conv2d(a[None], w, convolution.bias, padding=padding) for a, w in zip(maps, weights, strict=True)]
        return torch.cat(rows)

    with torch.no_grad():
        found = list(model.backbone(x).values())
        body = list(model.backbone.body(x).values())
        inner = None
        for level in (3, 2, 1, 0):
            lateral = attended(fpn.inner_blocks[level], body[level])
            inner = lateral if inner is None else lateral + F.interpolate(inner, size=lateral.shape[2:])
            torch.testing.assert_close(found[level], attended(fpn.layer_blocks[level], inner), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("variant", ["aw+se", "aw+cbam", "sk"])
def test_gradients_reach_all_attention(variant):
    model = small(variant).train()
    losses = model(images(), targets())
    assert losses.keys() == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    attention = {name: p for name, p in model.named_parameters() if ".before." in name or ".attention." in name}
    assert len({name.partition(".0.")[0] for name in attention}) == 8
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in attention.values())
    # A hidden unit that the ReLU closes for both images has none; a mask of one place sees the centre of its kernel.
    assert sum(bool(p.grad.abs().sum() > 0) for p in attention.values()) > 0.7 * len(attention)


@pytest.mark.parametrize(
    ("variant", "size"),
    [(v, (61, 93)) for v in ("aw", "se", "cbam", "aw+se", "aw+cbam")] + [("aw+cbam", (33, 32)), ("aw+se", (31, 150))],
)
def test_one_image_of_odd_size_leaves_every_level_finite(variant, size):
    model = small(variant, image_size=32).train()
    x = torch.rand(1, 3, *size)
    with record(model) as kept:
        levels = model.backbone(x)
        losses = model(list(x), [{"boxes": torch.tensor([[1.0, 2, 20, 30]]), "labels": torch.tensor([2])}])
        found = model.eval()(list(x))
    assert len(kept.names()) == 8 * (2 * variant.count("cbam") + variant.count("se") + variant.count("aw"))
    assert all(torch.isfinite(mask).all() for masks in kept.masks.values() for mask in masks)
    assert all(len(masks) == 3 for masks in kept.masks.values())
    assert all(torch.isfinite(maps).all() for maps in levels.values())
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(tensor).all() for tensor in found[0].values())


def test_an_image_without_boxes_has_a_finite_loss():
    model = small("aw+cbam").train()
    losses = model(images()[:1], targets()[1:])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_objectness"] > 0
    assert losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_detector_learns_one_image_by_heart():
    model = small("aw+se").train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    image = torch.zeros(3, 64, 64)
    image[0, 10:24, 12:26] = 1
    truth = {"boxes": torch.tensor([[12.0, 10, 26, 24]]), "labels": torch.tensor([2])}
    for _ in range(30):
        optimizer.zero_grad()
        sum(model([image, image], [truth, truth]).values()).backward()
        optimizer.step()
    best = {key: value[0] for key, value in model.eval()([image])[0].items()}
    assert best["labels"] == 2
    assert best["scores"] > 0.5
    assert torchvision.ops.box_iou(best["boxes"][None], truth["boxes"]) > 0.5


def test_anchors_of_the_small_detector_scale_with_the_images():
    model = small(image_size=800)
    assert model.rpn.anchor_generator.sizes == tuple((share * 800,) for share in ANCHOR_SHARES)
    with torch.device("meta"):
        large = build_detector("fasterrcnn_resnet18_fpn", num_classes=2, image_size=800)
    assert model.rpn.anchor_generator.sizes == large.rpn.anchor_generator.sizes
    assert small(image_size=240).rpn.anchor_generator.sizes[0] == pytest.approx((9.6,))


@pytest.mark.parametrize("variant", ["none", "aw+cbam-ign1(learned)"])
def test_a_saved_detector_comes_back_as_it_was(tmp_path, variant):
    model = trained(small(variant, reduction=4, convention="timm" if "cbam" in variant else None))
    card = dataclasses.replace(model.card, classes=("cat", "dog"))
    model.card = card
    model.save_pretrained(tmp_path)
    twin = load(tmp_path)
    assert twin.card == card
    assert card.variant == variant
    with torch.no_grad():
        assert same(twin(images()), model(images()))


@pytest.mark.parametrize(
    ("name", "variant", "options", "message"),
    [
        ("fasterrcnn_resnet19_fpn", "none", {}, "unknown detector 'fasterrcnn_resnet19_fpn': did you mean fasterrcnn_"),
        (SMALL, "sse", {}, "did you mean se"),
        (SMALL, "pay2-pc", {}, "'pay2-pc' cannot go into .*: a detector takes attention layers alone"),
        (SMALL, "se+pay2-pc", {}, "a detector takes attention layers alone, such as"),
        (SMALL, "mmtm", {}, "a detector takes attention layers alone"),
        (SMALL, "aw+sk", {}, "a convolution can become aw or sk, not both"),
        (SMALL, "se", {"num_classes": 0}, "num_classes is 0, but it must be at least 1"),
        (SMALL, "se", {"image_size": 31}, "image_size is 31, but it must be at least 32"),
        (SMALL, "se", {"start": "open"}, "start is 'open', but it must be identity or paper"),
        (SMALL, "se", {"reduction": 0}, "reduction"),
        (SMALL, "se", {"convention": "mine"}, "convention"),
    ],
)
def test_what_cannot_be_built_is_refused(name, variant, options, message):
    with pytest.raises(InputError, match=message), torch.device("meta"):
        build_detector(name, variant, **{"num_classes": 2, "image_size": 64, **options})


def test_an_option_that_no_layer_has_is_left_out_so_that_rows_can_share_it():
    with torch.device("meta"):
        model = build_detector(SMALL, "simam", num_classes=2, image_size=64, reduction=4, convention="timm")
    assert (model.card.reduction, model.card.convention) == (4, "timm")


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """Return weights of a ResNet-18 that lie where torchvision keeps those of ImageNet."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = torchvision.models.resnet18().state_dict()
    (tmp_path / "checkpoints").mkdir()
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    torch.save(weights, tmp_path / "checkpoints" / url.rpartition("/")[2])
    return weights


def test_pretrained_begins_with_the_weights_and_keeps_batch_norms_and_first_stages(imagenet, tmp_path):
    model = small("aw+se", pretrained=True)
    body = model.backbone.body.state_dict()
    assert body.keys() == {k for k in imagenet if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    assert all(torch.equal(body[key], imagenet[key]) for key in body)
    fixed = {name.partition(".")[0] for name, p in model.backbone.body.named_parameters() if not p.requires_grad}
    assert fixed == {"conv1", "layer1"}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.backbone.body.modules())
    assert model.card.start == "identity"
    assert any(isinstance(module, Opening) for module in model.modules())
    rebuilt = detector_of(model.card)
    assert rebuilt.state_dict().keys() == model.state_dict().keys()
    assert not torch.equal(rebuilt.backbone.body.conv1.weight, imagenet["conv1.weight"])


def test_a_pretrained_detector_comes_back_as_it_was(imagenet, tmp_path):
    model = small("se", pretrained=True).eval()
    model.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert same(load(tmp_path / "saved")(images()), model(images()))


def test_weights_that_cannot_be_had_are_named(monkeypatch):
    def offline(*_args, **_options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        InputError, match=r"pretrained=True: .* resnet18 .*no route.*resnet18-f37072fd.pth into .*checkp"
    ):
        small(pretrained=True)


def test_the_card_says_how_it_was_built():
    model = small("SE-ign1(0.5)", reduction=2, convention="timm", start="identity")
    classes = ("0", "1")
    assert model.card == DetectorCard(SMALL, "se-ign1(0.5)", classes, 64, 2, "timm", "identity")
