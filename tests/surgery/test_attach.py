"""Attention goes into a network in place, all or nothing, and comes out again without a trace."""

import copy
import pickle
import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn

from heedful import InputError, SqueezeExcitation, attach, attend, build, detach, ign2
from heedful.gates import LearnedIgn1, Opening, ScheduledIgn1, advance
from heedful.layers import CONVOLUTIONS, LAYERS, AWConv2d
from tests.surgery.networks import Branching, Making, Plain, Residual, Tied, Twice

EVERYTHING = [*LAYERS, *CONVOLUTIONS]


def images(number=2, channels=3, side=32):
    return torch.randn(number, channels, side, side)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same_state(model, before):
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("variant", [*EVERYTHING, "se+cbam-ign1(0.5)", "aw-ign2+se-ign1(learned)"])
def test_identity_start_changes_no_output_no_key_and_detach_restores_everything(variant):
    model = torchvision.models.resnet18(num_classes=5).eval()
    before, kinds, x = state(model), [type(module) for module in model.modules()], images()
    with torch.no_grad():
        expected = model(x)
        sites = attach(model, variant)
        assert torch.equal(model(x), expected)
    assert before.keys() < model.state_dict().keys()
    new = model.state_dict().keys() - before.keys()
    assert all(".attention." in key for key in new)
    missing, unexpected = model.load_state_dict(before, strict=False)
    assert set(missing) == {key for key in new if not key.endswith("num_batches_tracked")}  # which torch fills in
    assert not unexpected
    assert len(sites) in (8, 16, 24)
    assert detach(model) == len(sites)
    assert_same_state(model, before)
    assert [type(module) for module in model.modules()] == kinds
    with torch.no_grad():
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("variant", ["se", "cbam", "aw", "aw+se", "sk"])
def test_identity_start_holds_in_training_mode_and_opens_from_there(variant):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).train()
    plain = copy.deepcopy(model)
    attach(model, variant)
    x = images(4)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-5)
    openings = [module.opening for module in model.modules() if isinstance(module, Opening)]
    assert all(opening == 0 for opening in openings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).logsumexp(1).sum().backward()
        optimizer.step()
    assert all(opening != 0 for opening in openings)
    attention = [p for name, p in model.named_parameters() if ".attention." in name]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in attention)
    assert sum(p.grad.abs().sum() > 0 for p in attention) > len(attention) / 2


def test_attention_of_the_users_own_is_left_alone():
    model = nn.Sequential(AWConv2d(3, 8, 3), nn.BatchNorm2d(8))
    attach(model, "simam", sites="1")
    assert detach(model) == 1
    assert isinstance(model[0], AWConv2d)
    with pytest.raises(InputError, match="no attention that"):
        detach(model)


def test_paper_start_is_the_layer_itself():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).eval()
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    attach(model, "se-ign2", start="paper", reduction=4)
    torch.manual_seed(1)
    for name, channels in [(f"layer{i}.{j}.bn2", 32 * 2**i) for i in (1, 2, 3, 4) for j in (0, 1)]:
        layer = SqueezeExcitation(channels, reduction=4, gate=ign2)
        twin.get_submodule(name).register_forward_hook(lambda _m, _i, out, layer=layer: layer(out))
    x = images()
    torch.testing.assert_close(model(x), twin(x), rtol=1e-5, atol=1e-5)


def test_sites_are_returned_in_order_with_shapes():
    sites = attach(torchvision.models.resnet18(), "aw+se", sites=["layer3", "layer1.1"])
    assert [site.name for site in sites] == [
        "layer1.1.conv1", "layer1.1.conv2", "layer1.1.bn2", "layer3.0.conv1", "layer3.0.conv2", "layer3.0.bn2",
        "layer3.1.conv1", "layer3.1.conv2", "layer3.1.bn2",
    ]  # fmt: skip
    assert {(site.variant, site.channels, site.height, site.width) for site in sites[-3:]} == {
        ("aw", 256, 14, 14),
        ("se", 256, 14, 14),
    }


def test_modules_parameters_and_hooks_stay_the_same_objects():
    model = torchvision.models.resnet18()
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    called = []
    model.layer1[0].bn2.register_forward_hook(lambda *_: called.append("norm"))
    model.layer1[0].conv2.register_forward_hook(lambda *_: called.append("convolution"))
    attach(model, "aw+cbam")
    called.clear()
    model(images())
    assert called == ["convolution", "norm"]
    assert all(model.get_submodule(name) is module for name, module in modules.items())
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert isinstance(model.layer1[0].bn2, nn.BatchNorm2d)
    assert isinstance(model.layer1[0].conv2, nn.Conv2d)


def test_none_puts_nothing_in():
    model = Residual()
    assert attach(model, "none") == []
    with pytest.raises(InputError, match="no attention that"):
        detach(model)


def test_attention_takes_device_type_and_mode_of_its_place():
    model = Residual().double().eval()
    attach(model, "cbam+srm", example=images(2, 1, 8).double())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert not any(module.training for module in model.modules())
    model(images(2, 1, 8).double())


def test_a_frozen_network_trains_its_attention_alone():
    model = Residual().requires_grad_(False)
    attach(model, "se")
    model(images(2, 1, 8)).sum().backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained
    assert all(".attention." in name for name in trained)


def test_channels_fewer_than_the_reduction_leave_one_hidden_unit():
    model = Residual()
    attach(model, "se", reduction=1000)
    assert model.stage1[0].bn.attention.mlp[0].out_features == 1


@pytest.mark.parametrize("network", [Plain, Branching, Making])
@pytest.mark.parametrize("variant", ["se", "cbam", "aw"])
def test_networks_of_a_users_own(network, variant):
    model = network().eval()
    x = images(2, 3, 12)
    with torch.no_grad():
        expected = model(x)
        attach(model, variant, sites=lambda name, module: name in ("conv", "conv2"))
        torch.testing.assert_close(model(x), expected)
    detach(model)


@pytest.mark.parametrize(
    ("network", "variant", "options", "message"),
    [
        (Residual, "see", {}, "did you mean se"),
        (Residual, "se", {"start": "zero"}, "start is 'zero', but it must be identity or paper"),
        (Residual, "se", {"sites": "stage9"}, "unknown site 'stage9'"),
        (Residual, "se", {"sites": "head"}, "'head' does not put out a feature map"),
        (Residual, "se", {"reduction": 0}, "must both be at least 1|reduction"),
        (Residual, "eca", {"reduction": 4}, "reduction=4: no layer of 'eca' has it"),
        (Residual, "eca", {"convention": "timm"}, "convention='timm': no layer of 'eca' has it"),
        (Residual, "aw+sk", {}, "a convolution can become aw or sk, not both"),
        (Residual, "aw+se", {"sites": "stage1.0.conv"}, "'stage1.0.conv' cannot take all of it"),
        (Twice, "se", {"sites": "conv"}, "'conv' is called 2 times in a forward pass"),
        (Tied, "se", {"sites": "first"}, "'first' is called 2 times"),
        (Tied, "aw", {"sites": "second"}, "'second' is called 2 times"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "se", {}, "no place for attention was found"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "aw", {}, "no plain convolution"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_changed(network, variant, options, message):
    model = network()
    before, kinds = state(model), [type(module) for module in model.modules()]
    with pytest.raises(InputError, match=message):
        attach(model, variant, **options)
    assert_same_state(model, before)
    assert [type(module) for module in model.modules()] == kinds


def test_attaching_twice_is_refused_and_the_first_stays():
    model = Residual()
    attach(model, "se")
    before = state(model)
    with pytest.raises(InputError, match=r"has attention from heedful\.attach already"):
        attach(model, "cbam")
    assert_same_state(model, before)


def test_a_failure_halfway_takes_everything_back(monkeypatch):
    model = torchvision.models.resnet18()
    before, kinds = state(model), [type(module) for module in model.modules()]
    monkeypatch.setattr("heedful.attachment.unused", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attach(model, "aw+se")
    assert_same_state(model, before)
    assert [type(module) for module in model.modules()] == kinds


def test_scripted_and_quantised_networks_are_refused():
    with warnings.catch_warnings(action="ignore"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)))
        quantised = nn.Sequential(nn.Conv2d(3, 4, 3), torch.ao.nn.quantized.Conv2d(4, 4, 3))
    for model in (scripted, quantised):
        with pytest.raises(InputError, match="scripted or quantised"):
            attach(model, "se")


def test_parts_of_larger_networks():
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    sites = attach(detector, "se")
    assert len(sites) > 10
    assert all(site.name.startswith("backbone.body.") for site in sites)
    segmenter = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=2).eval()
    x = images()
    with torch.no_grad():
        expected = segmenter(x)["out"]
        assert len(attach(segmenter, "cbam")) == 16
        assert torch.equal(segmenter(x)["out"], expected)


def test_learned_and_scheduled_alphas_are_each_layers_own():
    model = Residual()
    attach(model, "se-ign1(learned)", start="paper")
    gates = [module for module in model.modules() if isinstance(module, LearnedIgn1)]
    assert len(gates) == len({id(gate.logit_alpha) for gate in gates}) == 4
    model(images(2, 1, 8)).logsumexp(1).sum().backward()
    assert all(gate.logit_alpha.grad != 0 for gate in gates)
    detach(model)
    attach(model, "se-ign1(1to0.5)", start="paper")
    advance(model, 0.5)
    scheduled = [module for module in model.modules() if isinstance(module, ScheduledIgn1)]
    assert [module.alpha.item() for module in scheduled] == [0.75] * 4
    assert "stage1.0.bn.attention.gate.alpha" in model.state_dict()


def test_pretrained_networks_of_timms_keep_what_they_compute():
    model = timm.create_model("mobilenetv3_small_050", num_classes=4).eval()
    x = images()
    with torch.no_grad():
        expected = model(x)
        attach(model, "cbam-ign2")
        assert torch.equal(model(x), expected)


def test_building_starts_as_the_paper_unless_pretrained():
    built = build("resnet18", "se", num_classes=3)
    assert built.layer1[0].bn2.attention.gate == attend
    identity = build("resnet18", "se", num_classes=3, start="identity")
    assert isinstance(identity.layer1[0].bn2.attention.gate, Opening)


@pytest.mark.parametrize("variant", ["cbam", "aw+se-ign1(learned)"])
def test_copies_and_pickles_are_whole_and_independent(variant):
    model = torchvision.models.resnet18(num_classes=3).eval()
    attach(model, variant, start="paper")
    x = images()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            assert torch.equal(twin(x), model(x))
        assert {p.data_ptr() for p in twin.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())
        assert type(twin.layer1[0].bn2) is type(model.layer1[0].bn2)
        assert detach(twin) == detach(copy.deepcopy(model))


def test_the_old_and_the_new_checkpoint_load(tmp_path):
    old = torchvision.models.resnet18(num_classes=3)
    model = torchvision.models.resnet18(num_classes=3)
    attach(model, "cbam")
    missing, unexpected = model.load_state_dict(old.state_dict(), strict=False)
    assert not unexpected
    assert all(".attention." in key for key in missing)
    torch.save(model.state_dict(), tmp_path / "new.pt")
    again = torchvision.models.resnet18(num_classes=3)
    attach(again, "cbam")
    again.load_state_dict(torch.load(tmp_path / "new.pt", weights_only=True), strict=True)
    x = images()
    assert torch.equal(again.eval()(x), model.eval()(x))
