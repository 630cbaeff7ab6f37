"""Networks of streams by name: what is built, what its variant does, what is saved, begun from others, and refused."""

import re

import pytest
import torch
import torchvision
from torch import nn

import heedful
from heedful import InputError, ign1, parse
from heedful.gates import Opening
from heedful.models.build_streams import build_streams
from heedful.models.load_streams import load_streams
from heedful.models.named_streams import STREAMS, check_streams, streams_of
from heedful.models.streams import HCN
from heedful.models.two_stream import ConcatVectors, TwoStream
from heedful.surgery.gating import gates_of

SHAPES = {"skeleton": (3, 16, 5), "inertial": (2, 9), "depth": (1, 4, 12, 10), "video": (3, 4, 16, 16)}
PAIR = "hcn+inertial"
FUSIONS = ["late", "concat", "mmtm", "mmtm-ign1(0.5)"]
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


def made(model=PAIR, variant="mmtm", *, seed=0, **options):
    torch.manual_seed(seed)
    return build_streams(model, variant, **{"num_classes": 4, "shapes": SHAPES, **options}).eval()


def clips(*names, count=3):
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(count, *SHAPES[name], generator=generator) for name in names}


@pytest.mark.parametrize("name", STREAMS)
def test_each_network_is_built_alone_for_its_shape(name):
    stream = STREAMS[name].name
    model = made(name, "none")
    assert list(model.streams) == [stream]
    x = clips(stream)
    out = model(x)
    assert out.shape == (3, 4)
    assert torch.equal(out, model.streams[stream](x[stream]))
    assert tuple(model.streams[stream].input_shape) == SHAPES[stream]


def test_persons_may_stand_behind_the_joints():
    model = made("hcn", "none", shapes={"skeleton": (3, 16, 5, 2)})
    alone = made("hcn", "none")
    x = clips("skeleton")
    twice = {"skeleton": torch.stack([x["skeleton"]] * 2, -1)}
    torch.testing.assert_close(model(twice), alone(x))


@every_fusion
def test_several_are_fused_as_the_variant_says(fusion):
    model = made(variant=fusion)
    assert isinstance(model, TwoStream)
    assert list(model.streams) == ["skeleton", "inertial"]
    by_hand = TwoStream({name: made(network, "none").streams[name] for name, network in streams_of(PAIR).items()},
                        fusion=fusion).eval()  # fmt: skip
    by_hand.load_state_dict(model.state_dict())
    x = clips("skeleton", "inertial")
    assert torch.equal(model(x), by_hand(x))
    expected = {"mmtm": ["attend"] * 6, "mmtm-ign1(0.5)": ["ign1(0.5)"] * 6}
    assert [repr(gated.gate) for gated in gates_of(model)] == expected.get(fusion, [])


def test_the_same_seed_gives_every_variant_the_same_streams():
    states = [made(variant=fusion).streams.state_dict() for fusion in FUSIONS]
    shared = set(states[0]).intersection(*states)
    assert len(shared) > 30
    assert all(torch.equal(state[key], states[0][key]) for state in states for key in shared)
    other = made(seed=1).streams.state_dict()
    assert not torch.equal(other["skeleton.fc8.weight"], states[0]["skeleton.fc8.weight"])


def test_reduction_factor_and_drop_reach_the_network():
    model = made(reduction=8, factor=2.0, drop=0.25)
    assert [mmtm.squeeze.out_features for mmtm in model.mmtm] == [32, 64, 48]
    assert {each.factor for mmtm in model.mmtm for each in mmtm.excitations.values()} == {2.0}
    assert model.drop == 0.25


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_at_an_identity_start_mmtm_changes_nothing_and_can_learn(factor):
    model = made(variant="mmtm-ign1(0.5)", start="identity", factor=factor)
    late = made(variant="late")
    late.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("mmtm.")})
    x = clips("skeleton", "inertial")
    torch.testing.assert_close(model(x), late(x))
    gates = [gated.gate for gated in gates_of(model)]
    assert len(gates) == 6
    assert all(isinstance(gate, Opening) and gate.gate == ign1(0.5) for gate in gates)
    model(x).logsumexp(1).sum().backward()
    assert all(gate.opening.grad.abs() > 0 for gate in gates)
    paper = made(variant="mmtm-ign1(0.5)")
    assert not any(isinstance(gated.gate, Opening) for gated in gates_of(paper))
    assert (paper(x) - late(x)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("model", "variant", "start"),
    [("hcn", "none", "paper"), (PAIR, "concat", "paper"), (PAIR, "mmtm-ign1(0.5)", "identity"),
     ("inertial+hcn+depth", "mmtm-ign3", "paper")],
)  # fmt: skip
def test_it_is_saved_and_loaded(tmp_path, model, variant, start):
    network = made(model, variant, start=start, reduction=8)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(tmp_path)
    assert "pipeline_tag: video-classification" in (tmp_path / "README.md").read_text()
    loaded = heedful.load(tmp_path)
    x = clips(*network.streams)
    assert torch.equal(loaded(x), network(x))
    assert (loaded.card.model, loaded.card.variant, loaded.card.start) == (model, variant, start)
    assert {name: card.shape for name, card in loaded.card.streams.items()} == {
        name: SHAPES[name] for name in network.streams
    }


def test_pretrained_is_for_video(monkeypatch):
    trained = {}
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda *_, **__: trained.setdefault("r3d_18", torchvision.models.video.r3d_18().state_dict()),
    )
    model = made("hcn+r3d_18", "late", pretrained=True)
    state = model.streams.video.state_dict()
    assert all(torch.equal(state[key], value) for key, value in trained["r3d_18"].items() if not key.startswith("fc."))
    with pytest.raises(InputError, match=r"pretrained=True: there are no pretrained weights for hcn\+inertial"):
        made(pretrained=True)


def test_the_streams_of_a_text():
    assert streams_of("inertial+r3d_18") == {"inertial": "inertial", "video": "r3d_18"}
    for wrong, message in {
        "hnc": "model 'hnc': unknown network of a stream 'hnc': did you mean hcn",
        "hcn+": r"model 'hcn\+': unknown network of a stream ''",
        "hcn+hcn": r"model 'hcn\+hcn': hcn and hcn both see the skeleton: leave one out",
        "r3d_18+hcn+mc3_18": "r3d_18 and mc3_18 both see the video",
    }.items():
        with pytest.raises(InputError, match=message):
            streams_of(wrong)


@pytest.mark.parametrize(
    ("model", "variant", "message"),
    [
        (PAIR, "none", r"variant 'none': hcn\+inertial has several streams to be fused: write late, concat, mmtm"),
        (PAIR, "se", "variant 'se' goes into networks of images; clips take none, late, concat, mmtm"),
        (PAIR, "pay2-pc", "variant 'pay2-pc' goes into networks of images"),
        ("hcn", "mmtm-ign2", "variant 'mmtm-ign2': hcn is one stream, with nothing to fuse: write none"),
    ],
)
def test_a_variant_must_fit_the_number_of_streams(model, variant, message):
    with pytest.raises(InputError, match=message):
        check_streams(model, parse(variant))
    with pytest.raises(InputError, match=message):
        made(model, variant)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": {"skeleton": (3, 16, 5)}}, "inertial needs the stream 'inertial', but there is skeleton"),
        (
            {"shapes": {**SHAPES, "skeleton": (3, 16)}},
            r"'skeleton' is \(3, 16\), but for hcn it must be \(coordinates,",
        ),
        ({"shapes": {**SHAPES, "inertial": (2, 9, 1)}}, r"'inertial' is \(2, 9, 1\), .* \(channels, samples\)"),
        ({"shapes": {**SHAPES, "inertial": (2, 0)}}, r"'inertial' is \(2, 0\)"),
        ({"shapes": {**SHAPES, "skeleton": (3, 8, 5)}}, "num_frames is 8"),
        ({"start": "warm"}, "start is 'warm', but it must be identity or paper"),
        ({"drop": 2.0}, "drop is 2.0"),
        ({"factor": 0.0}, "factor is 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        made(**options)


def test_video_has_three_colours():
    with pytest.raises(InputError, match=r"'video' is \(1, 4, 16, 16\), but r3d_18 takes 3 colours"):
        made("r3d_18", "none", shapes={"video": (1, 4, 16, 16)})


def test_one_stream_takes_its_own_alone():
    model = made("hcn", "none")
    x = clips("skeleton", "inertial")
    with pytest.raises(InputError, match="unknown stream 'inertial'"):
        model(x)
    for inputs in ({}, {"skeleton": None}):
        with pytest.raises(InputError, match="stream 'skeleton' is absent, but the network has no other"):
            model(inputs)


def test_networks_of_images_are_not_fused():
    message = r"variant 'mmtm' fuses networks of several streams, but cifar_resnet8 sees images alone: build_streams"
    with pytest.raises(InputError, match=message):
        heedful.build("cifar_resnet8", "mmtm", num_classes=3)
    with pytest.raises(InputError, match=message):
        heedful.models.check("cifar_resnet8", parse("mmtm"))
    for model in ("hcn", "hcn+inertial"):
        with pytest.raises(
            InputError, match=f"model '{re.escape(model)}' takes clips, not images: build_streams makes"
        ):
            heedful.build(model, "none", num_classes=3)


@every_fusion
def test_a_fusion_begins_from_networks_that_were_trained_alone(fusion):
    alone = {"skeleton": made("hcn", "none", seed=5), "inertial": made("inertial", "none", seed=6)}
    model = made(variant=fusion)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_streams(model, {name: network.state_dict() for name, network in alone.items()})
    for key, value in model.state_dict().items():
        stream = key.split(".")[1]
        expected = alone[stream].state_dict()[key] if key.startswith("streams.") else before[key]
        assert torch.equal(value, expected), key
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if fusion == "late":
        x = clips("skeleton", "inertial")
        expected = sum(network({name: x[name]}) for name, network in alone.items()) / 2
        torch.testing.assert_close(model(x), expected)
    if fusion == "concat":
        assert isinstance(model.head, ConcatVectors)
        assert "streams.skeleton.fc8.weight" not in model.state_dict()


def test_one_stream_may_be_taken_out_of_a_fusion():
    fused, model = made(seed=7), made(variant="late")
    before = model.streams.inertial.fc.weight.clone()
    load_streams(model, {"skeleton": fused.state_dict()})
    assert torch.equal(model.streams.skeleton.fc8.weight, fused.streams.skeleton.fc8.weight)
    assert torch.equal(model.streams.inertial.fc.weight, before)


def test_weights_that_do_not_fit_change_nothing():
    model = made(variant="late")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    good = made("hcn", "none", seed=5).state_dict()
    fewer = made("inertial", "none", num_classes=3).state_dict()
    short = {key: value for key, value in good.items() if "conv5" not in key}
    extra = {**good, "streams.skeleton.fc9.weight": torch.zeros(2)}
    bare = HCN(num_classes=4, num_joints=5, num_frames=16).state_dict()
    for trained, message in [
        (
            {"skeleton": good, "inertial": fewer},
            r"stream 'inertial': streams.inertial.fc.weight is \(4, 128\) in the net",
        ),
        ({"skeleton": short}, r"streams.skeleton.conv5.each.0.weight is \(128, 128, 3, 3\) .* nothing in the weights"),
        (
            {"skeleton": extra},
            r"streams.skeleton.fc9.weight is nothing in the network, \(2,\) in the weights \(1 differ",
        ),
        ({"skeleton": bare}, r"nothing in the weights \(24 differ\): give the state dict of the same network"),
        ({"skeleton": good, "depth": good}, "unknown stream 'depth'"),
    ]:
        with pytest.raises(InputError, match=message):
            load_streams(model, trained)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
