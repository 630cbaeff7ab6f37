"""TwoStream around networks: what each fusion computes, what absent streams do, what is refused."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

from heedful import InputError, attach, attend, audit, ign1, ign2, ign3, record, set_gate
from heedful.evaluate.cost import num_parameters
from heedful.layers.mmtm import MMTM
from heedful.models.streams import HCN, ClipNetwork, InertialNetwork
from heedful.models.two_stream import TwoStream, all_but_one
from heedful.surgery.gating import gates_of
from tests.surgery.networks import Branching, Residual

AT = [{"skeleton": "conv5", "inertial": "layer2"}, {"skeleton": "fc7", "inertial": "layer3"}]
FUSIONS = ["mmtm", "mmtm-ign1(0.5)", "late", "concat"]
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


def streams(*names, num_classes=4):
    torch.manual_seed(0)
    made = {
        "skeleton": HCN(num_classes=num_classes, num_joints=5, num_frames=16, dropout=0.0),
        "inertial": InertialNetwork(num_classes=num_classes, in_channels=2, num_samples=9),
        "depth": ClipNetwork(num_classes=num_classes, num_frames=4, height=12, width=10, channels=4),
    }
    return {name: made[name] for name in names or ("skeleton", "inertial")}


def network(fusion="mmtm", *names, **options):
    at = None if len(names) == 3 else AT
    return TwoStream(streams(*names), **{"fusion": fusion, "at": at, **options}).double().eval()


def clips(model, number=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(number, *stream.input_shape, dtype=torch.float64, generator=generator)
        for name, stream in model.streams.items()
    }


def by_hand(model, x):
    """Return the logits of both streams, with MMTM between the parts of each network."""
    skeleton, inertial = model.streams.values()
    people = skeleton.persons(x["skeleton"])
    s = skeleton.conv5(torch.cat([skeleton.position(people), skeleton.motion(people)], 1))
    s, i = model.mmtm[0]([s, inertial.layer2(inertial.layer1(x["inertial"]))])
    s, i = model.mmtm[1]([skeleton.fc7(skeleton.conv6(s).amax(2).flatten(1)), inertial.layer3(i)])
    return skeleton.fc8(s), inertial.fc(i.mean(2))


@pytest.mark.parametrize("gate", [attend, ign1(0.5), ign2, ign3], ids=repr)
def test_mmtm_stands_at_the_depths_and_the_mean_of_the_logits_counts(gate):
    model = network("mmtm" if gate == attend else f"mmtm-{gate!r}")
    x = clips(model)
    assert all(gated.gate == gate for gated in gates_of(model))
    logits = by_hand(model, x)
    torch.testing.assert_close(model(x), (logits[0] + logits[1]) / 2)
    model(x).square().sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    logits = by_hand(model, x)
    ((logits[0] + logits[1]) / 2).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
        assert found[name].abs().max() > 0, name


def test_late_is_the_mean_of_what_the_networks_say():
    model = network("late")
    x = clips(model)
    expected = (model.streams.skeleton(x["skeleton"]) + model.streams.inertial(x["inertial"])) / 2
    torch.testing.assert_close(model(x), expected)
    assert len(model.mmtm) == 0
    assert num_parameters(model) == sum(map(num_parameters, streams().values()))


def test_concat_is_one_linear_map_of_both_vectors():
    model = network("concat")
    x = clips(model)
    before = {name: stream.double().eval() for name, stream in streams().items()}
    vectors = []
    for name, last in (("skeleton", "fc8"), ("inertial", "fc")):
        setattr(before[name], last, nn.Identity())
        vectors.append(before[name](x[name]))
    expected = torch.cat(vectors, 1) @ model.head.linear.weight.T + model.head.linear.bias
    torch.testing.assert_close(model(x), expected)


def test_three_streams_meet_at_their_own_levels_the_deepest_with_the_deepest():
    model = network("mmtm", "skeleton", "inertial", "depth")
    assert model.at == [
        {"skeleton": "conv5", "inertial": "layer1", "depth": "layer2"},
        {"skeleton": "conv6", "inertial": "layer2", "depth": "layer3"},
        {"skeleton": "fc7", "inertial": "layer3", "depth": "layer4"},
    ]
    assert [mmtm.channels for mmtm in model.mmtm] == [(128, 128, 8), (256, 256, 16), (256, 128, 32)]
    x = clips(model)
    assert model(x).shape == (3, 4)
    changed = model({**x, "depth": x["depth"] + 1})
    assert (changed - model(x)).abs().amax(1).min() > 1e-8


def test_some_depths_may_be_for_some_streams():
    at = [{"inertial": "layer1", "skeleton": "conv5"}, {"inertial": "layer3", "depth": "layer1"}]
    model = network("mmtm", "skeleton", "inertial", "depth", at=at)
    x = clips(model)
    skeleton, inertial, depth = model.streams.values()
    people = skeleton.persons(x["skeleton"])
    s = skeleton.conv5(torch.cat([skeleton.position(people), skeleton.motion(people)], 1))
    s, i = model.mmtm[0]([s, inertial.layer1(x["inertial"])])
    i, d = model.mmtm[1]([inertial.layer3(inertial.layer2(i)), depth.layer1(x["depth"])])
    logits = skeleton.fc8(skeleton.fc7(skeleton.conv6(s).amax(2).flatten(1))), inertial.fc(i.mean(2))
    of_depth = depth.fc(depth.layer4(depth.layer3(depth.layer2(d))).mean((2, 3, 4)))
    torch.testing.assert_close(model(x), (logits[0] + logits[1] + of_depth) / 3)


@every_fusion
def test_the_order_of_the_inputs_does_not_matter(fusion):
    model = network(fusion)
    x = clips(model)
    assert torch.equal(model(x), model(dict(reversed(x.items()))))


@every_fusion
@pytest.mark.parametrize("missing", ["skeleton", "inertial"])
def test_an_absent_stream_is_the_same_for_a_batch_and_for_each_of_its_elements(fusion, missing):
    model = network(fusion)
    x = clips(model)
    alone = model({name: each for name, each in x.items() if name != missing})
    assert torch.equal(alone, model({**x, missing: None}))
    here = torch.tensor([True, False, True])
    mixed = model(x, {missing: here})
    torch.testing.assert_close(mixed[1], alone[1])
    torch.testing.assert_close(mixed[[0, 2]], model(x)[[0, 2]])
    assert (alone - model(x)).abs().min() > 1e-6
    x[missing][1] = torch.nan
    torch.testing.assert_close(model(x, {missing: here}), mixed)


def test_without_the_other_the_logits_are_those_of_one_stream():
    model = network("late")
    x = clips(model)
    torch.testing.assert_close(model({"inertial": x["inertial"]}), model.streams.inertial(x["inertial"]))


@every_fusion
def test_drop_takes_one_stream_away_in_training_alone(fusion):
    model = network(fusion, drop=1.0)
    x = clips(model, number=40)
    alone = [model({name: each}) for name, each in x.items()]
    assert torch.equal(model(x), network(fusion)(x))
    model.train()
    for module in model.modules():  # their batch's statistics would tell the elements from those alone
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    out = model(x)
    kept = torch.stack([(out - each).abs().amax(1) < 1e-9 for each in alone])
    assert (kept.sum(0) == 1).all()
    assert 8 < kept[0].sum() < 32
    given = {"skeleton": torch.ones(40, dtype=torch.bool)}
    torch.testing.assert_close(model(x, given), model.eval()(x))


def test_of_all_elements_the_share_loses_one_stream_each_as_likely():
    kept = all_but_one(3, 9000, 0.3)
    assert (kept.sum(0) >= 2).all()
    lost = 1 - kept.double().mean(1)
    assert (lost - 0.1).abs().max() < 0.015
    assert all_but_one(2, 50, 0.0).all()
    assert (all_but_one(2, 50, 1.0).sum(0) == 1).all()


def test_gates_are_found_recorded_and_exchanged_by_depth_and_stream():
    model = network("mmtm-ign1(0.5)")
    x = clips(model)
    names = [f"mmtm.{depth}.excitations.{name}" for depth in (0, 1) for name in ("skeleton", "inertial")]
    assert [gated.name for gated in gates_of(model)] == names
    with record(model) as masks, torch.no_grad():
        model(x)
    assert {name: tuple(masks[name].shape) for name in masks.names()} == dict(
        zip(names, [(3, 128), (3, 256), (3, 256), (3, 128)], strict=True)
    )
    assert all(masks[name].min() > 0.5 and masks[name].max() < 1 for name in names)
    assert [row.num_calls for row in audit(model, x)] == [1] * 4
    assert set_gate(model, ign2, example=x) == 4
    assert {repr(gated.gate) for gated in gates_of(model)} == {"ign2"}


def test_reduction_and_factor_reach_every_mmtm():
    model = network("mmtm", reduction=8, factor=2.0)
    assert [mmtm.squeeze.out_features for mmtm in model.mmtm] == [48, 48]
    assert {each.factor for mmtm in model.mmtm for each in mmtm.excitations.values()} == {2.0}
    at_neutral = network("mmtm", factor=2.0)
    for mmtm in at_neutral.mmtm:
        for each in mmtm.excitations.values():
            each.expand.weight.data.zero_()
            each.expand.bias.data.zero_()
    x = clips(model)
    torch.testing.assert_close(at_neutral(x), network("late")(x))  # 2 σ(0) = 1


@every_fusion
def test_it_is_copied_saved_and_pickled(fusion):
    model = network(fusion)
    x = clips(model)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
    other = network(fusion)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), expected)


def test_networks_of_timm_and_of_ones_own_are_fused_with_examples():
    rgb, grey = timm.create_model("resnet18", num_classes=3), Residual()
    attach(grey, "se", example=torch.zeros(1, 1, 16, 16))
    at = [{"rgb": "layer2.1", "grey": "stage1"}, {"rgb": "layer4", "grey": "stage2"}]
    model = TwoStream({"rgb": rgb, "grey": grey}, fusion="mmtm-ign3", at=at)
    x = {"rgb": torch.randn(2, 3, 32, 32), "grey": torch.randn(2, 1, 12, 12)}
    model(x).logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert [mmtm.channels for mmtm in model.mmtm] == [(128, 8), (512, 16)]
    text = nn.Sequential(nn.Conv1d(2, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(InputError, match="stream 'text': it has no input_shape and takes no image: give examples="):
        TwoStream({"text": text, "grey": Residual()}, fusion="late")
    both = TwoStream({"text": text, "grey": Residual()}, fusion="concat", examples={"text": torch.zeros(1, 2, 5)})
    assert both({"text": torch.randn(3, 2, 7), "grey": torch.randn(3, 1, 8, 8)}).shape == (3, 3)


def test_any_network_is_fused_late_and_one_that_cannot_be_stopped_says_so():
    class Grey(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.fc = Branching(), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.inner(x).mean((2, 3)))

    made = {"a": Grey(), "b": Residual()}
    assert TwoStream(made, fusion="late")({"a": torch.randn(2, 3, 8, 8), "b": torch.randn(2, 1, 8, 8)}).shape == (2, 3)
    TwoStream(made, at=[{"a": "inner", "b": "stage1"}])
    with pytest.raises(InputError, match="stream 'a': the network cannot be stopped inside Branching"):
        TwoStream(made, at=[{"a": "inner.conv1", "b": "stage1"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "mean"}, "unknown fusion 'mean'"),
        ({"fusion": "mmtm-ing2"}, "variant 'mmtm-ing2': unknown gate 'ing2': did you mean ign2"),
        ({"fusion": "mmtm-ign1"}, "variant 'mmtm-ign1': the gate ign1 needs its number"),
        ({"fusion": "mmtm-ign2+se"}, r"unknown fusion 'mmtm-ign2\+se'"),
        ({"fusion": "se"}, "unknown fusion 'se': did you mean|unknown fusion 'se': choose one of late, concat, mmtm"),
        ({"fusion": "late-ign2"}, "late has no gate; write late, or mmtm-ign2"),
        ({"drop": 1.5}, r"drop is 1.5, but it must be in \[0, 1\]"),
        ({"reduction": 0}, "reduction=0"),
        ({"factor": -1.0}, "factor is -1.0"),
        ({"at": []}, "must have one depth or more"),
        ({"at": [{"skeleton": "conv5"}]}, "a layer of two streams or more"),
        ({"at": [{"skeleton": "conv5", "inertia": "layer1"}]}, "at: unknown stream 'inertia': did you mean inertial"),
        ({"at": [{"skeleton": "conf5", "inertial": "layer1"}]}, "stream 'skeleton': unknown layer 'conf5': did you"),
        ({"at": AT[::-1]}, "the layers are fc7, conv5, but a pass comes by conv5, fc7: name each once"),
        ({"at": [AT[0], AT[0]]}, "the layers are conv5, conv5, but a pass comes by conv5: name each once"),
        ({"examples": {"rgb": None}}, "examples: unknown stream 'rgb'"),
    ],
)
def test_bad_arguments_are_refused_and_leave_the_streams_as_they_were(options, message):
    made = streams()
    with pytest.raises(InputError, match=message):
        TwoStream(made, **{"at": AT, **options})
    assert isinstance(made["skeleton"].fc8, nn.Linear)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"a": Residual()}, "there are 1 streams, but it takes two or more"),
        ({"a.b": Residual(), "c": Residual()}, "a stream cannot be called 'a.b'"),
        ({"keys": Residual(), "c": Residual()}, "a stream cannot be called 'keys'"),
        ({**streams("inertial", num_classes=4), **streams("depth", num_classes=5)}, "inertial 4, depth 5"),
        ({"a": nn.Conv2d(1, 3, 1), "b": Residual()}, "stream 'a': the network does not put out logits"),
    ],
    ids=["one", "dot", "keys", "classes", "maps"],
)
def test_streams_that_cannot_be_fused_are_refused(made, message):
    with pytest.raises(InputError, match=message):
        TwoStream(made, fusion="late")


def test_without_levels_of_their_own_the_depths_must_be_said():
    with pytest.raises(InputError, match="only networks with `levels` of their own need none"):
        TwoStream({"a": Residual(), "b": Residual()})


def test_a_stream_that_does_not_end_in_a_linear_map_cannot_be_concatenated():
    made = {"a": nn.Sequential(Residual(), nn.ReLU()), "b": Residual()}
    with pytest.raises(InputError, match="it must end in a linear map"):
        TwoStream(made, fusion="concat")
    assert isinstance(made["b"].head, nn.Linear)


def test_inputs_that_do_not_fit_are_refused():
    model = network()
    x = clips(model)
    with pytest.raises(InputError, match="unknown stream 'skelton': did you mean skeleton"):
        model({"skelton": x["skeleton"]})
    with pytest.raises(InputError, match="one size, one stream at least, but are: skeleton 3, inertial 2"):
        model({**x, "inertial": x["inertial"][:2]})
    with pytest.raises(InputError, match="one stream at least, but are: none"):
        model({"skeleton": None})
    with pytest.raises(InputError, match=r"present has 'inertial' of shape \(2,\)"):
        model(x, {"inertial": torch.tensor([True, True])})
    with pytest.raises(InputError, match="present has 'rgb'"):
        model(x, {"rgb": torch.tensor([True] * 3)})
    with pytest.raises(InputError, match="an element of the batch has no stream"):
        model({"skeleton": x["skeleton"]}, {"skeleton": torch.tensor([True, False, True])})


def test_it_learns_what_neither_stream_knows_alone():
    torch.manual_seed(0)
    model = TwoStream(streams("inertial", "depth", num_classes=2), fusion="mmtm-ign1(0.5)")
    bits = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(8, 1)
    labels = bits[:, 0] ^ bits[:, 1]
    sign = (2.0 * bits - 1).T
    x = {
        "inertial": sign[0][:, None, None] + 0.1 * torch.randn(32, 2, 9),
        "depth": sign[1][:, None, None, None, None] + 0.1 * torch.randn(32, 1, 4, 12, 10),
    }
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (model(x).argmax(1) == labels).float().mean() > 0.95
    assert isinstance(model.mmtm[0], MMTM)
