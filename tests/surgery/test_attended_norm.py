"""Attention behind a batch norm: values and gradients of the plain computation, without the map being kept."""

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import heedful
from heedful.layers import LAYERS
from heedful.layers.pooling import maximum
from heedful.layers.product import origin_of, weighted
from heedful.surgery import attended
from heedful.surgery.attended_norm import Remembered
from heedful.temporary import exchanged

CHANNELS = 8
SE_CBAM = ("se", "cbam")


class Behind(nn.Module):
    """The plain computation: the layer behind the norm."""

    def __init__(self, norm, layer):
        super().__init__()
        self.norm, self.layer = norm, layer

    def forward(self, u):
        return self.layer(self.norm(u))


def pair(name, *, norm=None, dtype=torch.float64):
    """The same attention twice: behind the norm as a module of its own, and attached to the norm."""
    norm = nn.BatchNorm2d(CHANNELS, dtype=dtype) if norm is None else norm
    if norm.affine:
        nn.init.uniform_(norm.weight, -1, 1)
        nn.init.uniform_(norm.bias, -1, 1)
    if norm.running_mean is not None:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    layers = [LAYERS[part](CHANNELS, dtype=dtype) for part in name.split("+")]
    plain = Behind(norm, layers[0] if len(layers) == 1 else nn.Sequential(*layers))
    for parameter in plain.layer.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    host = copy.deepcopy(plain)
    attended.put(host.norm, host.layer)
    return plain, host.norm


def maps(dtype=torch.float64, size=(3, CHANNELS, 6, 5), memory_format=torch.contiguous_format):
    return torch.randn(size, dtype=dtype).to(memory_format=memory_format)


def gradients(module, u, upstream):
    u = u.clone().requires_grad_()
    y = module(u)
    y.backward(upstream)
    layer = module.layer if isinstance(module, Behind) else module.attention
    norm = module.norm if isinstance(module, Behind) else module
    own = [p.grad for p in (norm.weight, norm.bias) if p is not None]
    return y, [u.grad, *own, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("name", [*LAYERS, "se+cbam", "cbam+se", "eca+bam"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_values_and_gradients_are_those_of_the_plain_computation(name, training, memory_format):
    plain, host = pair(name)
    u, upstream = maps(memory_format=memory_format), maps(memory_format=memory_format)
    given = upstream.clone()
    results = [gradients(module.train(training), u, upstream) for module in (plain, host)]
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)
    assert torch.equal(upstream, given)
    assert results[0][1][0].stride() == results[1][1][0].stride()
    for one, other in zip(plain.norm.buffers(), host.buffers(), strict=False):
        assert torch.equal(one, other)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(u), host.eval()(u), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SE_CBAM)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_large_maps_too(name, training):
    plain, host = pair(name)
    u, upstream = maps(size=(2, CHANNELS, 24, 24)), maps(size=(2, CHANNELS, 24, 24))
    results = [gradients(module.train(training), u, upstream) for module in (plain, host)]
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["se", "cbam", "se+cbam", "simam"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_first_and_second_gradients_are_right(name, training):
    _, host = pair(name)
    host.train(training)
    u = maps(size=(2, CHANNELS, 2, 2)).requires_grad_()
    weights = [host.weight, host.bias, next(host.attention.parameters(), host.weight)]

    def attend(u, *_):
        host.zero_grad()
        return host(u)

    assert torch.autograd.gradcheck(attend, (u, *weights))
    assert torch.autograd.gradgradcheck(attend, (u, *weights), fast_mode=True)


@pytest.mark.parametrize("name", SE_CBAM)
def test_frozen_networks_train_their_attention(name):
    plain, host = pair(name)
    for norm in (plain.norm, host):
        norm.weight.requires_grad_(False)
        norm.bias.requires_grad_(False)
    u = maps()
    for training in (True, False):
        for module in (plain, host):
            module.zero_grad()
            module.train(training)(u).square().sum().backward()
        for one, other in zip(plain.layer.parameters(), host.attention.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("variant", ["se-ign2", "cbam"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_identity_start_is_the_network_to_the_bit(variant, momentum):
    model = torchvision.models.resnet18(num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    images, attended_model = torch.randn(2, 3, 64, 64), copy.deepcopy(model)
    heedful.attach(attended_model, variant, example=images)
    assert sum(isinstance(module, Remembered) for module in attended_model.modules()) == 8
    for training in (True, False):
        assert torch.equal(model.train(training)(images), attended_model.train(training)(images))
        with torch.no_grad():
            assert torch.equal(model(images), attended_model(images))
        with torch.inference_mode():
            assert torch.equal(model(images), attended_model(images))
    buffers = dict(attended_model.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


def kept_bytes(module, u):
    kept = {}

    def keep(tensor):
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(u)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", ["se", "eca", "cbam", "cbam_mean"])
def test_training_keeps_no_map_but_the_norms_own_input(name):
    plain, host = pair(name)
    u = maps(size=(2, CHANNELS, 32, 32)).requires_grad_()
    one_map = u.untyped_storage().nbytes()
    assert kept_bytes(host, u) < 1.6 * one_map  # with a place (8 bytes) and two pooled numbers for 8 channels at CBAM
    assert kept_bytes(plain, u) > 1.9 * one_map


@pytest.mark.parametrize("name", SE_CBAM)
def test_a_graph_can_be_passed_twice_and_in_part(name):
    plain, host = pair(name)
    u = maps().requires_grad_()
    upstream = maps()
    attention = {plain: list(plain.layer.parameters()), host: list(host.attention.parameters())}
    results = []
    for module in (plain, host):
        y = module(u)
        in_part = torch.autograd.grad(y, attention[module], upstream, retain_graph=True)
        whole = torch.autograd.grad(y, [u, *attention[module]], 2 * upstream, retain_graph=True)
        again = torch.autograd.grad(y, u, upstream)
        results.append([*in_part, *whole, *again])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", SE_CBAM)
def test_a_loss_on_the_masks_alone_after_one_on_the_output_alone(name):
    plain, host = pair(name)
    u = maps().requires_grad_()
    results = []
    for module, layer in ((plain, plain.layer), (host, host.attention)):
        gated = layer if name == "se" else layer.channel
        masks, gate = [], gated.gate

        def keeping(logits, masks=masks, gate=gate):
            masks.append(gate(logits))
            return masks[0]

        with exchanged([(gated, "gate", keeping)]):
            y = module(u)
        # What the first pass leaves behind, since it does not reach u, must not come with the second.
        torch.autograd.grad(y.sum(), [*layer.parameters()], retain_graph=True, allow_unused=True)
        results.append(torch.autograd.grad(masks[0].square().sum(), u))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", SE_CBAM)
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(name, reentrant):
    plain, host = pair(name)
    u, upstream = maps(), maps()
    expected = gradients(plain, u, upstream)[1]
    v = u.clone().requires_grad_()
    checkpoint(host, v, use_reentrant=reentrant).backward(upstream)
    found = [v.grad, host.weight.grad, host.bias.grad, *(p.grad for p in host.attention.parameters())]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", SE_CBAM)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_mixed_precision(name, training):
    plain, host = pair(name, dtype=torch.float32)
    u, upstream = maps(torch.bfloat16), maps(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = [gradients(module.train(training), u, upstream) for module in (plain, host)]
    assert [g.dtype for g in results[0][1]] == [g.dtype for g in results[1][1]]
    assert results[0][0].dtype == results[1][0].dtype
    torch.testing.assert_close(results[0], results[1], rtol=0.05, atol=0.1)


def forward_derivative(u):
    def derivative(f):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(u, torch.ones_like(u)))).tangent

    return derivative


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, in its jvp
@pytest.mark.parametrize("name", SE_CBAM)
def test_functional_transforms(name):
    plain, host = pair(name)
    plain.eval(), host.eval()
    u = maps()
    for transform in (
        lambda f: torch.func.grad(lambda u: f(u).square().sum())(u),
        lambda f: torch.func.vmap(f)(u[None].expand(2, -1, -1, -1, -1)),
        lambda f: torch.func.jvp(f, (u,), (torch.ones_like(u),)),
        forward_derivative(u),
    ):
        torch.testing.assert_close(transform(host), transform(plain))


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}, {"momentum": None}], ids=str)
@pytest.mark.parametrize("name", SE_CBAM)
def test_norms_without_all_parts(options, name):
    plain, host = pair(name, norm=nn.BatchNorm2d(CHANNELS, dtype=torch.float64, **options))
    u, upstream = maps(), maps()
    for training in (True, False):
        results = [gradients(module.train(training), u, upstream) for module in (plain, host)]
        torch.testing.assert_close(*results)


class Shifted(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input) + 1


def test_a_norm_that_computes_something_else_is_left_to_it():
    plain, host = pair("cbam", norm=Shifted(CHANNELS, dtype=torch.float64))
    assert not isinstance(host, Remembered)
    torch.testing.assert_close(*[gradients(module, maps() * 0 + 2, maps() * 0 + 1) for module in (plain, host)])


def test_hooks_see_maps_that_nothing_overwrites():
    plain, host = pair("cbam")
    u, seen = maps(), []
    host.attention.channel.register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], output]))
    plain.eval(), host.eval()
    x = plain.norm(u)
    for context in (torch.no_grad(), torch.enable_grad()):
        seen.clear()
        with context:
            host(u)
        torch.testing.assert_close(seen, [x, plain.layer.channel(x)])


def test_gradients_of_maps_that_a_hook_has_seen():
    plain, host = pair("cbam")
    u, results = maps().requires_grad_(), []
    for module, layer in ((plain, plain.layer), (host, host.attention)):
        seen = []
        layer.channel.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        y = module(u)
        results.append(torch.autograd.grad(y.square().sum(), [*seen, u]))
    torch.testing.assert_close(*results)


def test_hooks_on_gradients_within_the_attention():
    plain, host = pair("cbam")
    for layer in (plain.layer, host.attention):
        layer.channel.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 2,))
    u, upstream = maps(), maps()
    torch.testing.assert_close(gradients(plain, u, upstream), gradients(host, u, upstream))


def test_the_origin_stays_inside():
    _, host = pair("se")
    seen = []
    host.attention.register_forward_pre_hook(lambda module, inputs: seen.append(origin_of(inputs[0])))
    y = host(maps())
    assert seen[0] is not None
    assert origin_of(y) is None


class Careless(nn.Module):
    """Says that it only pools, but has a convolution that keeps the map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1, dtype=torch.float64)

    def forward(self, x):
        return weighted(x, torch.sigmoid(maximum(x, (2, 3), keepdim=True) + self.conv(x)), only_pooled=True)


def test_a_layer_that_keeps_what_it_gave_away_fails_instead_of_being_wrong():
    host = nn.BatchNorm2d(CHANNELS, dtype=torch.float64)
    attended.put(host, Careless())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        host(maps().requires_grad_()).sum().backward()


def test_one_value_per_channel_is_refused_in_training_as_before():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        pair("se")[1].train()(maps(size=(1, CHANNELS, 1, 1)))


def test_copies_pickles_and_the_way_back():
    _, host = pair("cbam")
    u = maps()
    for twin in (copy.deepcopy(host), pickle.loads(pickle.dumps(host))):
        assert torch.equal(twin.eval()(u), host.eval()(u))
        assert isinstance(twin, Remembered)
    attended.take(host)
    assert type(host) is nn.BatchNorm2d
    assert "attention" not in dict(host.named_modules())
