"""The other layers x all gates: the same facts as in test_layers.py, and what each layer promises by itself."""

import copy
import functools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from heedful import InputError, attend, ign1, ign2, ign3
from heedful.gates import Opening
from heedful.layers import LAYERS
from heedful.layers.bam import BAM
from heedful.layers.coordinate_attention import CoordinateAttention
from heedful.layers.eca import EfficientChannelAttention, neighbours
from heedful.layers.gather_excite import GatherExcite
from heedful.layers.global_context import GlobalContext
from heedful.layers.simam import SimAM
from heedful.layers.style_recalibration import StyleRecalibration
from tests.references import attention as gates
from tests.references import more_layers as reference

GATES = {
    attend: gates.attend,
    ign1(1): gates.ign1(1),
    ign1(0.5): gates.ign1(0.5),
    ign2: gates.ign2,
    ign3: gates.ign3,
}
SIZE = (5, 4)
FORMS = {
    "eca": EfficientChannelAttention,
    "bam": functools.partial(BAM, dilation=2),
    "ge": GatherExcite,
    "ge-extent": functools.partial(GatherExcite, extent=2),
    "ge-learned": functools.partial(GatherExcite, learned=True, map_size=SIZE),
    "ge-learned-extent": functools.partial(GatherExcite, learned=True, extent=4),
    "ge-mlp": functools.partial(GatherExcite, extent=4, mlp=True),
    "ge-plus": functools.partial(GatherExcite, learned=True, mlp=True, extent=2),
    "gc": GlobalContext,
    "coord": CoordinateAttention,
    "simam": SimAM,
    "srm": StyleRecalibration,
}
REDUCED = ("bam", "ge-mlp", "ge-plus", "gc", "coord")
BARE = ("ge", "ge-extent", "simam")
every_form = pytest.mark.parametrize("name", FORMS)
every_gate = pytest.mark.parametrize("gate", GATES, ids=repr)


def feature_maps(channels=8, size=SIZE, dtype=torch.float64, **options):
    return torch.randn(2, channels, *size, dtype=dtype, **options)


def made(name, channels=8, *, gate=attend, **options):
    """A layer in float64 whose norms and weights are none of those it starts with."""
    layer = FORMS[name](channels, gate=gate, **({"reduction": 4} if name in REDUCED else {}) | options).double()
    with torch.no_grad():
        for tensor in [*layer.parameters(), *layer.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1).mul_(torch.randint(2, tensor.shape) * 2 - 1 if tensor.dim() > 1 else 1)
    return layer


def gated(layer):
    return [module for module in layer.modules() if hasattr(module, "gate") and not isinstance(module, Opening)]


def norm_of(module):
    statistics = (None, None) if module.training else (module.running_mean, module.running_var)
    return reference.batch_norm(*gates.numbers(module.weight, module.bias, *statistics))


def logits_of_eca(layer, x):
    return reference.efficient_channel_attention(x, layer.conv.weight.flatten().tolist())


def logits_of_bam(layer, x):
    channel = gates.numbers(layer.channel[0].weight, layer.channel[0].bias, layer.channel[2].weight)
    spatial = [gates.numbers(layer.spatial[i].weight, layer.spatial[i].bias) for i in (0, 2, 4, 6)]
    norms = norm_of(layer.channel_norm), norm_of(layer.spatial_norm)
    return reference.bottleneck_attention(x, channel, norms[0], spatial, norms[1], FORMS["bam"].keywords["dilation"])


def logits_of_ge(layer, x):
    if hasattr(layer.gather, "convs"):
        kernels = gates.numbers(*[conv.weight for conv in layer.gather.convs])
        norms = [norm_of(norm) for norm in layer.gather.norms]
        stride, padding = (1, 0) if layer.gather.map_size else (2, 1)
        gathered = reference.gathered_depthwise(x, kernels, norms, stride=stride, padding=padding)
    else:
        gathered = reference.gathered_means(x, layer.extent)
    if isinstance(layer.mlp, nn.Identity):
        return reference.excite(x, gathered)
    first, last = layer.mlp[0], layer.mlp[2]
    mixing = first.weight.flatten(1), first.bias, last.weight.flatten(1), last.bias
    return reference.excite(x, gathered, gates.numbers(*mixing))


def logits_of_gc(layer, x):
    first, norm, last = layer.mlp[0], layer.mlp[1], layer.mlp[3]
    scale = (None, None) if isinstance(norm, nn.Identity) else (norm.weight, norm.bias)
    weights = layer.places.weight.flatten(), first.weight, first.bias, *scale, last.weight, last.bias
    return reference.global_context(x, *gates.numbers(*weights))


def logits_of_coord(layer, x):
    halves = [gates.numbers(half.conv.weight[:, :, 0, 0], half.conv.bias) for half in (layer.height, layer.width)]
    (first,) = gates.numbers(layer.encoder[0].weight[:, :, 0, 0])
    return reference.coordinate_attention(x, first, norm_of(layer.encoder[1]), *halves)


def logits_of_simam(layer, x):
    return reference.simam(x, layer.regularization)


def logits_of_srm(layer, x):
    return reference.style_recalibration(x, layer.weight.tolist(), norm_of(layer.norm))


LOGITS = {
    "eca": logits_of_eca,
    "bam": logits_of_bam,
    "ge": logits_of_ge,
    "gc": logits_of_gc,
    "coord": logits_of_coord,
    "simam": logits_of_simam,
    "srm": logits_of_srm,
}


def slow(name, layer, x, gate):
    """The paper's output: a weight for each number of the map, one after the other."""
    logits = LOGITS[name.split("-")[0]](layer, x.numpy())
    weigh = np.vectorize(lambda logit: GATES[gate](logit)[0])
    out = x.numpy() if name == "bam" else 0
    factor = weigh(logits[0]) * weigh(logits[1]) if isinstance(logits, tuple) else weigh(logits)
    return torch.from_numpy(out + x.numpy() * factor)


def assert_equal(ours, theirs, tolerance=1e-11):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@every_form
@every_gate
@pytest.mark.parametrize("training", [True, False])
def test_output_equals_the_equations(name, gate, training):
    layer = made(name, gate=gate).train(training)
    x = feature_maps()
    assert_equal(layer(x), slow(name, layer, x, gate))


@every_form
@every_gate
def test_gradients_agree_with_finite_differences(name, gate):
    layer = made(name, 4, gate=gate)
    x = feature_maps(4, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def output(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *parameters.values()), fast_mode=True)


@every_form
def test_second_gradients_agree_with_finite_differences(name):
    layer, x = made(name, 4), feature_maps(4, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,), fast_mode=True)


@every_form
@every_gate
def test_output_is_input_times_mask(name, gate):
    layer, x = made(name, gate=gate), feature_maps()
    neutral = getattr(layer, "neutral", 1.0)
    assert neutral == (0.0 if name == "bam" else 1.0)
    assert_equal(layer(x), x * (1 - neutral + layer.mask(x)))


@every_form
def test_mask_is_the_gate_of_the_logits_called_once(name):
    layer, x = made(name), feature_maps()
    calls = []
    for module in gated(layer):
        module.gate = lambda logits: calls.append(logits) or logits
    layer(x)
    assert len(calls) == len(gated(layer)) == (2 if name == "coord" else 1)
    if name == "coord":
        rows, columns = layer.encode(x)
        expected = [layer.height.logits(rows), layer.width.logits(columns)]
        assert torch.equal(layer.mask(x), expected[0] * expected[1])
    else:
        expected = [layer.logits(x)]
    for seen, logits in zip(calls, expected, strict=False):
        assert torch.equal(seen, logits)


@every_form
def test_a_neutral_gate_returns_the_input_to_the_bit(name):
    layer, x = made(name), feature_maps(dtype=torch.float32)
    layer.float()
    for module in gated(layer):
        module.gate = functools.partial(torch.full_like, fill_value=getattr(module, "neutral", 1.0))
    assert torch.equal(layer(x), x)


@every_form
@every_gate
def test_a_closed_opening_returns_the_input_to_the_bit_and_opens_to_the_layer(name, gate):
    layer, x = made(name, gate=gate), feature_maps()
    expected = layer(x)
    for module in gated(layer):
        module.gate = Opening(module.gate, getattr(module, "neutral", 1.0)).double()
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    for module in gated(layer):
        assert module.gate.opening.grad.abs() > 0
        torch.nn.init.ones_(module.gate.opening)
    assert_equal(layer(x), expected)


@every_form
def test_a_learned_alpha_belongs_to_the_layer_and_learns(name):
    layer = made(name, gate=ign1("learned"))
    other = FORMS[name](8, gate=ign1("learned"))
    alphas = [parameter for key, parameter in layer.named_parameters() if key.endswith("gate.logit_alpha")]
    assert len(alphas) == (2 if name == "coord" else 1)
    assert not {id(alpha) for alpha in alphas} & {id(parameter) for parameter in other.parameters()}
    layer(feature_maps()).square().sum().backward()
    assert all(alpha.grad.abs() > 0 for alpha in alphas)


@every_form
@every_gate
def test_every_parameter_learns_and_the_input_matters(name, gate):
    layer, x = made(name, gate=gate), feature_maps(requires_grad=True)
    layer(x).square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad.abs().max() > 0, key
    if name not in BARE:
        assert list(layer.parameters())
    assert (layer.mask(x) - layer.mask(feature_maps())).abs().max() > 1e-6


@every_form
@every_gate
def test_layers_survive_copies_half_precision_and_one_place(name, gate):
    layer, x = made(name, gate=gate).float(), feature_maps(dtype=torch.float32)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    layer.eval()
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), expected, rtol=0.1, atol=0.1)
    for dtype in (torch.bfloat16, torch.float16):
        half = copy.deepcopy(layer).to(dtype)(x.to(dtype))
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)
    if name != "ge-learned":
        assert_equal(layer.double()(x.double()[:, :, :1, :1]), slow(name, layer, x.double()[:, :, :1, :1], gate))


@every_form
@pytest.mark.parametrize("size", [SIZE, (1, 1)])
def test_one_image_is_trained_on(name, size):
    layer = made(name, map_size=size) if name == "ge-learned" else made(name)
    x = feature_maps(size=size)[:1].requires_grad_()
    y = layer.train()(x)
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


def test_one_number_per_channel_is_normed_by_the_running_statistics_which_stay():
    layer = made("srm").train()
    before = copy.deepcopy(layer.state_dict())
    x = feature_maps()[:1]
    logits = layer.logits(x)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    assert torch.equal(logits, layer.eval().logits(x))
    two = feature_maps()
    layer.train().logits(two)
    assert not torch.equal(layer.norm.running_mean, before["norm.running_mean"])


def test_a_synchronized_norm_is_asked_even_about_one_number():
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(made("srm"))
    assert isinstance(layer.norm, nn.SyncBatchNorm)
    calls = []
    layer.norm.forward = lambda logits: calls.append(logits.shape) or logits
    layer.train().logits(feature_maps()[:1])
    assert calls == [(1, 8)]


@every_form
def test_memory_format_is_kept_and_changes_nothing(name):
    layer, x = made(name), feature_maps()
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_equal(y, layer(x))


@every_form
def test_layers_run_on_the_meta_device(name):
    layer = FORMS[name](8, device=torch.device("meta"))
    assert all(tensor.is_meta for tensor in [*layer.parameters(), *layer.buffers()])
    weights = {key: torch.empty_like(value, device="meta") for key, value in layer.state_dict().items()}
    y = torch.func.functional_call(layer, weights, (torch.empty(2, 8, *SIZE, device="meta"),))
    assert (y.shape, y.is_meta) == ((2, 8, *SIZE), True)


@every_form
def test_dtype_decides_the_parameters(name):
    layer = FORMS[name](8, dtype=torch.float64)
    assert all(parameter.dtype == torch.float64 for parameter in layer.parameters())
    assert layer(feature_maps()).dtype == torch.float64


@every_form
def test_layers_export_with_any_batch(name):
    layer, x = made(name, gate=ign2).eval(), feature_maps()
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}}, strict=False)
    more = torch.cat([x, feature_maps(), feature_maps()])
    for images in (more, more[:1]):
        assert_equal(program.module()(images), layer(images))


FX_SCRIPT = """
import torch
from heedful.layers import LAYERS, GatherExcite
learned = [GatherExcite(8, learned=True, mlp=True, extent=4), GatherExcite(8, extent=2)]
layers = [*[layer(8) for layer in LAYERS.values()], *learned]
x = torch.randn(2, 8, 5, 4)
for layer in layers:
    layer.eval()
    torch.testing.assert_close(torch.fx.symbolic_trace(layer)(x), layer(x))
print(len(layers))
"""


def test_layers_are_traced_by_fx_in_evaluation():
    """In a process without the tests' shape checks, which know no proxies."""
    done = subprocess.run([sys.executable, "-c", FX_SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(LAYERS) + 2


@pytest.mark.parametrize("name", [name for name in FORMS if name in LAYERS])
def test_layers_fit_timms_slot_and_name_their_paper(name):
    import timm

    attention = functools.partial(LAYERS[name], gate=ign3)
    model = timm.create_model("resnet26", block_args={"attn_layer": attention}, num_classes=3)
    placed = [module for module in model.modules() if isinstance(module, LAYERS[name])]
    assert len(placed) == 8
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    for layer in placed:
        assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())
        assert all(repr(module.gate) == "ign3" for module in gated(layer))
    assert LAYERS[name].source.split()[-1].isdecimal()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eca", 3),
        ("bam", 2 * 64 * 4 + 4 + 2 * 64 + 64 * 4 - 64 * 4 + 64 * 4 + 4 + 2 * (9 * 16 + 4) + 4 + 2),
        ("ge", 0),
        ("ge-learned", 20 * 64 + 2 * 64),
        ("ge-learned-extent", 2 * (9 * 64 + 2 * 64)),
        ("ge-mlp", 2 * 64 * 4 + 4 + 64),
        ("ge-plus", 9 * 64 + 2 * 64 + 2 * 64 * 4 + 4 + 64),
        ("gc", 64 + 2 * 64 * 4 + 4 + 2 * 4 + 64),
        ("coord", 3 * 64 * 4 + 2 * 4 + 2 * 64),
        ("simam", 0),
        ("srm", 4 * 64),
    ],
)
def test_parameters_are_counted_as_the_equations_say(name, expected):
    assert sum(parameter.numel() for parameter in FORMS[name](64).parameters()) == expected


def test_defaults_are_the_papers():
    assert [conv.dilation for conv in BAM(8).spatial if isinstance(conv, nn.Conv2d)] == [(1, 1), (4, 4), (4, 4), (1, 1)]
    assert SimAM(8).regularization == 1e-4
    hidden = [BAM(64).channel[0], GatherExcite(64, mlp=True).mlp[0], GlobalContext(64).mlp[0]]
    hidden.append(CoordinateAttention(64).encoder[0])
    assert [len(layer.weight) for layer in hidden] == [64 // 16] * 4


@pytest.mark.parametrize("name", REDUCED)
def test_hidden_width_is_never_below_one_and_still_says_something(name):
    layer, x = made(name, 3, reduction=16), feature_maps(3)
    first = {"bam": "channel", "coord": "encoder"}.get(name, "mlp")
    assert getattr(layer, first)[0].weight.shape[:2] == (1, 3)
    assert_equal(layer(x), slow(name, layer, x, attend))
    assert (layer.mask(x) - layer.mask(feature_maps(3))).abs().max() > 1e-6


@every_form
@pytest.mark.parametrize("channels", [0, -3])
def test_channels_below_one_are_refused(name, channels):
    with pytest.raises(InputError, match=r"channels.*must.* be at least 1"):
        FORMS[name](channels)


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("reduction", [0, -1])
def test_reductions_below_one_are_refused(name, reduction):
    with pytest.raises(InputError, match=f"reduction={reduction} must both be at least 1"):
        FORMS[name](8, reduction=reduction)


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (EfficientChannelAttention, {"kernel_size": 4}, "kernel_size is 4, but it must be odd and positive"),
        (EfficientChannelAttention, {"kernel_size": 0}, "kernel_size is 0"),
        (EfficientChannelAttention, {"kernel_size": -3}, "kernel_size is -3"),
        (BAM, {"dilation": 0}, "dilation is 0, but it must be at least 1"),
        (SimAM, {"regularization": 0.0}, "regularization is 0.0, but it must be above 0"),
        (SimAM, {"regularization": math.nan}, "regularization is nan"),
        (GatherExcite, {"extent": 1}, "extent is 1, but it must be 0, for the whole map, or a power of two"),
        (GatherExcite, {"extent": 6}, "extent is 6"),
        (GatherExcite, {"extent": -4}, "extent is -4"),
        (GatherExcite, {"learned": True}, "map_size is None, but learned=True with extent=0 needs"),
        (GatherExcite, {"map_size": (7, 7)}, r"map_size is \(7, 7\), but it is only for learned=True"),
        (GatherExcite, {"map_size": (7, 7), "learned": True, "extent": 2}, "leave it out"),
        (GatherExcite, {"map_size": (7, 0), "learned": True}, "height and width must be at least 1"),
    ],
)
def test_what_a_layer_cannot_be_is_refused(layer, arguments, message):
    with pytest.raises(InputError, match=message):
        layer(8, **arguments)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"the map is 4x5, but this layer was made for map_size=\(5, 4\)"):
        made("ge-learned")(feature_maps(size=(4, 5)))


@pytest.mark.parametrize(("channels", "size"), [(1, 3), (8, 3), (64, 3), (127, 3), (128, 5), (512, 5), (2048, 7)])
def test_eca_takes_its_size_from_the_channels(channels, size):
    assert neighbours(channels) == EfficientChannelAttention(channels).conv.kernel_size[0] == size


def test_eca_takes_the_size_it_is_given():
    layer = made("eca", kernel_size=11)
    x = feature_maps()
    assert layer.conv.kernel_size == (11,)
    assert_equal(layer(x), slow("eca", layer, x, attend))


@pytest.mark.parametrize("size", [(1, 7), (8, 8), (9, 3)])
@pytest.mark.parametrize("name", ["ge-extent", "ge-learned-extent", "ge-mlp"])
def test_gather_excite_covers_maps_that_its_extent_does_not_divide(name, size):
    layer, x = made(name), feature_maps(size=size)
    assert_equal(layer(x), slow(name, layer, x, attend))


def test_constant_maps_have_finite_gradients():
    for name in FORMS:
        layer = made(name)
        x = torch.full((2, 8, *SIZE), 0.3, dtype=torch.float64, requires_grad=True)
        layer(x).square().sum().backward()
        for tensor in (x, *layer.parameters()):
            assert torch.isfinite(tensor.grad).all(), name


def test_simam_survives_deviations_whose_squares_float16_cannot_hold():
    x = feature_maps(dtype=torch.float32) + 0.5
    x[0, 0, 0, 0] = 500
    x[0, 0, 1:] = 0
    layer = SimAM(8)
    torch.testing.assert_close(layer.logits(x.half()).float(), layer.logits(x), rtol=0.01, atol=0.01)


def test_simams_regularization_draws_the_logits_to_a_half():
    x = feature_maps()
    assert (SimAM(8, regularization=1e6).logits(x) - 0.5).abs().max() < 1e-5
    assert SimAM(8).logits(x).max() > 0.8


def test_srm_starts_with_one_weight_for_all():
    layer = StyleRecalibration(8).double()
    assert torch.equal(layer.mask(feature_maps()), torch.full((2, 8, 1, 1), 0.5, dtype=torch.float64))
    layer(feature_maps()).square().sum().backward()
    assert layer.weight.grad.abs().min() > 0


def assert_equals_timms(theirs, ours, weights):
    """Same weights, then the same outputs and gradients; `weights`: theirs -> ours, by name."""
    x, same_x = feature_maps(32, (9, 6), requires_grad=True), None
    same_x = x.detach().clone().requires_grad_()
    their, our = dict(theirs.named_parameters()), dict(ours.named_parameters())
    with torch.no_grad():
        for key, twin in weights.items():
            their[key].copy_(our[twin].reshape(their[key].shape))
    weighting = feature_maps(32, (9, 6))
    y, same_y = ours(x), theirs(same_x)
    assert_equal(y, same_y)
    (y * weighting).sum().backward()
    (same_y * weighting).sum().backward()
    assert_equal(x.grad, same_x.grad)
    assert set(weights.values()) == set(our)
    for key, twin in weights.items():
        assert_equal(our[twin].grad, their[key].grad.reshape(our[twin].shape))


@pytest.mark.parametrize("kernel_size", [None, 7])
def test_eca_equals_timms(kernel_size):
    from timm.layers import EcaModule

    theirs = EcaModule(32) if kernel_size is None else EcaModule(kernel_size=kernel_size)
    assert_equals_timms(theirs.double(), made("eca", 32, kernel_size=kernel_size), {"conv.weight": "conv.weight"})
    for channels in range(1, 2049):
        assert neighbours(channels) == EcaModule(channels, device="meta").conv.kernel_size[0]


@pytest.mark.parametrize("extent", [0, 2, 4])
def test_gather_excite_equals_timms(extent):
    from timm.layers import GatherExcite as TimmGatherExcite

    theirs = TimmGatherExcite(32, extent=extent, use_mlp=False)
    assert_equals_timms(theirs, GatherExcite(32, extent=extent), {})


@pytest.mark.parametrize("options", [{"extent": 2}, {"extent": 0}, {"extent": 4, "learned": True}])
def test_gather_excite_with_an_mlp_equals_timms_put_together(options):
    """timm 1.0.31 cannot build this form itself: its parts are put where its constructor would put them."""
    from timm.layers import ConvMlp, create_conv2d
    from timm.layers import GatherExcite as TimmGatherExcite

    ours = made("ge-mlp", 32, **options)
    theirs = TimmGatherExcite(32, extent=options["extent"], use_mlp=False)
    theirs.mlp = ConvMlp(32, 8)
    names = {f"mlp.fc{i}.{kind}": f"mlp.{place}.{kind}" for i, place in ((1, 0), (2, 2)) for kind in ("weight", "bias")}
    if "learned" in options:
        convs = [create_conv2d(32, 32, kernel_size=3, stride=2, depthwise=True) for _ in range(2)]
        theirs.gather = nn.Sequential(convs[0], nn.BatchNorm2d(32), nn.ReLU(), convs[1], nn.BatchNorm2d(32))
        for i, place in ((0, 0), (1, 3)):
            names[f"gather.{place}.weight"] = f"gather.convs.{i}.weight"
            names[f"gather.{place + 1}.weight"] = f"gather.norms.{i}.weight"
            names[f"gather.{place + 1}.bias"] = f"gather.norms.{i}.bias"
    assert_equals_timms(theirs.double(), ours, names)


def test_global_context_equals_timms():
    from timm.layers import GlobalContext as TimmGlobalContext

    ours, theirs = made("gc", 32), TimmGlobalContext(32, fuse_add=False, fuse_scale=True, rd_channels=8).double()
    theirs.mlp_scale.norm.eps = ours.mlp[1].eps  # timm's own is 1e-6, the authors' 1e-5
    parts = {"fc1": "mlp.0", "norm": "mlp.1", "fc2": "mlp.3"}
    names = {f"mlp_scale.{key}.{kind}": f"{part}.{kind}" for key, part in parts.items() for kind in ("weight", "bias")}
    assert_equals_timms(theirs, ours, names | {"conv_attn.weight": "places.weight"})


@pytest.mark.parametrize("training", [True, False])
def test_coordinate_attention_equals_timms(training):
    from timm.layers.coord_attn import CoordAttn

    ours, theirs = made("coord", 32).train(training), CoordAttn(32, rd_channels=8, bias=True).double().train(training)
    torch.nn.init.zeros_(theirs.conv1.bias)
    theirs.bn1.load_state_dict(ours.encoder[1].state_dict())
    parts = {"bn1": "encoder.1", "conv_h": "height.conv", "conv_w": "width.conv"}
    names = {f"{key}.{kind}": f"{part}.{kind}" for key, part in parts.items() for kind in ("weight", "bias")}
    assert_equals_timms(theirs, ours, names | {"conv1.weight": "encoder.0.weight"})
