"""The conventions of public implementations: what they pin, and weights that go there and back."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from heedful import CBAM, InputError, SqueezeExcitation, attend, ign1, ign2, ign3
from heedful.layers.bam import BAM
from heedful.layers.cbam import ChannelCBAM, MeanCBAM
from heedful.layers.conventions import CONVENTIONS
from heedful.layers.foreign_weights import export_weights, import_weights
from tests.references import attention as gates
from tests.references import conventions as reference

GATES = {attend: gates.attend, ign1(0.5): gates.ign1(0.5), ign2: gates.ign2, ign3: gates.ign3}
FOREIGN = ("laakom-code", "cbam-code", "timm")
every_gate = pytest.mark.parametrize("gate", GATES, ids=repr)
every_foreign = pytest.mark.parametrize("convention", FOREIGN)
both = pytest.mark.parametrize("form", [SqueezeExcitation, CBAM])
all_forms = pytest.mark.parametrize("form", [SqueezeExcitation, CBAM, MeanCBAM, ChannelCBAM])


def feature_maps(channels=32, **options):
    return torch.randn(2, channels, 5, 4, dtype=torch.float64, **options)


def made(form, convention, channels=32, **options):
    """A layer in float64, in evaluation, whose weights and statistics are none of those it starts with."""
    layer = form(channels, convention=convention, **options).double().eval()
    with torch.no_grad():
        for tensor in [*layer.parameters(), *layer.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1).mul_(torch.randint(2, tensor.shape) * 2 - 1 if tensor.dim() > 1 else 1)
    return layer


def mlp_of(layer):
    return layer.mlp if isinstance(layer, SqueezeExcitation) else layer.channel.mlp


def assert_equal(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("convention", "channels", "se", "cbam"),
    [
        ("paper", 40, 2, 2),
        ("paper", 8, 1, 1),
        ("laakom-code", 40, 5, 5),
        ("laakom-code", 4, 1, 1),
        ("cbam-code", 40, 2, 2),
        ("timm", 40, 8, 3),
        ("timm", 64, 8, 4),
        ("timm", 192, 16, 12),
        ("timm", 8, 8, 1),
    ],
)
def test_hidden_widths(convention, channels, se, cbam):
    widths = [mlp_of(form(channels, convention=convention))[0].out_features for form in (SqueezeExcitation, CBAM)]
    assert widths == [se, cbam]


def test_timms_widths_are_timms():
    from timm.layers import SEModule
    from timm.layers.cbam import CbamModule

    preset = CONVENTIONS["timm"]
    for channels in [*range(1, 70), 184, 1000, 2048]:
        for reduction in (16, 12):
            theirs = SEModule(channels, rd_ratio=1 / reduction, device="meta").fc1.out_channels
            assert preset.se_hidden(channels, reduction) == theirs
            theirs = CbamModule(channels, rd_ratio=1 / reduction, device="meta").channel.fc1.out_channels
            assert preset.cbam_hidden(channels, reduction) == theirs


@all_forms
def test_the_papers_convention_is_the_default_and_draws_as_pytorch_does(form):
    torch.manual_seed(1)
    layer = form(32)
    torch.manual_seed(1)
    contract, expand = nn.Linear(32, 2), nn.Linear(2, 32)
    conv = nn.Conv2d(1 if form is MeanCBAM else 2, 1, 7, bias=False)
    assert torch.equal(mlp_of(layer)[0].weight, contract.weight)
    assert torch.equal(mlp_of(layer)[2].bias, expand.bias)
    if form in (CBAM, MeanCBAM):
        assert torch.equal(layer.spatial.conv.weight, conv.weight)
        assert isinstance(layer.spatial.norm, nn.Identity)


@both
def test_laakoms_convention_draws_as_before(form):
    """The order of the draws: PyTorch's own for each linear map, then both again, and likewise the convolution."""
    torch.manual_seed(1)
    layer = form(32, convention="laakom-code")
    torch.manual_seed(1)
    linears = [nn.Linear(32, 4), nn.Linear(4, 32)]
    for linear in linears:
        nn.init.normal_(linear.weight, std=0.01)
    assert torch.equal(mlp_of(layer)[0].weight, linears[0].weight)
    assert torch.equal(mlp_of(layer)[2].weight, linears[1].weight)
    assert not mlp_of(layer)[0].bias.any()
    assert not mlp_of(layer)[2].bias.any()
    if form is CBAM:
        conv = nn.Conv2d(2, 1, 7, bias=False)
        nn.init.kaiming_normal_(conv.weight)
        assert torch.equal(layer.spatial.conv.weight, conv.weight)


@both
def test_laakoms_weights_are_small_and_normal(form):
    mlp = mlp_of(form(512, reduction=1, convention="laakom-code"))
    for linear in (mlp[0], mlp[2]):
        assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert linear.weight.abs().max() > 0.03


@pytest.mark.parametrize(("convention", "fan"), [("laakom-code", 2 * 41**2), ("cbam-code", 41**2)])
def test_spatial_weights_are_he_normal(convention, fan):
    weight = CBAM(8, convention=convention, kernel_size=41).spatial.conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.05)


def test_cbams_convention_starts_with_an_even_spatial_mask_and_no_biases():
    layer = CBAM(32, convention="cbam-code")
    assert torch.equal(layer.spatial.mask(feature_maps().float()), torch.full((2, 1, 5, 4), 0.5))
    assert not layer.channel.mlp[0].bias.any()
    assert not layer.channel.mlp[2].bias.any()
    assert layer.channel.mlp[0].weight.std() > 0.05


@pytest.mark.parametrize(("convention", "momentum"), [("cbam-code", 0.01), ("timm", 0.1)])
def test_the_batch_norm_normalises_and_remembers_with_its_momentum(convention, momentum):
    spatial, x = CBAM(32, convention=convention).double().train().spatial, feature_maps()
    nn.init.ones_(spatial.norm.weight)
    logits = spatial.logits(x)
    assert logits.mean().item() == pytest.approx(0, abs=1e-9)
    assert logits.var(unbiased=False).item() == pytest.approx(1, rel=1e-2)
    pooled = [x.mean(1), x.amax(1)] if convention == "timm" else [x.amax(1), x.mean(1)]
    expected = spatial.conv(torch.stack(pooled, dim=1)).mean() * momentum
    torch.testing.assert_close(spatial.norm.running_mean[0], expected)


@both
@pytest.mark.parametrize("reduction", [4, None])
def test_a_reduction_given_overrides_the_conventions(form, reduction):
    hidden = mlp_of(form(64, reduction=reduction, convention="laakom-code"))[0].out_features
    assert hidden == 64 // (reduction or 8)


@all_forms
def test_an_unknown_convention_is_refused(form):
    with pytest.raises(InputError, match=r"unknown convention 'laakom': did you mean laakom-code\?"):
        form(8, convention="laakom")


@every_gate
@pytest.mark.parametrize(("form", "slow"), [(SqueezeExcitation, reference.keras_se), (CBAM, reference.keras_cbam)])
def test_outputs_equal_the_code_of_laakoms_authors(form, slow, gate):
    layer, x = made(form, "laakom-code", gate=gate), feature_maps()
    weights = export_weights(layer, "laakom-code")
    shapes = [(32, 4), (4,), (4, 32), (32,), (7, 7, 2, 1)]
    assert [array.shape for array in weights] == shapes[: len(weights)]
    theirs = slow(x.permute(0, 2, 3, 1).numpy(), weights, GATES[gate])
    assert_equal(layer(x), torch.from_numpy(theirs).permute(0, 3, 1, 2))


@every_gate
@both
def test_outputs_equal_the_code_of_cbams_authors(form, gate):
    layer, x = made(form, "cbam-code", gate=gate), feature_maps()
    state = {key: tensor.numpy() for key, tensor in export_weights(layer, "cbam-code").items()}
    options = {} if form is CBAM else {"spatial": False, "pools": ("mean",)}
    assert_equal(layer(x), torch.from_numpy(reference.cbam_code(x.numpy(), state, GATES[gate], **options)))


def timms(form, **options):
    from timm.layers import SEModule
    from timm.layers.cbam import CbamModule

    return (SEModule if form is SqueezeExcitation else CbamModule)(32, **options).double()


@both
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_equal_timms(form, training):
    layer, theirs = made(form, "timm").train(training), timms(form).train(training)
    theirs.load_state_dict(export_weights(layer, "timm"))
    x = feature_maps(requires_grad=True)
    y, same = feature_maps().detach(), x.detach().clone().requires_grad_()
    assert_equal(layer(x), theirs(same))
    (layer(x) * y).sum().backward()
    (theirs(same) * y).sum().backward()
    assert_equal(x.grad, same.grad)
    assert_equal(mlp_of(layer)[0].weight.grad[:, :, None, None], dict(theirs.named_parameters())[first(form)].grad)
    if form is CBAM:
        assert_equal(layer.spatial.conv.weight.grad, theirs.spatial.conv.conv.weight.grad)


def first(form):
    return "fc1.weight" if form is SqueezeExcitation else "channel.fc1.weight"


@both
def test_timms_own_weights_give_timms_outputs(form):
    layer, theirs, x = made(form, "timm"), timms(form).eval(), feature_maps()
    import_weights(layer, theirs.state_dict(), "timm")
    assert_equal(layer(x), theirs(x))


@both
@every_foreign
def test_weights_come_back_as_they_went(form, convention):
    layer, other, x = made(form, convention), made(form, convention), feature_maps()
    assert not torch.allclose(layer(x), other(x))
    import_weights(other, export_weights(layer, convention), convention)
    for key, tensor in layer.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key
    again = export_weights(other, convention)
    once = export_weights(layer, convention)
    pairs = zip(once, again, strict=True) if convention == "laakom-code" else [(once[k], again[k]) for k in once]
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_the_pooled_maps_change_places_between_conventions():
    """The paper's layer has Laakom's structure and timm's order, so its kernel goes to "cbam-code" turned."""
    paper, theirs = made(CBAM, "paper"), made(CBAM, "laakom-code", reduction=16)
    import_weights(theirs, export_weights(paper, "laakom-code"), "laakom-code")
    x = feature_maps()
    assert torch.equal(theirs(x), paper(x))
    cbam_code, timm_like = made(CBAM, "cbam-code"), made(CBAM, "timm")
    timm_like.channel = cbam_code.channel  # biases, as the other code has; the spatial half stays timm's
    import_weights(timm_like, export_weights(cbam_code, "cbam-code"), "cbam-code")
    assert torch.equal(timm_like.spatial.conv.weight, cbam_code.spatial.conv.weight.flip(1))
    assert_equal(timm_like(x), cbam_code(x))
    assert_equal(
        export_weights(timm_like, "cbam-code")["SpatialGate.spatial.conv.weight"], cbam_code.spatial.conv.weight
    )


def test_names_are_the_other_codes():
    keys = set(export_weights(made(CBAM, "cbam-code"), "cbam-code"))
    norm = {
        f"SpatialGate.spatial.bn.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    mlp = {f"ChannelGate.mlp.{i}.{n}" for i in (1, 3) for n in ("weight", "bias")}
    assert keys == norm | mlp | {"SpatialGate.spatial.conv.weight"}
    assert set(export_weights(made(SqueezeExcitation, "timm"), "timm")) == set(timms(SqueezeExcitation).state_dict())


def test_weights_are_copies_and_the_gate_stays():
    layer = made(SqueezeExcitation, "timm", gate=ign1("learned"))
    weights = export_weights(layer, "timm")
    weights["fc1.weight"].zero_()
    assert layer.mlp[0].weight.abs().min() > 0
    parameters, alpha = list(layer.parameters()), layer.gate.alpha.item()
    import_weights(layer, weights, "timm")
    assert not layer.mlp[0].weight.any()
    assert layer.gate.alpha.item() == alpha
    assert all(a is b for a, b in zip(parameters, layer.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in parameters)


@pytest.mark.parametrize(
    ("made_with", "convention", "match"),
    [
        ("cbam-code", "timm", "this layer has biases in the MLP, timm not: make the layer with convention='timm'"),
        ("timm", "cbam-code", "cbam-code has biases in the MLP, this layer has not: make .* convention='cbam-code'"),
        ("paper", "cbam-code", "cbam-code has a batch norm in the spatial half, this layer has not"),
        ("cbam-code", "laakom-code", "this layer has a batch norm in the spatial half, laakom-code not"),
    ],
)
def test_what_the_other_code_has_not_is_refused(made_with, convention, match):
    layer = made(CBAM, made_with)
    with pytest.raises(InputError, match=match):
        export_weights(layer, convention)
    with pytest.raises(InputError, match=match):
        import_weights(layer, {}, convention)


@pytest.mark.parametrize("layer", [BAM(32), MeanCBAM(32), nn.Conv2d(3, 8, 3)], ids=lambda layer: type(layer).__name__)
def test_other_layers_are_refused(layer):
    with pytest.raises(InputError, match=r"the layer is a .*only SqueezeExcitation and CBAM"):
        export_weights(layer, "timm")


def test_nobodys_code_is_refused():
    for action in (export_weights, functools.partial(import_weights, weights={})):
        with pytest.raises(InputError, match="unknown code with weights 'paper': choose one of laakom-code, cbam-code"):
            action(SqueezeExcitation(8), convention="paper")


def broken(weights, convention, how):
    if convention == "laakom-code":
        last = weights[-1]
        return {"missing": weights[:-1], "superfluous": [*weights, last], "shape": [*weights[:-1], last[..., :0]]}[how]
    last = list(weights)[-1]
    fewer = {key: weights[key] for key in weights if key != last}
    shape = fewer | {last: torch.zeros(7)}
    return {"missing": fewer, "superfluous": weights | {"module.fc.weight": torch.zeros(1)}, "shape": shape}[how]


@both
@every_foreign
@pytest.mark.parametrize("how", ["missing", "superfluous", "shape"])
def test_wrong_weights_are_refused_and_change_nothing(form, convention, how):
    layer = made(form, convention)
    weights = broken(export_weights(made(form, convention), convention), convention, how)
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    match = {"shape": "make it with the same channels", "missing": "missing|needs a list of"}.get(
        how, "superfl|needs a"
    )
    with pytest.raises(InputError, match=match):
        import_weights(layer, weights, convention)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())


def test_the_wrong_kind_of_weights_is_refused():
    layer = SqueezeExcitation(8)
    with pytest.raises(InputError, match=r"laakom-code needs a list of 4 arrays, .* but got a dict of 4"):
        import_weights(layer, export_weights(layer, "timm"), "laakom-code")
    with pytest.raises(InputError, match="timm needs a state dict, but got a list"):
        import_weights(layer, export_weights(layer, "laakom-code"), "timm")
