import dataclasses
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from heedful import ICASC, InputError, build, consistency_loss, separation_loss, soft_mask
from heedful.losses import Weights
from heedful.maps.methods import BY_GRADIENTS
from tests.references import class_maps as slow

METHODS = ["channel", "grad-cam", "grad-cam++", "layer-cam"]


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.fixture
def images():
    return torch.randn(3, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network(activation=nn.ReLU, *, head=1):
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        activation(),
        nn.Conv2d(4, 5, 3, padding=1, stride=2),
        nn.BatchNorm2d(5),
        activation(),
        nn.AdaptiveAvgPool2d(head),
        nn.Flatten(),
        nn.Linear(5 * head**2, 4),
    ).double()


LABELS = torch.tensor([1, 3, 0])


def test_separation_equals_equation_3(maps):
    target, confusing, mask = maps
    raw = sum(slow.separation(*one) for one in zip(target, confusing, mask, strict=True)) / 3
    assert separation_loss(target, confusing, mask, normalise=False).item() == pytest.approx(raw, rel=1e-12)
    scaled = [m / m.amax((1, 2), keepdim=True) for m in (target, confusing)]
    expected = sum(slow.separation(*one) for one in zip(*scaled, mask, strict=True)) / 3
    assert separation_loss(target, confusing, mask).item() == pytest.approx(expected, rel=1e-12)
    assert separation_loss(target[:, None], confusing[:, None], mask[:, None]).item() == pytest.approx(expected)


def test_separation_is_1_for_equal_and_0_for_disjoint_maps(maps):
    target = maps[0]
    everywhere = torch.ones_like(target)
    assert separation_loss(target, target, everywhere).item() == pytest.approx(1)
    left = torch.zeros_like(target)
    left[..., :2] = 1
    assert separation_loss(left, 1 - left, everywhere) == 0
    assert separation_loss(target, target, 0 * everywhere) == 0


def test_a_map_that_merely_shrinks_wins_nothing(maps):
    target, confusing, mask = maps
    assert separation_loss(target, 0.1 * confusing, mask).item() == pytest.approx(
        separation_loss(target, confusing, mask).item()
    )
    assert separation_loss(target, 0.1 * target, mask, normalise=False) < 0.5 * separation_loss(target, target, mask)


def test_the_mask_equals_equation_4(maps):
    target = maps[0]
    expected = torch.stack([slow.mask(one.clone()) for one in target])
    torch.testing.assert_close(soft_mask(target), expected)
    torch.testing.assert_close(soft_mask(7 * target), expected)
    softer = torch.stack([slow.mask(one.clone(), 0.3, 10) for one in target])
    torch.testing.assert_close(soft_mask(target, threshold=0.3, sharpness=10.0), softer)


def test_the_mask_is_enlarged_before_it_is_thresholded_and_is_guidance(maps):
    target = maps[0].requires_grad_()
    mask = soft_mask(target, size=(8, 10))
    scaled = target.detach() / target.detach().amax((1, 2), keepdim=True)
    large = F.interpolate(scaled[:, None], (8, 10), mode="bilinear")[:, 0]
    torch.testing.assert_close(mask, torch.sigmoid(100 * (large - 0.55)))
    assert not mask.requires_grad
    assert soft_mask(target, detach=False).requires_grad


def test_consistency_equals_equation_5(maps):
    inner, _, mask = maps
    expected = sum(slow.consistency(*one) for one in zip(inner, mask, strict=True)) / 3
    assert consistency_loss(inner, mask).item() == pytest.approx(expected, rel=1e-12)
    assert consistency_loss(inner, mask, 0.3).item() == pytest.approx(expected - 0.5, rel=1e-12)
    assert consistency_loss(inner, torch.ones_like(mask)).item() == pytest.approx(-0.2)
    assert consistency_loss(inner, torch.ones_like(mask), hinge=True) == 0


def test_maps_of_zeros_count_as_zero_and_have_finite_gradients(maps):
    target, confusing, mask = (m.clone() for m in maps)
    target[1], confusing[1] = 0, 0
    target.requires_grad_()
    total = separation_loss(target, confusing, mask) + consistency_loss(target, mask)
    total.backward()
    assert target.grad.isfinite().all()
    rest = [m[[0, 2]] for m in (target, confusing, mask)]
    both = separation_loss(*rest) + consistency_loss(rest[0], rest[2])
    assert total.item() == pytest.approx(both.item() * 2 / 3)


def test_shapes_must_agree(maps):
    target, confusing, mask = maps
    with pytest.raises(InputError, match=r"the shapes differ: target_map \(3, 4, 5\), confusing_map \(3, 2, 5\)"):
        separation_loss(target, confusing[:, :2], mask)
    with pytest.raises(InputError, match="soft_mask has size="):
        consistency_loss(target, mask[..., :2])


def slow_losses(model, images, labels, method, *, mask_from=None, confusing=None):
    """ICASC's parts by the plain way: a whole backward pass for each image and class, equations 1 to 5 in loops."""
    inner = model[:3](images)
    last = model[3:6](inner)
    logits = model[6:](last)
    parts = torch.zeros(3, dtype=torch.float64)
    for n, label in enumerate(labels.tolist()):
        order = logits[n].argsort(descending=True).tolist()
        classes = label, next(c for c in order if c != label)
        maps = {}
        for which, c in zip("tc", classes, strict=True):
            gradients = torch.autograd.grad(logits[:, c][[n]].sum(), (inner, last), retain_graph=True)
            for name, a, g in zip(("inner", "last"), (inner, last), gradients, strict=True):
                found = slow.class_map(method, a[n].detach(), g[n])
                maps[name + which] = found / found.max() if found.max() > 0 else found
        mask = slow.mask(maps["lastt"].clone())
        large = F.interpolate(maps["lastt"][None, None], inner.shape[2:], mode="bilinear")[0, 0]
        large = torch.sigmoid(100 * (large - 0.55))
        parts[0] += slow.separation(maps["innert"], maps["innerc"], large) / len(labels)
        parts[1] += slow.separation(maps["lastt"], maps["lastc"], mask) / len(labels)
        parts[2] += slow.consistency(maps["innert"], large) / len(labels)
    return parts


@pytest.mark.parametrize("head", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_icasc_equals_the_equations(images, method, head):
    model = network(head=head).eval()
    losses = ICASC(model, "2", "5", method)(images, LABELS)
    parts = torch.stack([losses.inner_separation, losses.last_separation, losses.consistency])
    torch.testing.assert_close(parts.detach(), slow_losses(model, images, LABELS, method), rtol=1e-10, atol=1e-12)
    assert losses.classification.item() == pytest.approx(F.cross_entropy(model(images), LABELS).item())
    assert losses.total.item() == pytest.approx(losses.classification.item() + parts.sum().item())
    torch.testing.assert_close(losses.logits, model(images))
    weighted = ICASC(model, "2", "5", method, Weights(inner=0.5, last=2, consistency=0.1))(images, LABELS)
    expected = losses.classification + (parts * torch.tensor([0.5, 2, 0.1])).sum()
    assert weighted.total.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("head", [1, 2])
@pytest.mark.parametrize("method", ["channel", "grad-cam"])
def test_finite_differences_confirm_every_parameters_gradient(images, method, head, training, monkeypatch):
    """With the mask attached, as its gradient is left out of the loss's on purpose; no other class gets ahead."""
    attached = functools.partial(soft_mask, detach=False, sharpness=5.0)
    monkeypatch.setattr("heedful.losses.soft_mask", attached)
    model = network(nn.Softplus, head=head).train(training)
    for norm in (model[1], model[4]):
        norm.momentum = 0.0
    criterion = ICASC(model, "2", "5", method)
    criterion(images, LABELS).total.backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        before, step, totals = parameter.detach().clone(), 1e-6, []
        for sign in (1, -1):
            parameter.data = before + sign * step * direction
            totals.append(criterion(images, LABELS).total.item())
        parameter.data = before
        numeric = (totals[0] - totals[1]) / (2 * step)
        assert (parameter.grad * direction).sum().item() == pytest.approx(numeric, rel=1e-5, abs=1e-8), name


def test_the_attention_loss_reaches_the_trunk(images):
    for first_order in (False, True):
        model = network()
        losses = ICASC(model, "2", "5", first_order=first_order)(images, LABELS)
        (losses.inner_separation + losses.last_separation + losses.consistency).backward()
        assert model[0].weight.grad.abs().max() > 1e-6
        assert model[8].weight.grad.abs().max() > 1e-6


def test_first_order_leaves_out_the_gradient_through_the_inner_weights(images):
    gradients = []
    for first_order in (False, True):
        model = network().eval()
        losses = ICASC(model, "2", "5", first_order=first_order)(images, LABELS)
        losses.total.backward()
        gradients.append(model[3].weight.grad)
        total = losses.total.item()
    assert not torch.allclose(*gradients)
    assert total == pytest.approx(ICASC(network().eval(), "2", "5")(images, LABELS).total.item())
    # By hand: the same loss with the gradients of the scores taken for constants.
    model = network().eval()
    inner = model[:3](images)
    last = model[3:6](inner)
    logits = model[6:](last)
    confusing = logits.scatter(1, LABELS[:, None], -torch.inf).argmax(1)
    maps = {}
    for which, classes in (("t", LABELS), ("c", confusing)):
        (slope,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), inner, retain_graph=True)
        weight = model[8].weight[classes][..., None, None] / last.shape[2:].numel()
        maps["inner" + which] = BY_GRADIENTS["channel"](inner, slope)
        maps["last" + which] = BY_GRADIENTS["channel"](last, weight)
    large = soft_mask(maps["lastt"], size=inner.shape[2:])
    total = F.cross_entropy(logits, LABELS) + separation_loss(maps["innert"], maps["innerc"], large)
    total = total + separation_loss(maps["lastt"], maps["lastc"], soft_mask(maps["lastt"]))
    total = total + consistency_loss(maps["innert"] / maps["innert"].amax((1, 2), keepdim=True), large)
    (slope,) = torch.autograd.grad(total, model[3].weight)
    torch.testing.assert_close(slope, gradients[1])


def test_running_statistics_count_the_batch_once(images):
    plain, with_attention = network(), network()
    plain(images)
    ICASC(with_attention, "2", "5")(images, LABELS)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, with_attention.state_dict()[name]), name
    assert with_attention[1].num_batches_tracked == 1


def test_scores_three_times_as_large_change_no_attention_loss(images):
    model = network().eval()
    before = ICASC(model, "2", "5")(images, LABELS)
    model[8].weight.data *= 3
    model[8].bias.data *= 3
    after = ICASC(model, "2", "5")(images, LABELS)
    for part in ("inner_separation", "last_separation", "consistency"):
        torch.testing.assert_close(getattr(before, part), getattr(after, part))
    assert before.classification != after.classification


def test_start_and_ramp(images):
    criterion = ICASC(network().eval(), "2", "5", start_epoch=2, ramp=3)
    strengths = []
    for epoch in range(7):
        criterion.epoch = epoch
        strengths.append(criterion.strength)
        losses = criterion(images, LABELS)
        parts = losses.inner_separation + losses.last_separation + losses.consistency
        expected = losses.classification + criterion.strength * parts
        assert losses.total.item() == pytest.approx(expected.item())
    assert strengths == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert ICASC(network(), "2", "5").strength == 1


def test_several_true_classes_have_one_map_and_the_best_absent_one_is_confusing(images):
    model = network().eval()
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    criterion = ICASC(model, "2", "5", "grad-cam")
    losses = criterion(images, labels)
    assert losses.classification.item() == pytest.approx(
        F.multilabel_soft_margin_loss(model(images), labels.double()).item()
    )
    inner = model[:3](images)
    last = model[3:6](inner)
    logits = model[6:](last)
    confusing = max((1, 3), key=lambda c: logits[0, c].item())
    maps = {}
    for which, score in (("t", logits[0, 0] + logits[0, 2]), ("c", logits[0, confusing])):
        slopes = torch.autograd.grad(score, (inner, last), retain_graph=True)
        for name, a, g in zip(("inner", "last"), (inner, last), slopes, strict=True):
            maps[name + which] = BY_GRADIENTS["grad-cam"](a[:1], g[:1]).detach()
    large = soft_mask(maps["lastt"], size=inner.shape[2:])
    torch.testing.assert_close(losses.inner_separation, separation_loss(maps["innert"], maps["innerc"], large))
    torch.testing.assert_close(
        losses.last_separation, separation_loss(maps["lastt"], maps["lastc"], soft_mask(maps["lastt"]))
    )
    torch.testing.assert_close(losses.consistency, consistency_loss(maps["innert"], large))
    nothing = criterion(images[1:], labels[1:])
    assert nothing.total.item() == pytest.approx(nothing.classification.item())
    nothing.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_layers_are_found_on_the_first_batch():
    model = build("cifar_resnet8", "se", num_classes=4)
    criterion = ICASC(model)
    assert criterion(torch.randn(2, 3, 32, 32), torch.tensor([0, 1])).total.isfinite()
    assert (criterion.inner, criterion.last) == ("layer2", "layer3")
    with pytest.raises(InputError, match="no two resolutions of at least 4 x 4 places: give larger images"):
        ICASC(model)(torch.randn(2, 3, 5, 5), torch.tensor([0, 1]))


@pytest.mark.parametrize("variant", ["se", "cbam", "aw", "aw+se", "eca-ign2", "coord"])
def test_every_layer_of_ours_can_be_trained_with_it(variant):
    model = build("cifar_resnet8", variant, num_classes=4)
    losses = ICASC(model, "layer2", "layer3")(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_attention_losses_are_float32(dtype):
    model = build("cifar_resnet8", "none", num_classes=4)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    exact = ICASC(model, "layer2", "layer3")(images, labels)
    with torch.autocast("cpu", dtype):
        losses = ICASC(model, "layer2", "layer3")(images, labels)
    losses.total.backward()
    with torch.autocast("cpu", dtype):
        several = ICASC(model, "layer2", "layer3")(images, torch.eye(4, dtype=torch.int64))
    assert several.classification.dtype == torch.float32
    for field in ("inner_separation", "last_separation", "consistency"):
        assert getattr(losses, field).dtype == torch.float32
        assert getattr(losses, field).item() == pytest.approx(getattr(exact, field).item(), abs=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_it_is_for_training_and_for_maps(images):
    with torch.no_grad(), pytest.raises(InputError, match="ICASC: gradients are switched off here"):
        ICASC(network(), "2", "5")(images, LABELS)
    with pytest.raises(InputError, match=r"layer '6' puts out \(5, 1, 1\) .* needs 4 x 4 places"):
        ICASC(network(), "2", "6")(images, LABELS)
    with pytest.raises(InputError, match=r"layer '7' puts out \(5,\)"):
        ICASC(network(), "2", "7")(images, LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "chanel"}, "unknown method 'chanel': did you mean channel"),
        ({"inner": "2"}, "inner is '2' and last is None: name both"),
        ({"inner": "2", "last": "2"}, "inner and last are both '2'"),
        ({"ramp": -1}, "must not be negative"),
        ({"weights": Weights(last=-1)}, "must not be negative"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        ICASC(network(), **options)
    assert dataclasses.astuple(Weights()) == (1, 1, 1)
