"""MMTM x gates x numbers of streams x ranks: its equations in loops, and what it does with an absent stream."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from heedful import InputError, attend, audit, bypass, ign1, ign2, ign3, record, set_gate
from heedful.layers.mmtm import MMTM
from heedful.surgery.gating import gates_of
from tests.references import attention, mmtm

GATES = {
    attend: attention.attend,
    ign1(1): attention.ign1(1),
    ign1(0.5): attention.ign1(0.5),
    ign2: attention.ign2,
    ign3: attention.ign3,
}
SHAPES = {
    "two streams of rank 2 and 1": [(3, 6, 4, 5), (3, 4, 7)],
    "two streams of rank 3 and 0": [(3, 4, 2, 3, 2), (3, 6)],
    "three streams of rank 1, 2 and 3": [(2, 3, 5), (2, 5, 4, 3), (2, 4, 2, 3, 2)],
}
every_gate = pytest.mark.parametrize("gate", GATES, ids=repr)
every_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)


def layer_for(shapes, **options):
    torch.manual_seed(1)
    return MMTM([shape[1] for shape in shapes], **{"reduction": 2, **options}).double()


def streams_of(shapes, seed=2, **options):
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    return [each.requires_grad_(**options) if options else each for each in drawn]


def numbers(*tensors):
    return tuple(tensor.detach().numpy() for tensor in tensors)


def parameters_of(layer):
    expands = [numbers(each.expand.weight, each.expand.bias) for each in layer.excitations.values()]
    return numbers(layer.squeeze.weight, layer.squeeze.bias), expands


def assert_near(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-10, atol=1e-13)


@every_gate
@every_shape
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_values_and_gradients_are_those_of_the_equations(shapes, gate, factor):
    layer, streams = layer_for(shapes, gate=gate, factor=factor), streams_of(shapes, requires_grad=True)
    weights = streams_of(shapes, seed=3)
    slow = (numbers(*streams), *parameters_of(layer), GATES[gate])
    outs = layer(streams)
    for out, expected in zip(outs, mmtm.forward(*slow, factor), strict=True):
        assert_near(out, expected)
    sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True)).backward()
    of_streams, of_squeeze, of_expands = mmtm.backward(*slow, numbers(*weights), factor)
    for stream, expected in zip(streams, of_streams, strict=True):
        assert_near(stream.grad, expected)
    linears = [layer.squeeze, *(each.expand for each in layer.excitations.values())]
    for linear, (of_weight, of_bias) in zip(linears, [of_squeeze, *of_expands], strict=True):
        assert_near(linear.weight.grad, of_weight)
        assert_near(linear.bias.grad, of_bias)
    assert np.abs(of_squeeze[0]).max() > 1e-6


def test_the_reference_has_the_gradient_of_what_it_computes():
    shapes = SHAPES["two streams of rank 2 and 1"]
    layer, streams, weights = layer_for(shapes), numbers(*streams_of(shapes)), numbers(*streams_of(shapes, seed=3))
    squeeze, expands = parameters_of(layer)
    slow = squeeze, expands, attention.attend

    def total():
        return sum((y * w).sum() for y, w in zip(mmtm.forward(streams, *slow), weights, strict=True))

    of_streams, of_squeeze, of_expands = mmtm.backward(streams, *slow, weights)
    for array, gradient in [
        (streams[1], of_streams[1]),
        (squeeze[0], of_squeeze[0]),
        (expands[0][0], of_expands[0][0]),
    ]:
        place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        before = array[place]
        sides = []
        for step in (1e-6, -1e-6):
            array[place] = before + step
            sides.append(total())
        array[place] = before
        assert abs((sides[0] - sides[1]) / 2e-6 - gradient[place]) < 1e-7 < abs(gradient[place])


def test_with_factor_2_and_attend_it_is_the_form_of_the_mmtm_authors():
    shapes = SHAPES["two streams of rank 2 and 1"]
    layer, (visual, skeleton) = layer_for(shapes, factor=2), streams_of(shapes)
    squeezed = torch.cat([visual.flatten(2).mean(2), skeleton.mean(2)], 1)
    joint = nn.functional.relu(nn.functional.linear(squeezed, layer.squeeze.weight, layer.squeeze.bias))
    of_visual, of_skeleton = (each.expand(joint) for each in layer.excitations.values())
    outs = layer([visual, skeleton])
    torch.testing.assert_close(outs[0], visual * (2 * torch.sigmoid(of_visual))[:, :, None, None])
    torch.testing.assert_close(outs[1], skeleton * (2 * torch.sigmoid(of_skeleton))[:, :, None])


@every_shape
def test_permuting_the_streams_permutes_the_outputs(shapes):
    layer, streams = layer_for(shapes), streams_of(shapes)
    outs = layer(streams)
    columns = torch.arange(sum(layer.channels)).split(layer.channels)
    for order in itertools.permutations(range(len(shapes))):
        other = layer_for([shapes[k] for k in order])
        other.squeeze.weight.data = layer.squeeze.weight.data[:, torch.cat([columns[k] for k in order])]
        other.squeeze.bias.data = layer.squeeze.bias.data
        for here, there in enumerate(order):
            other.excitations[str(here)].load_state_dict(layer.excitations[str(there)].state_dict())
        permuted = other([streams[k] for k in order])
        for here, there in enumerate(order):
            torch.testing.assert_close(permuted[here], outs[there])


def test_each_stream_is_weighted_by_what_the_others_say():
    shapes = SHAPES["three streams of rank 1, 2 and 3"]
    layer, streams = layer_for(shapes), streams_of(shapes)
    masks = layer.masks(streams)
    changed = layer.masks([streams[0], streams[1] + 1, streams[2]])
    assert all((before - after).abs().max() > 1e-3 for before, after in zip(masks, changed, strict=True))
    shuffled = [streams[0].flip(2), *streams[1:]]  # the places of a mean do not matter
    for before, after in zip(masks, layer.masks(shuffled), strict=True):
        torch.testing.assert_close(before, after)


@every_gate
def test_the_masks_are_what_the_streams_are_multiplied_by(gate):
    shapes = SHAPES["two streams of rank 2 and 1"]
    layer, streams = layer_for(shapes, gate=gate), streams_of(shapes)
    low, high = {attend: (0, 1), ign1(0.5): (0.5, 1), ign2: (0.73, 1)}.get(gate, (0, 1))
    for stream, mask, out in zip(streams, layer.masks(streams), layer(streams), strict=True):
        assert low < mask.min()
        assert mask.max() < high
        torch.testing.assert_close(out, stream * mask.reshape(*mask.shape, *[1] * (stream.ndim - 2)))


@every_gate
def test_an_absent_stream_has_the_mean_0(gate):
    shapes = SHAPES["three streams of rank 1, 2 and 3"]
    layer, streams = layer_for(shapes, gate=gate), streams_of(shapes)
    outs = layer([streams[0], None, streams[2]])
    assert outs[1] is None
    expected = mmtm.forward(numbers(*streams), *parameters_of(layer), GATES[gate], absent={(0, 1), (1, 1)})
    for k in (0, 2):
        assert_near(outs[k], expected[k])
    assert layer.masks([streams[0], None, streams[2]])[1] is None


def test_a_stream_that_some_elements_lack_reaches_no_other_there():
    shapes = SHAPES["two streams of rank 2 and 1"]
    layer, streams = layer_for(shapes), streams_of(shapes)
    present = [torch.tensor([True, True, False]), torch.tensor([True, False, True])]
    expected = mmtm.forward(numbers(*streams), *parameters_of(layer), attention.attend, absent={(2, 0), (1, 1)})
    for out, each in zip(layer(streams, present), expected, strict=True):
        assert_near(out, each)
    streams[1][1] = torch.nan
    alone = layer([streams[0], None])[0]
    torch.testing.assert_close(layer(streams, present)[0][1], alone[1])


def test_gates_are_found_exchanged_recorded_and_bypassed_by_the_names_of_the_streams():
    shapes = SHAPES["two streams of rank 2 and 1"]
    model, streams = layer_for(shapes, names=["rgb", "skeleton"], factor=2), streams_of(shapes)
    names = ["excitations.rgb", "excitations.skeleton"]
    assert [gated.name for gated in gates_of(model)] == names
    with record(model) as masks, torch.no_grad():
        model(streams)
    for name, expected in zip(names, model.masks(streams), strict=True):
        torch.testing.assert_close(masks[name], expected.float())
    assert [row.num_calls for row in audit(model, streams)] == [1, 1]
    with bypass(model):
        for stream, out in zip(streams, model(streams), strict=True):
            torch.testing.assert_close(out, stream, rtol=0, atol=0)
    assert set_gate(model, ign2, example=(streams,)) == 2
    assert all(mask.min() > 0.73 for mask in model.masks(streams))


def test_each_stream_has_its_own_alpha_where_it_is_learned():
    layer = MMTM([4, 6], gate=ign1("learned"))
    first, second = layer.excitations.values()
    assert first.gate is not second.gate
    sum(out.sum() for out in layer([torch.randn(2, 4), torch.randn(2, 6)])).backward()
    assert first.gate.logit_alpha.grad != 0


def test_the_joint_width_is_a_quarter_of_all_channels_and_1_at_least():
    assert MMTM([512, 128]).squeeze.out_features == 160
    assert MMTM([512, 128], reduction=2).squeeze.out_features == 320  # the authors' code, int(2 * 640 / 4)
    assert MMTM([1, 1]).squeeze.out_features == 1
    layer = pickle.loads(pickle.dumps(MMTM([8, 4], gate=ign1(0.5))))
    assert [each.gate for each in layer.excitations.values()] == [ign1(0.5)] * 2
    assert [each.factor for each in layer.excitations.values()] == [1, 1]


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        ([8], {}, "two streams or more"),
        ([8, 0], {}, "channels is 0"),
        ([8, 4], {"reduction": 0}, "reduction=0"),
        ([8, 4], {"factor": 0.0}, r"factor is 0.0, but it must be more than 0"),
        ([8, 4], {"names": ["a"]}, "each of the 2 streams must have its own"),
        ([8, 4], {"names": ["a", "a"]}, "each of the 2 streams must have its own"),
    ],
)
def test_bad_arguments_are_refused(channels, options, message):
    with pytest.raises(InputError, match=message):
        MMTM(channels, **options)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 8, 3), (3, 4)], r"\(2, 8, 3\), \(3, 4\), but they must have one batch size"),
        ([(2, 8, 3), (2, 5)], "8, 4 channels"),
        ([(2, 8, 3), (2,)], "8, 4 channels"),
        ([(2, 8, 3)], "1 streams of 1, but the layer takes 2"),
        ([None, None], "0 streams of 2"),
    ],
)
def test_streams_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(InputError, match=message):
        MMTM([8, 4]).joint([None if shape is None else torch.randn(shape) for shape in shapes])
