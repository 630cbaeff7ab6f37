"""SE and CBAM in all forms x all gates: the same facts."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from heedful import CBAM, InputError, SqueezeExcitation, attend, ign1, ign2, ign3
from heedful.gates import Opening
from heedful.layers.cbam import ChannelAttention, ChannelCBAM, MeanCBAM, SpatialAttention
from tests.references import attention as reference

GATES = {
    attend: reference.attend,
    ign1(1): reference.ign1(1),
    ign1(0.5): reference.ign1(0.5),
    ign2: reference.ign2,
    ign3: reference.ign3,
}
FORMS = {"se": SqueezeExcitation, "cbam": CBAM, "cbam_mean": MeanCBAM, "cbam_channel": ChannelCBAM}
every_gate = pytest.mark.parametrize("gate", GATES, ids=repr)
every_layer = pytest.mark.parametrize("name", FORMS)


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


def slow_cbam_channel(layer, x):
    return reference.squeeze_excitation(x, *mlp_of(layer.channel), GATES[layer.channel.gate])


def slow_cbam_mean(layer, x):
    kernel = layer.spatial.conv.weight.detach().numpy()[0]
    without_maximum = np.concatenate([kernel, np.zeros_like(kernel)])
    return reference.spatial_attention(slow_cbam_channel(layer, x), without_maximum, GATES[layer.spatial.gate])


SLOW = {"se": slow_se, "cbam": slow_cbam, "cbam_mean": slow_cbam_mean, "cbam_channel": slow_cbam_channel}


@every_layer
@every_gate
@pytest.mark.parametrize("reduction", [1, 4, 16])
def test_output_equals_the_equations(name, gate, reduction):
    layer = FORMS[name](8, reduction=reduction, gate=gate).double()
    x = feature_maps()
    expected = torch.from_numpy(SLOW[name](layer, x.numpy()))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@every_layer
@every_gate
def test_gradients_agree_with_finite_differences(name, gate):
    layer = FORMS[name](4, reduction=2, gate=gate).double()
    x = feature_maps(4, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def output(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *parameters.values()), fast_mode=True)


@every_layer
@every_gate
def test_output_is_input_times_mask(name, gate):
    layer = FORMS[name](8, gate=gate).double()
    x = feature_maps()
    torch.testing.assert_close(layer(x), x * layer.mask(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [SqueezeExcitation(8), ChannelAttention(8), SpatialAttention()])
def test_mask_is_the_gate_of_the_logits(layer):
    x = feature_maps(dtype=torch.float32)
    for gate in GATES:
        layer.gate = gate
        assert torch.equal(layer.mask(x), gate(layer.logits(x)))


@every_layer
def test_ign3_equals_attend_with_its_last_linear_map_negated(name):
    plain = FORMS[name](8, reduction=2, gate=attend).double()
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
    layer = FORMS[name](64, reduction=16)
    spatial = {"se": 0, "cbam": 2 * 49, "cbam_mean": 49, "cbam_channel": 0}
    assert sum(p.numel() for p in layer.parameters()) == 2 * 64 * 4 + 4 + 64 + spatial[name]


@every_layer
def test_hidden_width_is_never_below_one(name):
    layer = FORMS[name](3, reduction=16).double()
    mlp = next(module for module in layer.modules() if isinstance(module, nn.Sequential))
    assert mlp[0].out_features == 1
    x = feature_maps(3)
    torch.testing.assert_close(layer(x), torch.from_numpy(SLOW[name](layer, x.numpy())))


def test_cbam_of_channels_by_their_mean_is_se():
    channel, se = ChannelCBAM(8, reduction=2).double(), SqueezeExcitation(8, reduction=2).double()
    se.load_state_dict(channel.channel.state_dict())
    x = feature_maps()
    assert torch.equal(channel(x), se(x))
    assert torch.equal(channel.mask(x), se.mask(x))
    assert torch.equal(channel.logits(x), se.logits(x))


def test_forms_without_maximum_do_not_see_it():
    x = feature_maps()
    louder = x.clone()
    louder[:, :, 0, 0] += 9
    louder[:, :, 1, 1] -= 9
    seen = [form(8).double().channel.logits for form in (CBAM, MeanCBAM, ChannelCBAM)]
    unmoved = [torch.allclose(logits(x), logits(louder), rtol=1e-12, atol=1e-12) for logits in seen]
    assert unmoved == [False, True, True]
    other = x.clone()
    other[:, 0] += 9
    other[:, 1] -= 9
    seen = [form(8).double().spatial.logits for form in (CBAM, MeanCBAM)]
    unmoved = [torch.allclose(logits(x), logits(other), rtol=1e-12, atol=1e-12) for logits in seen]
    assert unmoved == [False, True]


def gated(layer):
    return [module for module in layer.modules() if hasattr(module, "gate") and not isinstance(module, Opening)]


@every_layer
def test_a_closed_opening_returns_the_input_and_opens(name):
    layer, x = FORMS[name](8), feature_maps(dtype=torch.float32)
    for module in gated(layer):
        module.gate = Opening(module.gate)
    y = layer(x)
    assert torch.equal(y, x)
    (y * x).sum().backward()
    assert all(module.gate.opening.grad.abs() > 0 for module in gated(layer))


@every_layer
def test_memory_format_is_kept_and_changes_nothing(name):
    layer, x = FORMS[name](8).double(), feature_maps()
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, layer(x), rtol=1e-12, atol=1e-12)


@every_layer
def test_layers_run_on_the_meta_device(name):
    layer = FORMS[name](8, convention="cbam-code", device=torch.device("meta"))
    assert all(tensor.is_meta for tensor in [*layer.parameters(), *layer.buffers()])
    weights = {key: torch.empty_like(value, device="meta") for key, value in layer.state_dict().items()}
    y = torch.func.functional_call(layer, weights, (torch.empty(2, 8, 5, 4, device="meta"),))
    assert (y.shape, y.is_meta) == ((2, 8, 5, 4), True)


@every_layer
def test_layers_export_with_any_batch(name):
    layer, x = FORMS[name](8, gate=ign2, convention="timm").double().eval(), feature_maps()
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}}, strict=False)
    more = torch.cat([x, feature_maps()])
    for images in (more, more[:1]):
        torch.testing.assert_close(program.module()(images), layer(images), rtol=1e-12, atol=1e-12)


@every_layer
@pytest.mark.parametrize("convention", ["paper", "laakom-code", "cbam-code", "timm"])
def test_one_image_of_one_place_is_trained_on(name, convention):
    layer, x = FORMS[name](8, convention=convention).train(), torch.randn(1, 8, 1, 1, requires_grad=True)
    layer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


@every_layer
@every_gate
def test_layers_survive_copies_half_precision_and_one_place(name, gate):
    layer = FORMS[name](8, gate=gate)
    x = feature_maps(dtype=torch.float32)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert layer(x[:, :, :1, :1]).shape == (2, 8, 1, 1)
    half = layer.to(torch.bfloat16)(x.to(torch.bfloat16))
    torch.testing.assert_close(half.float(), layer.float()(x), rtol=0.05, atol=0.05)


@every_layer
def test_layers_fit_timms_slot(name):
    import timm

    attention = functools.partial(FORMS[name], gate=ign3)
    model = timm.create_model("resnet26", block_args={"attn_layer": attention}, num_classes=3)
    placed = [module for module in model.modules() if isinstance(module, FORMS[name])]
    assert len(placed) == 8
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    for layer in placed:
        assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())
        assert all(repr(module.gate) == "ign3" for module in gated(layer))
    assert FORMS[name].source.split()[-1].isdecimal()


@every_layer
@pytest.mark.parametrize(("channels", "reduction"), [(0, 16), (-3, 16), (8, 0), (8, -1)])
def test_widths_below_one_are_refused(name, channels, reduction):
    with pytest.raises(InputError, match="must both be at least 1"):
        FORMS[name](channels, reduction=reduction)


@pytest.mark.parametrize("kernel_size", [0, 2, -7])
def test_an_even_kernel_is_refused(kernel_size):
    for form in (CBAM, MeanCBAM):
        with pytest.raises(InputError, match=r"kernel_size is .*odd"):
            form(8, kernel_size=kernel_size)


@pytest.mark.parametrize("pools", [(), ("mean", "mean")])
def test_pools_that_are_none_or_twice_are_refused(pools):
    with pytest.raises(InputError, match=r"pools is .*must be \('mean',\), \('max',\) or both"):
        ChannelAttention(8, pools=pools)
    with pytest.raises(InputError, match="pools is"):
        SpatialAttention(pools=pools)
