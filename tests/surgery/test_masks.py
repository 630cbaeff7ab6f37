"""Gates exchanged, masks recorded and bypassed, attention audited: in heedful's layers, timm's and torchvision's."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from heedful import InputError, attach, audit, build, bypass, ign1, ign2, ign3, record, set_gate
from heedful.gates import Opening
from heedful.surgery.gating import gates_of


def images(number=3):
    return torch.randn(number, 3, 32, 32)


@pytest.mark.parametrize(
    ("model", "number"),
    [
        (lambda: timm.create_model("seresnet18"), 8),
        (lambda: timm.create_model("resnet18", block_args={"attn_layer": "ese"}), 8),
        (lambda: timm.create_model("resnet18", block_args={"attn_layer": "eca"}), 8),
        (lambda: timm.create_model("resnet18", block_args={"attn_layer": "cbam"}), 16),
        (lambda: timm.create_model("resnet18", block_args={"attn_layer": "gc"}), 8),
        (lambda: timm.create_model("efficientnet_b0"), 16),
        (lambda: timm.create_model("mobilenetv3_small_050"), 9),
        (lambda: timm.create_model("regnety_002"), 13),
        (lambda: torchvision.models.efficientnet_b0(), 16),
        (lambda: torchvision.models.mobilenet_v3_small(), 9),
        (lambda: torchvision.models.regnet_y_400mf(), 16),
        (lambda: build("cifar_resnet8", "cbam", num_classes=2), 6),
    ],
)
def test_every_gate_is_found_exchanged_and_used(model, number):
    model = model().eval()
    x = images()
    keys = list(model.state_dict())
    assert set_gate(model, ign1(0.01)) == number
    assert list(model.state_dict()) == keys
    with record(model) as masks, torch.no_grad():
        model(x)
    assert len(masks.names()) == number
    assert all(masks[name].min() >= 0.99 for name in masks.names())


def test_a_gate_is_set_inside_its_opening():
    model = torchvision.models.resnet18()
    attach(model, "se")
    assert set_gate(model, ign2) == 8
    gate = model.layer1[0].bn2.attention.gate
    assert isinstance(gate, Opening)
    assert gate.gate == ign2


def test_learned_gates_are_each_modules_own():
    model = timm.create_model("seresnet18")
    assert set_gate(model, ign1("learned")) == 8
    assert len({name for name, _ in model.named_parameters() if name.endswith("gate.logit_alpha")}) == 8


def test_a_module_that_ignores_its_gate_is_refused_and_nothing_changes():
    model = timm.create_model("resnet18", block_args={"attn_layer": "lcbam"})
    gates = [gated.gate for gated in gates_of(model)]
    with pytest.raises(InputError, match=r"layer1.0.se.channel \(LightChannelAttn\)"):
        set_gate(model, ign2)
    assert [gated.gate for gated in gates_of(model)] == gates


@pytest.mark.parametrize(
    "use", [set_gate, lambda model, _: audit(model, images()), lambda model, _: bypass(model).__enter__()]
)
def test_a_network_without_gates_is_refused(use):
    with pytest.raises(InputError, match=r"no gate|no attention"):
        use(torchvision.models.resnet18(), ign2)


def test_recorded_masks_are_those_of_the_layers_over_all_passes():
    model = build("cifar_resnet8", "cbam-ign3", num_classes=3).eval()
    x = torch.randn(5, 3, 16, 16)
    inputs = []
    spatial = model.layer2[0].bn2.attention.spatial
    hook = spatial.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with record(model) as masks, torch.no_grad():
        model(x[:2])
        model(x[2:])
        expected = torch.cat([spatial.mask(given) for given in inputs[:2]])
        del masks.masks["layer2.0.bn2.attention.spatial"][2:]  # those of the line above
    hook.remove()
    assert torch.equal(masks["layer2.0.bn2.attention.spatial"], expected)
    assert masks["layer1.0.bn2.attention.channel"].shape == (5, 16, 1, 1)
    assert spatial.gate == ign3
    masks.clear()
    assert masks.names() == []


def test_the_summary_counts_by_depth_and_class():
    model = build("cifar_resnet8", "se", num_classes=3).eval()
    with record(model) as masks, torch.no_grad():
        model(torch.randn(4, 3, 16, 16))
    mask = masks["layer1.0.bn2.attention"]
    mask.copy_(torch.linspace(0, 1, mask.numel()).view_as(mask))
    masks.masks["layer1.0.bn2.attention"] = [mask]
    labels = torch.tensor([2, 0, 2, 2])
    rows = masks.summary(labels)
    assert [(row.name, row.label) for row in rows[:3]] == [("layer1.0.bn2.attention", label) for label in (None, 0, 2)]
    assert rows[0].mean == pytest.approx(0.5)
    assert rows[0].suppressed == pytest.approx(0.5)
    assert rows[0].saturated == pytest.approx((mask < 0.01).float().mean().item() * 2, abs=0.02)
    assert rows[0].between_images == pytest.approx(mask.std(0, correction=0).mean().item())
    assert rows[1].mean == pytest.approx(mask[1].mean().item())
    assert rows[2].mean == pytest.approx(mask[labels == 2].mean().item())
    assert len(masks.summary()) == 3


@pytest.mark.parametrize("variant", ["se", "cbam-ign2", "bam", "coord", "ge"])
def test_bypassing_with_one_is_the_network_without_attention(variant):
    model = torchvision.models.resnet18(num_classes=4).eval()
    x = images()
    with torch.no_grad():
        plain = model(x)
        attach(model, variant, start="paper")
        attended = model(x)
        with bypass(model):
            assert torch.equal(model(x), plain)
        assert torch.equal(model(x), attended)
    assert not torch.allclose(plain, attended)


def test_bypassing_with_the_mean_and_with_shuffled_masks():
    model = torchvision.models.resnet18(num_classes=4).eval()
    attach(model, "se", start="paper", sites="layer1.0")
    layer, seen = model.layer1[0].bn2.attention, []
    layer.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    layer.register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    x = images(6)
    with torch.no_grad():
        for masks in ("mean", "shuffled"):
            with bypass(model, masks):
                model(x)
        given, mean, _, shuffled = seen
        mask = layer.gate(layer.logits(given))
    torch.testing.assert_close(mean, given * mask.mean(0, keepdim=True))
    matches = [[torch.allclose(shuffled[i], given[i] * mask[j], atol=1e-6) for j in range(6)] for i in range(6)]
    assert sorted(row.index(True) for row in matches) == list(range(6))


def test_bypassing_ends_after_an_exception_and_keeps_the_order_of_parameters():
    model = torchvision.models.resnet18()
    attach(model, "se")
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(RuntimeError, match="stop"), bypass(model):
        raise RuntimeError("stop")
    assert isinstance(model.layer1[0].bn2.attention.gate, Opening)
    assert [name for name, _ in model.named_parameters()] == names
    with (
        pytest.raises(InputError, match="masks is 'zero', but it must be one of one, mean, shuffled"),
        bypass(model, "zero"),
    ):
        pass


def test_audit_sees_every_attention_called_and_trained():
    model = torchvision.models.resnet18().train()
    attach(model, "cbam")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = audit(model, images())
    assert len(rows) == 16
    assert all(row.num_calls == 1 and row.gradient > 0 for row in rows)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_audit_finds_attention_that_does_nothing():
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.used, self.uncalled, self.unused = (timm.layers.SEModule(8) for _ in range(3))

        def forward(self, x):
            x = self.used(self.conv(x))
            self.unused(x)
            return x

    with pytest.raises(InputError, match=r"without effect.*: uncalled, unused$"):
        audit(Forgetful(), images())
