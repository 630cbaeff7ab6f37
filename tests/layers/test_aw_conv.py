"""AW-convolution: every method is equation 5, to second derivatives; it goes into a convolution and out of it again."""

import copy
import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from heedful import InputError, attend, ign1, ign2, ign3
from heedful.gates import Opening
from heedful.layers import per_sample_plain as plain
from heedful.layers.aw_conv import AWConv2d
from heedful.layers.kernel_attention import KernelAttention, pool
from heedful.layers.per_sample_conv import METHODS, choose, per_sample_conv
from heedful.layers.per_sample_geometry import Geometry
from tests.references import attention as gates
from tests.references import aw_conv as reference

GATES = {attend: gates.attend, ign1(1): gates.ign1(1), ign1(0.5): gates.ign1(0.5), ign2: gates.ign2, ign3: gates.ign3}
KERNELS = [(3, 3), (4, 2), (1, 1)]
STRIDES = [(1, 1), (2, 2), (3, 1)]
PADDINGS = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 1)]
DILATIONS = [(1, 1), (2, 3)]
SIZES = [(7, 6), (1, 1)]
GROUPS = [1, 2]
GEOMETRIES = [
    (Geometry(*settings[:-1]), settings[-1])
    for settings in itertools.product(KERNELS, STRIDES, PADDINGS, DILATIONS, GROUPS, SIZES)
    if min(Geometry(*settings[:-1]).output_size(settings[-1])) > 0
]
SCALES = {"taps": 1, "grouped": 2, "unfold": 2, "output": 1}


def inputs(geometry, size, blocks=1, compact=False, batch=3, dtype=torch.float64):
    """A map, a kernel and a scale which is negative, zero or positive."""
    places = (1, 1) if compact else geometry.kernel
    x = torch.randn(batch, 4 * geometry.groups, *size, dtype=dtype)
    weight = torch.randn(3 * geometry.groups, 4, *geometry.kernel, dtype=dtype)
    scale = torch.randn(batch, len(weight), blocks, *places, dtype=dtype)
    scale.view(-1)[::5] = 0
    return [tensor.requires_grad_() for tensor in (x, weight, scale)]


def by_image(x, weight, scale, geometry):
    kernels = weight * reference.expanded(scale, *weight.shape)
    return reference.image_by_image(x, kernels, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def with_gradients(function, tensors, geometry):
    """The result, its gradients, and the gradients of a sum over these."""
    y = function(*tensors, geometry)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).requires_grad_()
    first = torch.autograd.grad(y, tensors, upstream, retain_graph=True)
    again = torch.autograd.grad(function(*tensors, geometry), tensors, upstream, create_graph=True)
    total = sum((gradient**2).sum() for gradient in again)
    return [y, *first, *again, *torch.autograd.grad(total, [*tensors, upstream])]


def assert_all_equal(ours, theirs, tolerance=1e-11):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def made(*arguments, **options):
    """An AWConv2d in float64 whose norms are none of those it starts with."""
    conv = AWConv2d(*arguments, **options).double()
    with torch.no_grad():
        for tensor in [*conv.attention.parameters(), *conv.attention.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1).mul_(torch.randint(2, tensor.shape) * 2 - 1 if tensor.dim() > 1 else 1)
    return conv


def test_the_references_agree_number_by_number():
    num_compared = 0
    for geometry, size in GEOMETRIES[::7]:
        x, weight, scale = [tensor.detach() for tensor in inputs(geometry, size, blocks=2)]
        kernels = weight * reference.expanded(scale, *weight.shape)
        slow = reference.number_by_number(
            x.numpy(), kernels.numpy(), geometry.stride, geometry.padding, geometry.dilation, geometry.groups
        )
        torch.testing.assert_close(torch.from_numpy(slow), by_image(x, weight, scale, geometry), rtol=1e-12, atol=1e-12)
        num_compared += 1
    assert num_compared > 15


@pytest.mark.parametrize("method", SCALES)
@pytest.mark.parametrize("groups", GROUPS)
def test_methods_are_equation_5_to_second_derivatives(method, groups):
    num_compared = 0
    for geometry, size in GEOMETRIES:
        if geometry.groups == groups:
            tensors = inputs(geometry, size, SCALES[method], compact=method == "output")
            ours = with_gradients(lambda *a: per_sample_conv(*a, method), tensors, geometry)
            assert_all_equal(ours, with_gradients(by_image, tensors, geometry))
            num_compared += 1
    assert num_compared > 50


@pytest.mark.parametrize("form", ["taps", "grouped", "unfold", "output"])
def test_the_forms_for_compilers_are_equation_5_too(form):
    for geometry, size in GEOMETRIES[::3]:
        tensors = inputs(geometry, size, SCALES[form], compact=form == "output")
        ours = with_gradients(getattr(plain, form), tensors, geometry)
        assert_all_equal(ours, with_gradients(by_image, tensors, geometry))


@pytest.mark.parametrize("method", ["taps", "grouped", "output"])
def test_gradients_agree_with_differences_to_second_order(method):
    tensors = inputs(Geometry((2, 2), (2, 1), (1, 0, 1, 1)), (3, 3), SCALES[method], method == "output", batch=2)
    geometry = Geometry((2, 2), (2, 1), (1, 0, 1, 1))

    def function(*tensors):
        return per_sample_conv(*tensors, geometry, method)

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("method", ["taps", "grouped", "output"])
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2)])
def test_only_the_gradients_that_are_needed(method, needed):
    geometry = Geometry((3, 3), (2, 1), (1, 1, 1, 1))
    tensors = inputs(geometry, (5, 4), SCALES[method], method == "output")
    wanted = [tensors[index] for index in needed]
    frozen = [tensor if index in needed else tensor.detach() for index, tensor in enumerate(tensors)]
    ours = torch.autograd.grad(per_sample_conv(*frozen, geometry, method).sum(), wanted)
    assert_all_equal(ours, torch.autograd.grad(by_image(*frozen, geometry).sum(), wanted))


@pytest.mark.parametrize("method", ["taps", "grouped", "output"])
def test_the_scale_may_come_from_the_map_itself(method):
    """As in an AW-convolution; the second derivative must not follow that path twice."""
    geometry = Geometry((3, 3), padding=(1, 1, 1, 1))
    x, weight, _ = inputs(geometry, (5, 4))

    def function(x, weight, convolve):
        scale = torch.tanh(x.mean((2, 3)))[:, :3, None, None, None].expand(
            -1, -1, 1, *((1, 1) if method == "output" else (3, 3))
        )
        return convolve(x, weight, scale, geometry)

    found = []
    for convolve in (lambda *a: per_sample_conv(*a, method), by_image):
        y = function(x, weight, convolve)
        (first,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
        found.append([y, first, *torch.autograd.grad((first**2).sum(), [x, weight])])
    assert_all_equal(*found)


@pytest.mark.parametrize("method", ["taps", "grouped", "output"])
def test_little_more_than_the_inputs_is_saved(method):
    geometry = Geometry((3, 3), padding=(1, 1, 1, 1))
    tensors = inputs(geometry, (20, 20), SCALES[method], method == "output")
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        per_sample_conv(*tensors, geometry, method)
    assert sum(saved.values()) == sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_products_are_kept_on_small_maps_only():
    def num_saved(size):
        geometry = Geometry((3, 3), padding=(1, 1, 1, 1))
        y = per_sample_conv(*inputs(geometry, size), geometry, "taps")
        return len(y.grad_fn.saved_tensors)

    assert (num_saved((14, 14)), num_saved((15, 14))) == (4, 3)


def test_the_choice_follows_shapes():
    def chosen(channels, side, stride=1, batch=8, groups=1, blocks=1, places=(3, 3)):
        geometry = Geometry((3, 3), (stride, stride), (1, 1, 1, 1), groups=groups)
        x = torch.empty(batch, channels, side, side, device="meta")
        weight = torch.empty(channels, channels // groups, 3, 3, device="meta")
        return choose(x, weight, torch.empty(batch, channels, blocks, *places, device="meta"), geometry)

    assert [chosen(64, 56), chosen(128, 28), chosen(256, 14), chosen(512, 7)] == ["grouped", "grouped", "taps", "taps"]
    assert [chosen(128, 56, 2), chosen(256, 28, 2), chosen(512, 14, 2)] == ["grouped", "taps", "taps"]
    assert [chosen(512, 7, batch=1), chosen(512, 7, groups=32), chosen(512, 7, blocks=2)] == ["grouped"] * 3
    assert chosen(64, 56, places=(1, 1)) == "output"


@pytest.mark.parametrize("size", [(7, 6), (3, 3), (2, 9), (1, 1)])
def test_pooling_is_adaptive_average_pooling(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    for kernel in KERNELS:
        assert_all_equal([pool(x, kernel)], [F.adaptive_avg_pool2d(x, kernel)], 1e-14)


def test_what_pooling_keeps_serves_inference_training_and_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    conv = AWConv2d(4, 4, 3)
    x = torch.randn(2, 4, 19, 23)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert conv(torch.empty(2, 4, 19, 23)).shape == (2, 4, 17, 21)
    with torch.inference_mode():
        expected = conv(x)
    conv(x).sum().backward()
    assert conv.attention.contract.weight.grad is not None
    assert torch.equal(conv.train()(x), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gate", GATES, ids=repr)
@pytest.mark.parametrize("residual", [True, False])
def test_the_layer_is_equations_4_to_8(training, gate, residual):
    options = {"ratio_in": 2, "ratio_out": 3, "ratio_kernel": 2}
    conv = made(8, 6, (4, 2), (2, 1), (1, 2), 1, 2, reduction=4, gate=gate, residual=residual, **options).train(
        training
    )
    x = torch.randn(3, 8, 6, 5, dtype=torch.float64)
    attention = conv.attention
    norms = [norm_of(norm) for norm in (attention.contract_norm, attention.expand_norm)]
    weights = gates.numbers(attention.contract.weight[:, :, 0, 0], attention.expand.weight[:, :, 0, 0])
    logits = reference.attention(x.numpy(), (2, 1), weights[0], norms[0], weights[1], norms[1])
    a = torch.from_numpy(np.vectorize(lambda z: GATES[gate](z)[0])(logits)).view(3, 2, 2, 2, 1)
    full = reference.expanded(a, *conv.weight.shape)
    kernels = conv.weight.detach() * (full + 1 if residual else full)
    slow = reference.number_by_number(x.numpy(), kernels.numpy(), (2, 1), (1, 1, 2, 2), (1, 1), 2)
    slow = torch.from_numpy(slow) + conv.bias.detach()[:, None, None]
    y, mask = copy.deepcopy(conv)(x), copy.deepcopy(conv).attention.mask(x)
    assert_all_equal([y.detach(), mask.detach()], [slow, a])
    assert attention.neutral == (0 if residual else 1)


def norm_of(norm):
    statistics = (None, None) if norm.training else (norm.running_mean, norm.running_var)
    return reference.batch_norm(*gates.numbers(norm.weight, norm.bias, *statistics))


def test_the_defaults_are_the_papers():
    attention = AWConv2d(64, 48, 3).attention
    assert attention.contract.weight.shape == (4, 64, 1, 1)
    assert attention.expand.weight.shape == (48, 4, 1, 1)
    assert attention.contract.bias is None
    assert attention.expand.bias is None
    assert attention(torch.randn(2, 64, 8, 8)).shape == (2, 48, 1, 3, 3)
    assert attention.neutral == 0
    assert attention.gate == attend


def test_parameters_are_those_of_table_1():
    """The 3x3 convolutions of ResNet-50's bottlenecks: 25.56 M and 0.16 M more, by hand and by count."""
    widths = [(64, 3), (128, 4), (256, 6), (512, 3)]
    with torch.device("meta"):
        convs = [AWConv2d(width, width, 3, bias=False) for width, number in widths for _ in range(number)]
    counted = sum(parameter.numel() for conv in convs for parameter in conv.attention.parameters())
    by_hand = sum(number * (2 * width * (width // 16) + 2 * (width // 16) + 2 * width) for width, number in widths)
    assert counted == by_hand == 165_208
    assert round((25_557_032 + counted) / 1e6, 2) == 25.72


def settings():
    return [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": "same", "dilation": 2, "bias": False},
        {"kernel_size": (4, 2), "padding": "same"},
        {"kernel_size": (2, 3), "padding": "valid", "stride": (2, 1)},
        {"kernel_size": 3, "padding": (2, 1), "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": 2, "padding_mode": "circular", "stride": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "replicate", "groups": 2},
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 1, "groups": 4},
    ]


# torch's own warning, of the plain convolution
even_kernels = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@even_kernels
@pytest.mark.parametrize("arguments", settings(), ids=str)
@pytest.mark.parametrize("residual", [True, False])
def test_where_the_scale_is_1_it_is_the_plain_convolution_to_the_bit(arguments, residual):
    plain_conv = nn.Conv2d(4, 8, **arguments).eval()
    conv = AWConv2d.from_conv(plain_conv, residual=residual)
    conv.attention.gate = Opening(conv.attention.gate, conv.attention.neutral)
    x = torch.randn(2, 4, 7, 6)
    with torch.no_grad():
        assert torch.equal(conv(x), plain_conv(x))
    torch.testing.assert_close(conv(x), plain_conv(x))
    for tensor in (conv.weight, conv.bias):
        if tensor is not None:
            expected = torch.autograd.grad(plain_conv(x).square().sum(), tensor)
            torch.testing.assert_close(torch.autograd.grad(conv(x).square().sum(), tensor), expected)


@even_kernels
@pytest.mark.parametrize("arguments", settings(), ids=str)
def test_every_method_and_every_choice_gives_the_same_layer(arguments):
    conv = made(4, 8, **arguments).eval()
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64)
    plain_conv = copy.deepcopy(conv)
    plain_conv.take_out()
    scale = conv.attention(x)
    kernels = conv.weight * reference.expanded(scale, *conv.weight.shape)
    each = []
    for image, kernel in zip(x, kernels, strict=True):
        plain_conv.weight = nn.Parameter(kernel.detach())
        each.append(plain_conv(image[None]))
    for method in METHODS:
        conv.attention.method = method
        if method != "output" or scale.shape[3:] == (1, 1):
            assert_all_equal([conv(x), conv(x[:1])], [torch.cat(each), each[0]])


def test_arguments_have_an_effect():
    x = torch.randn(2, 8, 6, 6)

    def run(**options):
        torch.manual_seed(0)
        return AWConv2d(8, 8, 3, padding=1, **options).eval()(x)

    base = run(reduction=4)
    for options in ({"reduction": 2}, {"gate": ign2}, {"residual": False}, {"ratio_in": 4}, {"ratio_out": 4}):
        assert not torch.allclose(base, run(**{"reduction": 4} | options)), options
    assert not torch.allclose(base, run(reduction=4, ratio_kernel=3))
    torch.testing.assert_close(base, run(reduction=4, method="unfold"))


@pytest.mark.parametrize("size", [(5, 4), (1, 1)])
def test_one_image_trains_also_with_one_place(size):
    for kernel_size in (1, 3):
        conv = AWConv2d(8, 6, kernel_size, padding=kernel_size // 2, reduction=2)
        before = conv.attention.expand_norm.running_mean.clone()
        conv(torch.randn(1, 8, *size)).sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in conv.parameters())
        assert torch.equal(before, conv.attention.expand_norm.running_mean) == (kernel_size == 1)


def test_memory_format_is_that_of_the_map():
    for channels, side in ((128, 6), (4, 20)):
        conv = AWConv2d(channels, channels, 3, padding=1)
        x = torch.randn(2, channels, side, side)
        last = x.contiguous(memory_format=torch.channels_last)
        assert choose(x, conv.weight, conv.attention(x), Geometry((3, 3))) == ("taps" if side == 6 else "grouped")
        assert conv(x).is_contiguous()
        assert conv(last).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(conv(last), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", [*settings(), {"kernel_size": 3, "method": "taps"}], ids=str)
def test_autocast(arguments):
    conv = AWConv2d(4, 8, **arguments)
    x = torch.randn(2, 4, 7, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), conv(x), rtol=0.05, atol=0.05)
    y.float().square().sum().backward()
    gradient = conv.weight.grad
    conv.weight.grad = None
    conv(x).square().sum().backward()
    assert (gradient - conv.weight.grad).norm() < 0.05 * gradient.norm()


def test_copies_and_pickles():
    conv = made(4, 6, 3, gate=ign1("learned"))
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(x), conv(x))
        assert other.state_dict().keys() == conv.state_dict().keys()
        assert other.weight is not conv.weight


@pytest.mark.parametrize("training", [True, False])
def test_put_into_and_take_out_keep_everything(training):
    conv = nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float64).train(training)
    calls = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    before, keys, weight = dict(conv.__dict__), list(conv.state_dict()), conv.weight
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    expected = conv(x)
    AWConv2d.put_into(conv, gate=ign3, reduction=2)
    assert type(conv) is AWConv2d
    assert conv.weight is weight
    assert [key for key in conv.state_dict() if not key.startswith("attention.")] == keys
    assert conv.attention.training == training
    assert all(parameter.dtype == torch.float64 for parameter in conv.parameters())
    assert not torch.allclose(conv(x), expected)
    conv.take_out()
    assert type(conv) is nn.Conv2d
    assert dict(conv.__dict__) == before
    assert list(conv.state_dict()) == keys
    assert torch.equal(conv(x), expected)
    assert len(calls) == 3


def test_from_conv_shares_the_weights_and_leaves_the_convolution():
    conv = nn.Conv2d(4, 6, 3)
    made_of_it = AWConv2d.from_conv(conv, residual=False, ratio_out=2)
    assert type(conv) is nn.Conv2d
    assert list(conv.state_dict()) == ["weight", "bias"]
    assert made_of_it.weight is conv.weight
    assert made_of_it.bias is conv.bias
    assert made_of_it.attention.shape == (3, 1, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio_in": 3}, "ratio_in is 3, but it must divide a group's input channels, 4"),
        ({"ratio_in": 0}, "ratio_in is 0"),
        ({"ratio_out": 4}, "ratio_out is 4, but it must divide the output channels, 6"),
        ({"ratio_kernel": 2}, "ratio_kernel is 2, but it must divide the kernel's rows and columns, 3 and 2"),
        ({"reduction": 0}, "reduction=0"),
        ({"method": "group"}, "unknown method 'group': did you mean grouped"),
        ({"method": "output"}, "method is 'output', but the scale differs within a kernel"),
        ({"method": "taps", "ratio_in": 2}, "method is 'taps', but the scale differs between input channels"),
    ],
)
def test_bad_arguments_are_refused_and_leave_the_convolution(options, message):
    with pytest.raises(InputError, match=message):
        AWConv2d(8, 6, (3, 2), groups=2, **options)
    conv = nn.Conv2d(8, 6, (3, 2), groups=2)
    with pytest.raises(InputError, match=message):
        AWConv2d.put_into(conv, **options)
    assert type(conv) is nn.Conv2d
    assert list(conv.state_dict()) == ["weight", "bias"]


def test_only_plain_convolutions_take_it():
    for conv in (AWConv2d(4, 4, 3), nn.LazyConv2d(4, 3)):
        for take in (AWConv2d.put_into, AWConv2d.from_conv):
            with pytest.raises(InputError, match=f"conv is a {type(conv).__name__}, but only a plain nn.Conv2d"):
                take(conv)


def test_a_gated_module_calls_its_gate_once():
    calls = []

    def counting(z):
        calls.append(z.shape)
        return torch.sigmoid(z)

    conv = AWConv2d(4, 6, 3, gate=counting)
    conv(torch.randn(2, 4, 5, 5))
    assert calls == [(2, 6, 1, 3, 3)]
    assert [module for module in conv.modules() if hasattr(module, "gate")] == [conv.attention]
    assert isinstance(conv.attention, KernelAttention)


COMPILED = """
import warnings, torch
from torch.fx.experimental.optimization import fuse
from heedful.layers.aw_conv import AWConv2d
torch.set_num_threads(1)
x = torch.randn(3, 4, 7, 6, requires_grad=True)
num_checked = 0
for arguments in SETTINGS + [{"kernel_size": 3, "ratio_in": 2, "stride": 2}]:
    conv = AWConv2d(4, 8, **arguments)
    torch.compiler.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    for training in (True, False):
        conv.train(training)
        y = compiled(x)
        ours = torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])
        theirs = torch.autograd.grad(conv(x).square().sum(), [x, *conv.parameters()])
        torch.testing.assert_close([y, *ours], [conv(x), *theirs], rtol=1e-3, atol=1e-3)
    program = torch.export.export(conv, (x.detach(),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
    for batch in (1, 5):
        images = torch.randn(batch, 4, 7, 6)
        torch.testing.assert_close(program(images), conv(images))
    meta = {name: tensor.to("meta") for name, tensor in conv.state_dict().items()}
    assert torch.func.functional_call(conv, meta, x.to("meta")).shape == y.shape
    torch.testing.assert_close(torch.func.vmap(conv)(torch.stack([x, -x]))[0], conv(x))
    network = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(8)).eval()
    torch.testing.assert_close(fuse(network)(x), network(x))
    num_checked += 1
print(num_checked)
"""


def test_compiled_exported_transformed_and_traced_it_is_the_same():
    script = COMPILED.replace("SETTINGS", repr([settings()[2], settings()[6]]))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 3


ONNX = """
import sys, onnxruntime, torch
from heedful.layers.aw_conv import AWConv2d
worst = 0.0
for arguments in SETTINGS:
    conv = AWConv2d(4, 8, **arguments).eval()
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    torch.onnx.export(conv, (torch.randn(2, 4, 7, 6),), sys.argv[1], dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        images = torch.randn(batch, 4, 7, 6)
        (y,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        worst = max(worst, (torch.from_numpy(y) - conv(images)).abs().max().item())
print(worst)
"""


def test_onnx_with_any_number_of_images(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="heedful[export] is not installed")
    arguments = [{"kernel_size": 3, "padding": 1, "stride": 2}]
    command = [sys.executable, "-c", ONNX.replace("SETTINGS", repr(arguments)), str(tmp_path / "conv.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1e-5


TRITON = """
import torch
from heedful.layers import per_sample_conv_triton as kernels, per_sample_plain as plain
from heedful.layers.per_sample_geometry import Geometry
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

def found(form, tensors, geometry):
    y = form(*tensors, geometry)
    first = torch.autograd.grad(y, tensors, torch.linspace(-1, 1, y.numel(), device=DEVICE, dtype=y.dtype).view_as(y))
    return [y, *first]

kernels.PLACES, kernels.CHANNELS, kernels.DEPTH = 32, 32, 16
num_compared = 0
for geometry, layout, dtype, tolerance in [
    (Geometry((3, 3), (1, 1), (1, 1, 1, 1)), torch.contiguous_format, torch.float32, 1e-5),
    (Geometry((2, 3), (2, 1), (0, 1, 2, 0), (1, 2)), torch.channels_last, torch.float32, 1e-5),
    (Geometry((1, 1), (2, 2)), torch.contiguous_format, torch.float16, 1e-2),
]:
    kernels.PROGRAMS = 512 if layout == torch.channels_last else 1
    shapes = (2, 18, 6, 7), (34, 18, *geometry.kernel), (2, 34, 1, *geometry.kernel)
    tensors = [torch.randn(shape, device=DEVICE, dtype=dtype).requires_grad_() for shape in shapes]
    tensors[0] = tensors[0].detach().contiguous(memory_format=layout).requires_grad_()
    ours = found(kernels.TritonTaps.apply, tensors, geometry)
    assert ours[0].is_contiguous(memory_format=layout)
    for one, other in zip(ours, found(plain.taps, tensors, geometry), strict=True):
        distance = (one - other).norm() / other.norm()
        assert distance < tolerance, (geometry, dtype, distance)
        num_compared += 1
kernels.PLACES, kernels.CHANNELS, kernels.DEPTH = 64, 64, 32
assert kernels.works(torch.device(DEVICE), torch.float32)
print(num_compared)
"""


def compared_by_triton(device, **environment):
    """In a process of its own: Triton reads the environment once, and compiles functions as they are written."""
    pytest.importorskip("triton", reason="Triton is not on this machine")
    script = TRITON.replace("DEVICE", repr(device))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_triton_kernels_agree_with_pytorch_in_tritons_interpreter():
    assert compared_by_triton("cpu", TRITON_INTERPRET="1") == 12


@pytest.mark.gpu
def test_the_triton_kernels_agree_with_pytorch_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    assert compared_by_triton("cuda") == 12
    conv = AWConv2d(64, 64, 3, padding=1).cuda()
    x = torch.randn(2, 64, 9, 9, device="cuda")
    y = conv(x)
    conv.attention.method = "unfold"
    torch.testing.assert_close(y, conv(x), rtol=1e-2, atol=1e-2)


def test_triton_that_does_not_work_is_said_and_not_used():
    """Without a GPU, and without the interpreter, the kernels cannot be launched."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    pytest.importorskip("triton", reason="Triton is not on this machine")
    script = """
import torch
from heedful.layers.per_sample_conv_triton import works
print(works(torch.device("cpu"), torch.float32))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
    assert "heedful's Triton kernels are not used on cpu" in done.stderr
