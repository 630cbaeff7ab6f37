"""All layers x all gates: the same facts."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from heedful import CBAM, InputError, SqueezeExcitation, attend, ign1, ign2, ign3
from heedful.layers import LAYERS
from heedful.layers.cbam import ChannelAttention, SpatialAttention
from tests.references import attention as reference

GATES = {
    attend: reference.attend,
    ign1(1): reference.ign1(1),
    ign1(0.5): reference.ign1(0.5),
    ign2: reference.ign2,
    ign3: reference.ign3,
}
every_gate = pytest.mark.parametrize("gate", GATES, ids=repr)
every_layer = pytest.mark.parametrize("name", ["se", "cbam"])


def feature_maps(channels=8, dtype=torch.float64, **options):
    return torch.randn(2, channels, 5, 4, dtype=dtype, **options)


def mlp_of(layer):
    return reference.numbers(layer.mlp[0].weight, layer.mlp[0].bias, layer.mlp[2].weight, layer.mlp[2].bias)


def slow_se(layer, x):
    return reference.squeeze_excitation(x, *mlp_of(layer), GATES[layer.gate])


def slow_cbam(layer, x):
    attended = reference.channel_attention(x, *mlp_of(layer.channel), GATES[layer.channel.gate])
    kernel = layer.spatial.conv.weight.detach().numpy()[0]
    return reference.spatial_attention(attended, kernel, GATES[layer.spatial.gate])


SLOW = {"se": slow_se, "cbam": slow_cbam}


@every_layer
@every_gate
@pytest.mark.parametrize("reduction", [1, 4, 16])
def test_output_equals_the_equations(name, gate, reduction):
    layer = LAYERS[name](8, reduction=reduction, gate=gate).double()
    x = feature_maps()
    expected = torch.from_numpy(SLOW[name](layer, x.numpy()))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@every_layer
@every_gate
def test_gradients_agree_with_finite_differences(name, gate):
    layer = LAYERS[name](4, reduction=2, gate=gate).double()
    x = feature_maps(4, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def output(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *parameters.values()))


@every_layer
@every_gate
def test_output_is_input_times_mask(name, gate):
    layer = LAYERS[name](8, gate=gate).double()
    x = feature_maps()
    torch.testing.assert_close(layer(x), x * layer.mask(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [SqueezeExcitation(8), ChannelAttention(8), SpatialAttention()])
def test_mask_is_the_gate_of_the_logits(layer):
    x = feature_maps(dtype=torch.float32)
    for gate in GATES:
        layer.gate = gate
        assert torch.equal(layer.mask(x), gate(layer.logits(x)))


@pytest.mark.parametrize("name", ["se", "cbam"])
def test_ign3_equals_attend_with_its_last_linear_map_negated(name):
    plain = LAYERS[name](8, reduction=2, gate=attend).double()
    ignoring = copy.deepcopy(plain)
    for module in ignoring.modules():
        if hasattr(module, "gate"):
            module.gate = ign3
        if isinstance(module, nn.Sequential):
            module[2].weight.data.neg_()
            module[2].bias.data.neg_()
        if isinstance(module, nn.Conv2d):
            module.weight.data.neg_()
    x, same_x = feature_maps(requires_grad=True), None
    same_x = x.detach().clone().requires_grad_()
    y, same_y = plain(x), ignoring(same_x)
    assert torch.equal(y, same_y)
    y.square().sum().backward()
    same_y.square().sum().backward()
    torch.testing.assert_close(x.grad, same_x.grad, rtol=1e-12, atol=1e-12)
    for (key, weight), other in zip(plain.named_parameters(), ignoring.parameters(), strict=True):
        negated = key.endswith(("mlp.2.weight", "mlp.2.bias", "conv.weight"))
        torch.testing.assert_close(weight.grad, -other.grad if negated else other.grad, rtol=1e-12, atol=1e-12)


@every_layer
def test_parameters_are_counted_as_the_equations_say(name):
    layer = LAYERS[name](64, reduction=16)
    expected = {"se": 2 * 64 * 4 + 4 + 64, "cbam": 2 * 64 * 4 + 4 + 64 + 2 * 49}
    assert sum(p.numel() for p in layer.parameters()) == expected[name]


@every_layer
def test_hidden_width_is_never_below_one(name):
    layer = LAYERS[name](3, reduction=16).double()
    mlp = next(module for module in layer.modules() if isinstance(module, nn.Sequential))
    assert mlp[0].out_features == 1
    x = feature_maps(3)
    torch.testing.assert_close(layer(x), torch.from_numpy(SLOW[name](layer, x.numpy())))


@every_layer
def test_init_std_draws_small_weights_and_zero_biases(name):
    layer = LAYERS[name](512, reduction=1, init_std=0.01)
    mlp = next(module for module in layer.modules() if isinstance(module, nn.Sequential))
    for linear in (mlp[0], mlp[2]):
        assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert (linear.bias == 0).all()
    if name == "cbam":
        assert LAYERS[name](8, init_std=0.01, kernel_size=41).spatial.conv.weight.std().item() == pytest.approx(
            (2 / (2 * 41**2)) ** 0.5, rel=0.05
        )


def test_spatial_norm_normalises_the_spatial_logits():
    layer = CBAM(8, spatial_norm=True).double().train()
    logits = layer.spatial.logits(feature_maps())
    torch.testing.assert_close(logits.mean().item(), 0.0, atol=1e-9, rtol=0)
    assert logits.var(unbiased=False).item() == pytest.approx(1, rel=1e-2)
    assert CBAM(8).double().spatial.logits(feature_maps()).mean().abs() > 1e-3


@every_layer
@every_gate
def test_layers_survive_copies_half_precision_and_one_place(name, gate):
    layer = LAYERS[name](8, gate=gate)
    x = feature_maps(dtype=torch.float32)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert layer(x[:, :, :1, :1]).shape == (2, 8, 1, 1)
    half = layer.to(torch.bfloat16)(x.to(torch.bfloat16))
    torch.testing.assert_close(half.float(), layer.float()(x), rtol=0.05, atol=0.05)


@every_layer
def test_layers_fit_timms_slot(name):
    import timm

    attention = functools.partial(LAYERS[name], gate=ign3)
    model = timm.create_model("resnet26", block_args={"attn_layer": attention}, num_classes=3)
    placed = [module for module in model.modules() if isinstance(module, LAYERS[name])]
    assert len(placed) == 8
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    for layer in placed:
        assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())
        assert repr(next(m.gate for m in layer.modules() if hasattr(m, "gate"))) == "ign3"


def test_se_equals_timms_with_the_same_weights():
    from timm.layers import SEModule

    ours, theirs = SqueezeExcitation(32, reduction=4).double(), SEModule(32, rd_channels=8).double()
    for linear, conv in ((ours.mlp[0], theirs.fc1), (ours.mlp[2], theirs.fc2)):
        conv.weight.data.copy_(linear.weight[:, :, None, None])
        conv.bias.data.copy_(linear.bias)
    x = feature_maps(32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


def test_cbam_equals_timms_with_the_same_weights():
    from timm.layers.cbam import CbamModule

    ours = CBAM(32, reduction=4, spatial_norm=True).double()
    theirs = CbamModule(32, rd_ratio=1 / 4).double()
    for linear, conv in ((ours.channel.mlp[0], theirs.channel.fc1), (ours.channel.mlp[2], theirs.channel.fc2)):
        conv.weight.data.copy_(linear.weight[:, :, None, None])
        linear.bias.data.zero_()
    theirs.spatial.conv.conv.weight.data.copy_(ours.spatial.conv.weight)
    x = feature_maps(32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


@every_layer
@pytest.mark.parametrize(("channels", "reduction"), [(0, 16), (-3, 16), (8, 0), (8, -1)])
def test_widths_below_one_are_refused(name, channels, reduction):
    with pytest.raises(InputError, match="must both be at least 1"):
        LAYERS[name](channels, reduction=reduction)


@pytest.mark.parametrize("kernel_size", [0, 2, -7])
def test_an_even_kernel_is_refused(kernel_size):
    with pytest.raises(InputError, match=r"kernel_size is .*odd"):
        CBAM(8, kernel_size=kernel_size)
