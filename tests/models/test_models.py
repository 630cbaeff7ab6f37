import pytest
import torch
from torch import nn

from heedful import CBAM, InputError, SqueezeExcitation, build, detach
from heedful.gates import ign2
from heedful.models import MODELS, image_size_of
from heedful.models.cifar_densenet import CifarDenseNet
from heedful.models.cifar_resnet import BasicBlock, CifarResNet


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def resnet_parameters(depth, num_classes):
    """Count from the definition: convolutions without bias, batch norms, two projections, one linear map."""
    blocks = (depth - 2) // 6
    total = 27 * 16 + 2 * 16
    width = 16
    for channels in (16, 32, 64):
        for block in range(blocks):
            inward = width if block == 0 else channels
            total += 9 * inward * channels + 9 * channels * channels + 4 * channels
            total += inward * channels if inward != channels else 0
        width = channels
    return total + 64 * num_classes + num_classes


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 50, 56, 110])
def test_resnet_has_the_parameters_of_its_definition(depth):
    assert num_parameters(build(f"cifar_resnet{depth}", num_classes=10)) == resnet_parameters(depth, 10)


def test_resnet50_is_the_0_76_million_network_of_the_paper():
    assert round(num_parameters(build("cifar_resnet50", num_classes=10)) / 1e6, 2) == 0.76


def test_resnet_computes_the_blocks_as_defined():
    model = build("cifar_resnet8", "se", num_classes=5).eval()
    x = torch.randn(2, 3, 16, 16)
    y = torch.relu(model.bn1(model.conv1(x)))
    for stage in (model.layer1, model.layer2, model.layer3):
        for block in stage:
            branch = nn.BatchNorm2d.forward(block.bn2, block.conv2(torch.relu(block.bn1(block.conv1(y)))))
            y = torch.relu(block.shortcut(y) + branch * block.bn2.attention.mask(branch))
    torch.testing.assert_close(model(x), model.fc(nn.AdaptiveAvgPool2d(1)(y).flatten(1)))
    assert y.shape == (2, 64, 4, 4)


@pytest.mark.parametrize(("variant", "kind"), [("se", SqueezeExcitation), ("cbam-ign2", CBAM)])
def test_resnet_has_attention_in_every_block_of_the_right_width(variant, kind):
    model = build("cifar_resnet20", variant, num_classes=5)
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 9
    for block in blocks:
        assert isinstance(block.bn2.attention, kind)
        assert next(block.bn2.attention.parameters()).shape[1] == block.conv2.out_channels


def test_densenet_grows_by_12_in_6_bottlenecked_layers_a_block_without_compression():
    model = build("cifar_densenet40", "cbam-ign2", num_classes=10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (7, 7)]
    assert len(convolutions) + 1 == 40  # with the linear map
    assert [m.out_channels for m in convolutions if m.kernel_size == (3, 3)] == [24] + 18 * [12]
    assert {m.out_channels for m in convolutions if m.kernel_size == (1, 1)} == {48, 96, 168}
    assert model.fc.in_features == 24 + 18 * 12


def test_densenet_has_attention_after_each_block_and_each_transitions_pooling():
    model = build("cifar_densenet40", "se", num_classes=10)
    found = {name: m.mlp[0].in_features for name, m in model.named_modules() if isinstance(m, SqueezeExcitation)}
    assert found == {
        "block1.attention": 96,
        "transition1.attention": 96,
        "block2.attention": 168,
        "transition2.attention": 168,
        "block3.attention": 240,
    }
    seen = {}
    for name, module in model.named_modules():
        if name in found:
            module.register_forward_hook(lambda _m, inputs, _o, name=name: seen.update({name: inputs[0].shape[-1]}))
    model(torch.randn(2, 3, 16, 16))
    assert list(seen.values()) == [16, 8, 8, 4, 4]


def test_densenet_layer_appends_to_its_input():
    block = CifarDenseNet(10, growth=4).block1.eval()
    x = torch.randn(2, 8, 6, 6)
    out = block(x)
    assert out.shape == (2, 12, 6, 6)
    assert torch.equal(out[:, :8], x)


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_densenet40", "resnet18"])
def test_the_same_seed_gives_the_same_trunk_with_and_without_attention(name):
    torch.manual_seed(3)
    plain = build(name, "none", num_classes=4).state_dict()
    torch.manual_seed(3)
    attended = build(name, "cbam", num_classes=4).state_dict()
    assert plain.keys() < attended.keys()
    assert all(torch.equal(plain[key], attended[key]) for key in plain)
    torch.manual_seed(4)
    other = build(name, "none", num_classes=4).state_dict()
    assert not torch.equal(plain["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_densenet40", "resnet18", "mobilenetv3_small_050"])
@pytest.mark.parametrize("variant", ["none", "se-ign3", "cbam-ign2"])
def test_networks_train_one_step_on_grey_images(name, variant):
    model = build(name, variant, num_classes=4, in_channels=1)
    logits = model(torch.randn(4, 1, 32, 32))
    assert logits.shape == (4, 4)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_reduction_and_convention_reach_the_layers():
    model = build("cifar_resnet8", "se", num_classes=2, reduction=4, convention="laakom-code")
    assert model.layer3[0].bn2.attention.mlp[0].out_features == 16
    assert model.layer3[0].bn2.attention.mlp[0].weight.abs().max() < 0.06


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        ("cifar_resnet21", "se", r"unknown model 'cifar_resnet21': did you mean .*cifar_resnet20"),
        ("resnet5", "se", "unknown model 'resnet5': did you mean resnet50"),
        ("mixer_s32_224", "aw-ign2", "variant 'aw-ign2' cannot go into mixer_s32_224: "),
        ("resnet18", "see", "did you mean se"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, variant, message):
    with pytest.raises(InputError, match=message):
        build(name, variant, num_classes=2)


def test_pretrained_is_refused_where_there_are_no_weights():
    with pytest.raises(InputError, match="no pretrained weights for cifar_resnet8"):
        build("cifar_resnet8", num_classes=2, pretrained=True)


def test_pretrained_weights_reach_the_trunk_and_attention_is_added(monkeypatch, tmp_path):
    import timm

    saved = timm.create_model("resnet18", num_classes=1000)
    torch.save(saved.state_dict(), tmp_path / "resnet18.pth")
    config = timm.get_pretrained_cfg("resnet18")
    monkeypatch.setattr(
        timm.models._builder, "_resolve_pretrained_source", lambda cfg: ("file", str(tmp_path / "resnet18.pth"))
    )
    assert config is not None
    model = build("resnet18", "se-ign2", num_classes=7, pretrained=True)
    assert torch.equal(model.layer4[1].conv2.weight, saved.layer4[1].conv2.weight)
    assert model.layer4[1].bn2.attention.gate.gate == ign2
    x = torch.randn(2, 3, 32, 32)
    heedful_output = model.eval()(x)
    detach(model)
    assert torch.equal(model(x), heedful_output)
    assert model.fc.out_features == 7


@pytest.mark.parametrize("depth", [7, 2, 21, 0])
def test_depths_that_do_not_exist_are_refused(depth):
    with pytest.raises(InputError, match=r"6n\+2"):
        CifarResNet(depth)
    with pytest.raises(InputError, match=r"6n\+4"):
        CifarDenseNet(depth)


def test_image_size_is_what_the_network_was_made_for():
    assert {image_size_of(name) for name in MODELS} == {32}
    assert image_size_of("resnet18") == 224
    assert image_size_of("inception_v3") == 299
