"""Attention before a module: on its input, alone or with attention in the module, a convolution, itself."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse
from torchvision.ops import FeaturePyramidNetwork

from heedful import InputError, attach, audit, bypass, detach, ign2, record, set_gate
from heedful.gates import Opening
from heedful.layers import CONVOLUTIONS, LAYERS
from heedful.surgery.gating import gates_of
from tests.surgery.networks import Residual, Tied, Twice

EVERYTHING = [*LAYERS, *CONVOLUTIONS]
WIDTHS, WIDTH = (8, 16, 24), 12


class Pyramid(nn.Module):
    """A small FPN over maps that two convolutions make; its convolutions stand in sequences of one."""

    def __init__(self, norm=None):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        self.down1 = nn.Conv2d(WIDTHS[0], WIDTHS[1], 3, 2, padding=1)
        self.down2 = nn.Conv2d(WIDTHS[1], WIDTHS[2], 3, 2, padding=1)
        self.fpn = FeaturePyramidNetwork(WIDTHS, WIDTH, norm_layer=norm)

    def forward(self, x):
        first = self.stem(x)
        second = self.down1(first)
        maps = self.fpn({"0": first, "1": second, "2": self.down2(second)})
        return torch.cat([found.flatten(2) for found in maps.values()], 2)


class Lists(nn.Module):
    """Hands a list of maps on, and calls a convolution a second time, with its map by name."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.both = Both()

    def forward(self, x):
        maps = self.both([self.conv(x), self.conv.bias])
        return self.conv(input=maps[:, :3])


class Both(nn.Module):
    def forward(self, maps):
        return maps[0] + maps[1][:, None, None]


def images(number=2, side=20):
    return torch.randn(number, 3, side, side)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


BLOCKS = "fpn.*_blocks.*"
CONVOLUTIONS_OF_FPN = [f"fpn.{kind}_blocks.{level}.0" for kind in ("inner", "layer") for level in range(3)]


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d])
@pytest.mark.parametrize("variant", [*EVERYTHING, "aw+se", "sk+cbam-ign1(0.5)", "aw-ign2+se-ign1(learned)", "se+cbam"])
def test_identity_start_changes_no_output_no_key_and_detach_restores_everything(variant, norm):
    model = Pyramid(norm).eval()
    before, kinds, x = state(model), [type(module) for module in model.modules()], images()
    with torch.no_grad():
        expected = model(x)
        sites = attach(model, variant, sites=BLOCKS, before=True)
        assert torch.equal(model(x), expected)
    assert len(sites) == 6 * (1 + ("+" in variant and variant != "se+cbam"))
    assert {site.name for site in sites} == set(CONVOLUTIONS_OF_FPN)
    assert before.keys() < model.state_dict().keys()
    assert not model.load_state_dict(before, strict=False).unexpected_keys
    assert detach(model) == len(sites)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert [type(module) for module in model.modules()] == kinds
    with torch.no_grad():
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_module_gets_its_attended_input(layer):
    model = Pyramid().eval()
    plain = copy.deepcopy(model)
    attach(model, layer, sites=BLOCKS, before=True, start="paper")
    for name in CONVOLUTIONS_OF_FPN:
        attention = model.get_submodule(f"{name}.before")
        plain.get_submodule(name).register_forward_pre_hook(lambda _m, args, layer=attention: (layer(args[0].clone()),))
    x = images()
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-6)
    assert all(row.num_calls == 1 for row in audit(model, x))


def test_a_convolution_has_attention_before_it_and_in_it():
    model = Pyramid()
    sites = attach(model, "aw+se", sites=BLOCKS, before=True, start="paper", reduction=2)
    assert [(site.variant, site.channels, site.name) for site in sites[:4]] == [
        ("se", 8, "fpn.inner_blocks.0.0"),
        ("aw", 12, "fpn.inner_blocks.0.0"),
        ("se", 16, "fpn.inner_blocks.1.0"),
        ("aw", 12, "fpn.inner_blocks.1.0"),
    ]
    convolution = model.fpn.inner_blocks[2][0]
    plain = copy.deepcopy(convolution)
    squeeze, kernel = plain.before, plain.attention
    x = torch.randn(4, 24, 5, 5)
    attended = x * squeeze.mask(x)
    weights = plain.weight * (1 + kernel.mask(attended))
    pairs = zip(attended, weights, strict=True)
    expected = [nn.functional.conv2d(image[None], own, plain.bias)[0] for image, own in pairs]
    torch.testing.assert_close(convolution(x), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_names_of_sequences_and_of_convolutions_are_the_same_place():
    found = []
    for sites in (BLOCKS, "fpn.*_blocks.*.0", lambda name, _: name.startswith("fpn.") and name.endswith(".0.0")):
        model = Pyramid()
        found.append([(site.name, site.variant) for site in attach(model, "aw+se", sites=sites, before=True)])
    assert found[0] == found[1]
    assert [name for name, _ in found[2]] == ["fpn.inner_blocks.0.0"] * 2 + ["fpn.layer_blocks.0.0"] * 2


def test_a_sequence_is_entered_at_its_first_module():
    model = Pyramid(nn.BatchNorm2d)
    assert [site.name for site in attach(model, "se", sites="fpn.layer_blocks.1")] == ["fpn.layer_blocks.1.1"]
    detach(model)
    assert [site.name for site in attach(model, "se", sites="fpn.layer_blocks.1", before=True)] == [
        "fpn.layer_blocks.1.0"
    ]


@pytest.mark.parametrize("host", ["features.denseblock1", "features.norm0", "features.denseblock1.denselayer1"])
def test_before_dense_blocks_norms_and_layers_that_take_lists(host):
    model = torchvision.models.DenseNet(8, (2, 2), 16, num_classes=5).eval()
    plain, x = copy.deepcopy(model), images(side=32)
    if host.endswith("denselayer1"):  # given the list of the maps before it
        with pytest.raises(InputError, match="does not take a feature map"):
            attach(model, "cbam", sites=host, before=True)
        return
    attach(model, "cbam", sites=host, before=True, start="paper")
    attention = model.get_submodule(host).before
    plain.get_submodule(host).register_forward_pre_hook(lambda _m, args: (attention(args[0]),))
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-6)


def test_gradients_reach_all_of_it_and_the_opening_opens():
    torch.manual_seed(0)
    model = Pyramid().train()
    attach(model, "aw+cbam", sites=BLOCKS, before=True)
    openings = [module for module in model.modules() if isinstance(module, Opening)]
    assert len(openings) == 6 * 3
    assert not any(isinstance(opening.gate, Opening) for opening in openings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(images()).square().sum().backward()
        optimizer.step()
    attention = [p for name, p in model.named_parameters() if ".before." in name or ".attention." in name]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in attention)
    assert sum(p.grad.abs().sum() > 0 for p in attention) > len(attention) / 2
    assert all(opening.opening != 0 for opening in openings)


def test_masks_are_recorded_bypassed_and_gates_exchanged():
    model = Pyramid().eval()
    x = images()
    with torch.no_grad():
        plain = model(x)
        attach(model, "cbam+aw", sites=BLOCKS, before=True, start="paper")
        assert not torch.allclose(model(x), plain)
        with bypass(model):
            torch.testing.assert_close(model(x), plain)
        assert set_gate(model, ign2) == 18
        with record(model) as masks:
            model(x)
    assert masks["fpn.inner_blocks.1.0.before.channel"].shape == (2, 16, 1, 1)
    assert masks["fpn.inner_blocks.1.0.before.spatial"].shape == (2, 1, 10, 10)
    assert masks["fpn.inner_blocks.1.0.attention"].shape == (2, 12, 1, 1, 1)
    assert all(masks[name].min() >= 0.73 for name in masks.names())


def test_copies_pickles_and_checkpoints_are_whole(tmp_path):
    model, x = Pyramid().eval(), images()
    attach(model, "aw+cbam", sites=BLOCKS, before=True, start="paper")
    torch.save(model.state_dict(), tmp_path / "new.pt")
    again = Pyramid().eval()
    attach(again, "aw+cbam", sites=BLOCKS, before=True, start="paper")
    again.load_state_dict(torch.load(tmp_path / "new.pt", weights_only=True), strict=True)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again):
        with torch.no_grad():
            assert torch.equal(twin(x), model(x))
        assert {p.data_ptr() for p in twin.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())
        assert detach(twin) == 12


def test_fusing_convolution_and_norm_keeps_the_attention():
    model, x = Residual().eval(), torch.randn(2, 1, 8, 8)
    attach(model, "se+aw", sites=["stage1.0.conv", "stage2.0.conv"], before=True, start="paper")
    fused = fuse(copy.deepcopy(model))
    assert len(gates_of(fused)) == 4
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)


def test_conversions_that_would_lose_it_are_refused():
    model = Pyramid(nn.BatchNorm2d)
    attach(model, "se", sites="fpn.layer_blocks.*.1", before=True)
    with pytest.raises(InputError, match=r"cannot be converted \(SyncBatchNorm, quantisation\)"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


@pytest.mark.parametrize(
    ("network", "variant", "sites", "message"),
    [
        (Pyramid, "se", None, "before=True: name with sites= the modules before which"),
        (Pyramid, "se", "fpn.inner_block.*", "unknown site 'fpn.inner_block"),
        (Pyramid, "se", "fpn", "'fpn' does not take a feature map"),
        (Pyramid, "aw+se", "fpn.inner_blocks", "'fpn.inner_blocks' is a ModuleList"),
        (Pyramid, "se", ["fpn.inner_blocks.0", "fpn.inner_blocks.0.0"], "'fpn.inner_blocks.0.0' occurs twice"),
        (Lists, "se", "both", "'both' does not take a feature map"),
        (Lists, "se", "conv", "'conv' is called 2 times in a forward pass"),
        (Twice, "aw+se", "conv", "'conv' is called 2 times in a forward pass"),
        (Tied, "se", "first", "'first' is called 2 times"),
        (Residual, "se", "head", "'head' does not take a feature map"),
        (Residual, "se", ["stage1", "stage1.0.conv"], "lies within|occurs twice"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_changed(network, variant, sites, message):
    model = network()
    before, kinds = state(model), [type(module) for module in model.modules()]
    with pytest.raises(InputError, match=message):
        attach(model, variant, sites=sites, before=True)
    assert list(model.state_dict()) == list(before)
    assert [type(module) for module in model.modules()] == kinds


def test_a_failure_halfway_takes_everything_back(monkeypatch):
    model = Pyramid()
    before, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    monkeypatch.setattr("heedful.attachment.unused", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attach(model, "aw+se", sites=BLOCKS, before=True)
    assert list(model.state_dict()) == before
    assert [type(module) for module in model.modules()] == kinds


@pytest.mark.parametrize(("before", "name"), [(False, "attention"), (True, "before")])
def test_a_child_of_the_same_name_is_not_overwritten(before, name):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    setattr(model[1], name, nn.Identity())
    with pytest.raises(InputError, match=f"sites: '1' has an attribute '{name}' of its own"):
        attach(model, "se", sites="1", before=before)


def test_attention_that_a_block_holds_already_is_not_opened_a_second_time():
    """A dense block holds convolutions that get attention too: each gate has one opening."""
    model = torchvision.models.DenseNet(8, (2, 2), 16, num_classes=5).eval()
    x = images(side=32)
    with torch.no_grad():
        expected = model(x)
        attach(model, "aw+se")
        assert torch.equal(model(x), expected)
    openings = [module for module in model.modules() if isinstance(module, Opening)]
    assert len(openings) == len(gates_of(model)) > 4
    assert not any(isinstance(opening.gate, Opening) for opening in openings)


COMPILED = """
import torch, heedful
from tests.surgery.test_before import Pyramid, BLOCKS
torch.manual_seed(0)
model = Pyramid().eval()
heedful.attach(model, "aw-ign1(learned)+cbam", sites=BLOCKS, before=True, start="paper")
x = torch.randn(2, 3, 20, 20)
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
compiled(x).square().sum().backward()
assert all(p.grad is not None for p in model.parameters())
program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
x = torch.randn(5, 3, 20, 20)
torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
print("done")
"""


def test_compiles_without_a_graph_break_and_exports():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr
