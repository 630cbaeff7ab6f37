"""Selective Kernel convolution: against its equations, timm's attention, and the plain convolution."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from heedful import InputError, attend, ign1, ign2, ign3
from heedful.gates import Opening
from heedful.layers.selective_kernel import KernelSelection, SKConv2d
from tests.references import attention as gates
from tests.references import selective_kernel as reference

GATES = {
    attend: gates.attend,
    ign1(1): gates.ign1(1),
    ign1(0.5): gates.ign1(0.5),
    ign2: gates.ign2,
    ign3: gates.ign3,
}
every_gate = pytest.mark.parametrize("gate", GATES, ids=repr)
SHAPES = {
    "plain": {"kernel_size": 3, "padding": 1},
    "no-bias": {"kernel_size": 3, "padding": 1, "bias": False},
    "no-padding": {"kernel_size": 3},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "same": {"kernel_size": 3, "padding": "same", "dilation": 2},
    "stride": {"kernel_size": 3, "padding": 1, "stride": 2},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 4},
    "oblong": {"kernel_size": (1, 3), "padding": (0, 2), "stride": (2, 1), "dilation": (1, 2)},
    "even": {"kernel_size": (2, 4), "padding": 1},
    "even-stride": {"kernel_size": 2, "padding": 1, "stride": 2},
    "pointwise": {"kernel_size": 1},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "replicate": {"kernel_size": (2, 3), "padding": 1, "padding_mode": "replicate"},
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def feature_maps(**options):
    return torch.randn(2, 4, 6, 5, dtype=torch.float64, **options)


def plain(shape=SHAPES["plain"], channels=6):
    return nn.Conv2d(4, channels if shape.get("groups", 1) < 4 else 8, **shape)


def made(shape=SHAPES["plain"], **options):
    """In float64, with norms that are not those it starts with."""
    conv = SKConv2d.from_conv(plain(shape), **options).double()
    with torch.no_grad():
        norm = conv.attention.norm
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.2, 1)
    return conv


def slow(conv, x, weigh=None):
    attention = conv.attention
    kernels = gates.numbers(conv.weight, attention.conv.weight)
    biases = gates.numbers(conv.bias, attention.conv.bias)
    options = {"stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups, "mode": conv.padding_mode}
    padding = {"valid": (0, 0), "same": conv.dilation}.get(conv.padding, conv.padding)  # "same": only with 3x3 here
    u1, u2 = reference.branches(x.numpy(), kernels, biases, padding=padding, **options)
    statistics = [] if conv.training else gates.numbers(attention.norm.running_mean, attention.norm.running_var)
    norm = *gates.numbers(attention.norm.weight, attention.norm.bias), *statistics
    contract, select = gates.numbers(attention.contract.weight, attention.select.weight)
    return torch.from_numpy(reference.selective_kernel(u1, u2, contract, norm, select, weigh))


def assert_equal(ours, theirs, tolerance=1e-11):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@every_shape
def test_output_equals_the_equations_with_the_softmax(shape):
    conv, x = made(shape), feature_maps()
    assert_equal(conv(x), slow(conv, x))
    conv.eval()
    assert_equal(conv(x), slow(conv, x))


@every_gate
def test_output_equals_the_equations_with_every_gate(gate):
    conv, x = made(gate=gate), feature_maps()
    assert_equal(conv(x), slow(conv, x, lambda z: GATES[gate](z)[0]))


@every_shape
def test_both_branches_have_the_plain_convolutions_size(shape):
    conv = made(shape)
    for size in ((6, 5), (7, 8), (9, 4)):
        x = torch.randn(1, 4, *size, dtype=torch.float64)
        own, second = conv._branches(x)
        assert own.shape == second.shape == plain(shape).double()(x).shape


@every_gate
def test_gradients_agree_with_finite_differences_twice(gate):
    conv, x = made(SHAPES["even"], gate=gate), feature_maps(requires_grad=True)
    parameters = dict(conv.named_parameters())

    def output(x, *values):
        return torch.func.functional_call(conv, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *parameters.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(conv, (x,), fast_mode=True)


@pytest.mark.parametrize("training", [True, False])
def test_attention_equals_timms_with_its_gradients(training):
    from timm.layers.selective_kernel import SelectiveKernelAttn

    conv = made().train(training)
    theirs = SelectiveKernelAttn(6, 2, 32).double().train(training)
    state = conv.attention.state_dict()
    names = {"contract.weight": "fc_reduce.weight", "select.weight": "fc_select.weight"}
    names |= {key: key.replace("norm", "bn") for key in state if key.startswith("norm")}
    matching = {there: state[here] for here, there in names.items()}
    theirs.load_state_dict({k: t[:, :, None, None] if t.ndim == 2 else t for k, t in matching.items()})
    own, second = (torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    same = torch.stack([own, second], dim=1).detach().requires_grad_()
    target = torch.randn(2, 6, 5, 4, dtype=torch.float64)

    y, expected = conv.attention(own, second), (same * theirs(same)).sum(1)
    assert_equal(y, expected)
    (y * target).sum().backward()
    (expected * target).sum().backward()
    assert_equal(torch.stack([own.grad, second.grad], dim=1), same.grad)
    attention = conv.attention
    for ours, other in ((attention.contract, theirs.fc_reduce), (attention.select, theirs.fc_select)):
        assert_equal(ours.weight.grad, other.weight.grad[:, :, 0, 0])
    assert_equal(attention.norm.weight.grad, theirs.bn.weight.grad)
    assert_equal(attention.norm.running_var, theirs.bn.running_var)


@every_shape
@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_plain_convolution_where_the_weight_is_one(shape, training):
    conv, x = plain(shape).train(training), torch.randn(2, 4, 6, 5)
    expected = conv(x)
    SKConv2d.put_into(conv)
    assert not torch.allclose(conv(x), expected)
    conv.attention.gate = torch.ones_like
    assert torch.equal(conv(x), expected)
    conv.attention.gate = Opening(attend, conv.attention.neutral)
    assert torch.equal(conv(x), expected)
    conv(x).square().sum().backward()
    assert conv.attention.gate.opening.grad.abs() > 0


def test_a_weight_of_zero_is_the_second_kernel():
    conv, x = made(), feature_maps()
    conv.attention.gate = torch.zeros_like
    assert_equal(conv(x), conv.attention.conv(x))


@every_gate
def test_mask_is_the_gate_of_the_logits_and_called_once(gate):
    conv, x = made(gate=gate), feature_maps()
    conv.eval()
    assert torch.equal(conv.mask(x), gate(conv.logits(x)))
    assert conv.mask(x).shape == (2, 6, 1, 1)
    assert (conv.mask(x)[0] - conv.mask(x)[1]).abs().max() > 1e-6
    calls = []
    conv.attention.gate = lambda logits: calls.append(logits.shape) or gate(logits)
    conv(x)
    assert calls == [(2, 6, 1, 1)]


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden"), [(6, 16, 32), (1024, 16, 64), (1024, 8, 128), (9, 99, 32)]
)
def test_hidden_width_is_the_papers(channels, reduction, hidden):
    attention = SKConv2d(4, channels, 1, reduction=reduction).attention
    assert (attention.contract.out_features, attention.norm.num_features) == (hidden, hidden)
    num_parameters = sum(parameter.numel() for parameter in attention.parameters())
    assert num_parameters == 5 * channels + 3 * channels * hidden + 2 * hidden


def test_its_own_arguments_are_those_of_conv2d():
    arguments = 4, 8, (3, 1), (1, 2), (1, 0), (2, 1), 4, False, "circular", "meta", torch.float64
    conv, other = SKConv2d(*arguments, gate=ign3), nn.Conv2d(*arguments)
    assert conv.extra_repr() == other.extra_repr()
    assert conv.weight.shape == other.weight.shape
    assert all(parameter.is_meta and parameter.dtype == torch.float64 for parameter in conv.parameters())
    assert conv.attention.gate == ign3
    assert (SKConv2d(4, 8, 3).bias is None, SKConv2d(4, 8, 3, bias=False).bias is None) == (False, True)


@pytest.mark.parametrize("bias", [True, False])
def test_put_into_and_take_out_keep_parameters_names_and_hooks(bias):
    model = nn.Sequential(nn.Conv2d(4, 6, 3, bias=bias), nn.ReLU()).double().eval()
    conv, x = model[0], feature_maps()
    before, keys, weight = model(x), list(model.state_dict()), conv.weight
    calls = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    SKConv2d.put_into(conv, gate=ign2, reduction=4)
    assert model[0] is conv
    assert conv.weight is weight
    assert [key for key in model.state_dict() if "attention." not in key] == keys
    assert all(key.startswith("0.attention.") for key in model.state_dict().keys() - set(keys))
    assert all(parameter.dtype == torch.float64 for parameter in conv.parameters())
    assert not conv.attention.norm.training
    assert conv.attention.gate == ign2
    assert not torch.allclose(model(x), before)
    conv.take_out()
    assert type(conv) is nn.Conv2d
    assert list(model.state_dict()) == keys
    assert torch.equal(model(x), before)
    assert len(calls) == 2


def test_from_conv_shares_the_parameters_and_leaves_the_convolution():
    for shape in SHAPES.values():
        conv = plain(shape).double().eval()
        before = dict(vars(conv))
        torch.manual_seed(3)
        twin = SKConv2d.from_conv(conv)
        assert type(conv) is nn.Conv2d
        assert vars(conv) == before
        assert (twin.weight is conv.weight, twin.bias is conv.bias) == (True, True)
        assert twin.extra_repr() == conv.extra_repr()
        assert not any(module.training for module in twin.modules())
        torch.manual_seed(3)
        SKConv2d.put_into(conv)
        assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), conv.parameters(), strict=True))


class Subclass(nn.Conv2d):
    pass


@pytest.mark.parametrize("wrong", [Subclass(4, 8, 3), SKConv2d(4, 8, 3)], ids=lambda conv: type(conv).__name__)
@pytest.mark.parametrize("make", [SKConv2d.put_into, SKConv2d.from_conv])
def test_anything_but_a_plain_convolution_is_refused(wrong, make):
    before = dict(vars(wrong))
    with pytest.raises(InputError, match=f"conv is a {type(wrong).__name__}, but only a plain nn.Conv2d"):
        make(wrong)
    assert vars(wrong) == before


@pytest.mark.parametrize("reduction", [0, -2])
def test_reductions_below_one_are_refused_and_change_nothing(reduction):
    conv = plain()
    with pytest.raises(InputError, match="must both be at least 1"):
        SKConv2d.put_into(conv, reduction=reduction)
    assert type(conv) is nn.Conv2d
    assert not list(conv.children())
    with pytest.raises(InputError, match="must both be at least 1"):
        SKConv2d(4, 8, 3, reduction=reduction)


def test_no_output_channels_are_refused():
    message = "channels=0 and reduction=16 must both be at least 1"
    with pytest.warns(UserWarning, match="zero-element"), pytest.raises(InputError, match=message):
        SKConv2d(4, 0, 3)


def test_every_parameter_learns():
    conv, x = made(gate=ign1("learned")), feature_maps()
    conv(x).square().sum().backward()
    for key, parameter in conv.named_parameters():
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("size", [(6, 5), (1, 1)])
def test_one_image_is_trained_on_with_the_running_statistics(size):
    conv, x = made().train(), torch.randn(1, 4, *size, dtype=torch.float64, requires_grad=True)
    before = copy.deepcopy(conv.attention.norm.state_dict())
    y = conv(x)
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.equal(value, before[key]) for key, value in conv.attention.norm.state_dict().items())
    assert_equal(y, conv.eval()(x))


def test_it_survives_copies_and_half_precision():
    conv, x = made().float().eval(), feature_maps().float()
    for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(twin(x), conv(x))
        assert isinstance(twin, SKConv2d)
    expected = conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(conv(x).float(), expected, rtol=0.1, atol=0.1)
    half = copy.deepcopy(conv).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


def test_memory_format_is_kept_and_changes_nothing():
    conv, x = made(), feature_maps()
    y = conv(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_equal(y, conv(x))


def test_it_runs_on_the_meta_device():
    conv = plain()
    SKConv2d.put_into(conv)
    weights = {key: torch.empty_like(value, device="meta") for key, value in conv.state_dict().items()}
    y = torch.func.functional_call(conv, weights, (torch.empty(2, 4, 6, 5, device="meta"),))
    assert (y.shape, y.is_meta) == ((2, 6, 6, 5), True)


@pytest.mark.parametrize("name", ["plain", "even"])
def test_it_exports_with_any_batch(name):
    conv, x = made(SHAPES[name], gate=ign2).eval(), feature_maps()
    program = torch.export.export(conv, (x,), dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}}, strict=False)
    more = torch.cat([x, feature_maps()])
    for images in (more, more[:1]):
        assert_equal(program.module()(images), conv(images))


def test_a_synchronized_norm_takes_its_place():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(made()))
    assert isinstance(model[0].attention.norm, nn.SyncBatchNorm)
    assert type(model[0]) is SKConv2d


def test_the_source_is_named():
    assert SKConv2d.source == "Li et al., Selective Kernel Networks, CVPR 2019"
    assert KernelSelection.neutral == 1.0


SCRIPT = """
import torch
from heedful import attend, ign2
from heedful.layers.selective_kernel import SKConv2d
x = torch.randn(2, 4, 6, 5)
for kernel_size, gate in ((3, attend), (2, ign2)):
    conv = SKConv2d(4, 6, kernel_size, padding=1, gate=gate)
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), conv(x))
    conv.eval()
    torch.testing.assert_close(torch.fx.symbolic_trace(conv)(x), conv(x))
print("done")
"""


def test_it_compiles_without_a_graph_break_and_is_traced():
    """In a process without the tests' shape checks, which cannot be traced."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
