"""Networks of one stream: their papers' shapes, what they see, and what they refuse."""

import pytest
import torch
import torchvision
from torch import nn

from heedful import InputError
from heedful.evaluate.cost import num_parameters
from heedful.models.streams import HCN, ClipNetwork, InertialNetwork, Motion, video_resnet
from heedful.surgery.dry_run import outputs
from heedful.surgery.stages import own_levels

NETWORKS = {
    "skeleton": (lambda: HCN(num_classes=5, num_joints=6, num_frames=16), [(128, 1, 2, 4), (256, 1, 1, 2), (256,)]),
    "inertial": (lambda: InertialNetwork(num_classes=5, num_samples=20), [(128, 20), (256, 20), (128, 20)]),
    "depth": (
        lambda: ClipNetwork(num_classes=5, num_frames=6, height=20, width=30, channels=4),
        [(4, 6, 10, 15), (8, 3, 5, 8), (16, 2, 3, 4), (32, 1, 2, 2)],
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def clips(network, number=2):
    return torch.randn(number, *network.input_shape, generator=torch.Generator().manual_seed(1))


@every_network
def test_the_levels_are_where_it_says_and_the_last_linear_map_ends_it(name):
    make, shapes = NETWORKS[name]
    network = make()
    found = outputs(network, [*network.levels, ""], torch.empty(1, *network.input_shape, device="meta"))
    assert [tuple(found[level][0].shape[1:]) for level in network.levels] == shapes
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    ended = []
    linears[-1].register_forward_hook(lambda _m, _i, out: ended.append(out))
    assert network(clips(network)) is ended[0]
    assert ended[0].shape == (2, 5)


@every_network
def test_each_clip_is_classified_by_itself_and_every_weight_learns(name):
    network = NETWORKS[name][0]().double()
    x = clips(network, 3).double()
    network(x).logsumexp(1).sum().backward()
    gradients = {key: parameter.grad.abs().max() for key, parameter in network.named_parameters()}
    assert all(gradient > 0 for key, gradient in gradients.items()), gradients
    network.eval()
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]))


@every_network
def test_it_learns_to_tell_two_clips_apart(name):
    torch.manual_seed(0)
    network = NETWORKS[name][0]()
    x, labels = clips(network), torch.tensor([0, 1])
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (network.eval()(x).argmax(1) == labels).all()


def test_hcn_is_that_of_its_paper():
    network = HCN(num_classes=60, num_joints=25)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    branch = [((1, 1), 3, 64), ((3, 1), 64, 32), ((3, 3), 25, 32), ((3, 3), 32, 64)]
    expected = [*branch, *branch, ((3, 3), 128, 128), ((3, 3), 128, 256)]
    assert [(c.kernel_size, c.in_channels, c.out_channels) for c in convolutions] == expected
    linears = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    assert linears == [(256 * 2 * 2, 256), (256, 60)]
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5] * 5
    assert num_parameters(network) == sum(
        outputs * (inputs * k[0] * k[1] + 1) for k, inputs, outputs in expected
    ) + 257 * 60 + 1025 * 256  # fmt: skip


def test_hcn_by_hand_is_the_same():
    network = HCN(num_classes=3, num_joints=5, num_frames=16).eval()
    x = torch.randn(2, 3, 16, 5)
    motion = nn.functional.interpolate(x[:, :, 1:] - x[:, :, :-1], size=(16, 5), mode="bilinear")
    branches = []
    for seen, branch in ((x, network.position), (motion, network.motion)):
        convolutions = [m for m in branch.modules() if isinstance(m, nn.Conv2d)]
        points = convolutions[1](torch.relu(convolutions[0](seen)))
        joints = nn.functional.max_pool2d(convolutions[2](points.permute(0, 3, 2, 1)), 2)
        branches.append(nn.functional.max_pool2d(convolutions[3](joints), 2))
    features = torch.cat(branches, 1)
    for level in (network.conv5, network.conv6):
        features = nn.functional.max_pool2d(torch.relu(level.each[0](features)), 2)
    expected = network.fc8(torch.relu(network.fc7[0](features.flatten(1))))
    torch.testing.assert_close(network(x), expected)


def test_motion_of_an_even_movement_is_its_speed_everywhere():
    time = torch.arange(16.0)[None, None, :, None]
    speed = torch.tensor([0.5, -2.0, 0.0])[None, :, None, None]
    moved = Motion()(time * speed + torch.randn(1, 3, 1, 4))
    torch.testing.assert_close(moved, speed.expand(1, 3, 16, 4), atol=1e-5, rtol=0)


def test_persons_share_weights_and_their_order_does_not_matter():
    network = HCN(num_classes=3, num_joints=5, num_frames=16).eval()
    x = torch.randn(2, 3, 16, 5, 2)
    torch.testing.assert_close(network(x), network(x.flip(4)))
    torch.testing.assert_close(network(x[..., :1].expand(-1, -1, -1, -1, 3)), network(x[..., 0]))
    apart = [
        network.conv6(network.conv5(torch.cat([network.position(p), network.motion(p)], 1)))
        for p in x.split(1, 4)
        for p in [p.movedim(4, 2)]
    ]
    expected = network.fc8(network.fc7(torch.maximum(*apart).flatten(1)))
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("shape", [(2, 3, 20, 5), (2, 3, 16, 6), (2, 2, 16, 5), (2, 3, 16)])
def test_skeletons_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"the network takes \('N', 3, 16, 5\)"):
        HCN(num_classes=3, num_joints=5, num_frames=16).persons(torch.randn(shape))
    with pytest.raises(InputError, match="num_frames is 8"):
        HCN(num_classes=3, num_frames=8)


@pytest.mark.parametrize("samples", [1, 9, 40])
def test_inertial_clips_may_have_any_length(samples):
    network = InertialNetwork(num_classes=3, in_channels=2).eval()
    x = torch.randn(2, 2, samples)
    assert network.layer3(network.layer2(network.layer1(x))).shape == (2, 128, samples)
    assert network(x).shape == (2, 3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 13, 9), (12, 60, 80)])
def test_depth_clips_may_have_any_size(shape):
    assert ClipNetwork(num_classes=3, channels=2).eval()(torch.randn(2, 1, *shape)).shape == (2, 3)


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_video_networks_are_torchvisions_with_another_last_map(name):
    with torch.device("meta"):
        network = video_resnet(name, num_classes=7)
        plain = getattr(torchvision.models.video, name)()
    assert num_parameters(network) == num_parameters(plain) - 513 * 400 + 513 * 7
    assert own_levels(network) == ("layer1", "layer2", "layer3", "layer4")
    found = outputs(network, [*network.levels, ""], torch.empty(1, *network.input_shape, device="meta"))
    assert [found[level][0].shape[1] for level in network.levels] == [64, 128, 256, 512]
    assert found[""][0].shape == (1, 7)


def test_pretrained_video_networks_keep_all_but_the_last_map(monkeypatch):
    trained = torchvision.models.video.r3d_18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: trained)
    network = video_resnet("r3d_18", num_classes=7, pretrained=True)
    for key, value in network.state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, trained[key])
    assert network.fc.out_features == 7


def test_an_unknown_video_network_is_refused():
    with pytest.raises(InputError, match="unknown video network 'r3d_81': did you mean r3d_18"):
        video_resnet("r3d_81", num_classes=3)
