"""PayAttention around networks: what it computes, what it leaves as it was, what it refuses."""

import copy
import pickle
import threading

import pytest
import torch
import torchvision
from torch import nn

from heedful import (
    InputError,
    PayAttention,
    attach,
    attend,
    attention_maps,
    audit,
    build,
    bypass,
    ign2,
    load,
    record,
    set_gate,
)
from heedful.evaluate.cost import num_flops, num_parameters
from heedful.layers.pay_attention import COMPATIBILITIES, softmax
from heedful.maps.record import last_layer, last_layers
from heedful.models.pay_attention import HEADS


def resnet(variant="pay2-pc", seed=0, **options):
    torch.manual_seed(seed)
    return build("cifar_resnet8", variant, num_classes=4, **options).eval()


def images(number=3, size=16):
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1))


def looked(model, x):
    """Return the features of the second and third stage of a cifar_resnet, and their mean, by running it by hand."""
    trunk = model.backbone
    second = trunk.layer2(trunk.layer1(torch.relu(trunk.bn1(trunk.conv1(x)))))
    third = trunk.layer3(second)
    return (second, third), third.mean((2, 3))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("compatibility", COMPATIBILITIES)
def test_logits_and_masks_are_those_of_the_attended_vectors(compatibility, head):
    model = resnet(f"pay2-{compatibility}{'' if head == 'concat' else '-indep'}")
    x = images()
    local, vector = looked(model, x)
    masks = model.masks(x)
    refined = []
    for each, (layer, mask), pooling, refine in zip(
        local, masks.items(), model.attention.values(), model.refinement, strict=True
    ):
        assert layer in ("layer2", "layer3")
        torch.testing.assert_close(mask, pooling.mask(each, vector)[:, 0])
        attended = (each * mask[:, None]).sum((2, 3))
        refined.append(torch.relu(refine.norm(attended)))
    if head == "concat":
        expected = torch.cat(refined, 1) @ model.head.linear.weight.T + model.head.linear.bias
        torch.testing.assert_close(model(x), expected)
    else:
        each = [linear(vector).softmax(1) for linear, vector in zip(model.head.linears, refined, strict=True)]
        torch.testing.assert_close(model(x).softmax(1), (each[0] + each[1]) / 2)
        torch.testing.assert_close(model(x).exp().sum(1), torch.ones(3))


@pytest.mark.parametrize("size", [(16, 16), (33, 20), (64, 48)])
def test_masks_have_the_resolution_of_the_layer_at_any_size_of_image(size):
    model = resnet("pay3-dp")
    masks = model.masks(torch.randn(2, 3, *size))
    halves = [(-(-size[0] // k), -(-size[1] // k)) for k in (1, 2, 4)]
    assert {name: tuple(mask.shape[1:]) for name, mask in masks.items()} == dict(zip(model.layers, halves, strict=True))
    assert all(torch.allclose(mask.sum((1, 2)), torch.ones(2)) for mask in masks.values())


@pytest.mark.parametrize(("compatibility", "lives"), [("pc", False), ("dp", True), ("additive", True)])
def test_the_branch_of_the_global_vector_learns_unless_nothing_depends_on_it(compatibility, lives):
    model = build("cifar_vgg_att_small", f"pay2-{compatibility}", num_classes=4).double()
    model(torch.randn(4, 3, 32, 32, dtype=torch.float64)).logsumexp(1).sum().backward()
    norms = [p.grad.abs().max().item() for p in model.backbone.global_branch.parameters() if p.ndim > 1]
    assert len(norms) == 3
    assert (min(norms) > 1e-9) if lives else (max(norms) < 1e-14)


def test_the_sizes_of_the_networks_of_the_paper():
    counted = {}
    for variant in ("pay1-pc", "pay2-pc", "pay3-pc"):
        with torch.device("meta"):
            model = build("cifar_vgg_att", variant, num_classes=100)
        trunk = num_parameters(model.backbone)
        widths = [256, 512, 512][-int(variant[3]) :]
        # u and a batch norm for each level, one linear map; the lowest level projects g by a batch norm and a map.
        projection = 2 * 512 + 512 * 256 + 256 if variant == "pay3-pc" else 0
        assert num_parameters(model) == trunk + 3 * sum(widths) + 100 * sum(widths) + 100 + projection
        counted[variant] = num_parameters(model)
    assert round(counted["pay2-pc"] / 1e6, 1) == 19.8
    assert (
        round(num_flops(build("cifar_vgg_att", "pay2-pc", num_classes=100), torch.zeros(1, 3, 32, 32)) / 2e9, 2) == 3.79
    )


def test_the_same_seed_gives_the_same_trunk():
    plain, paying = resnet("none").state_dict(), resnet("se+pay2-dp").backbone.state_dict()
    shared = [key for key in plain if not key.startswith("fc.")]
    assert all(torch.equal(plain[key], paying[key]) for key in shared)
    assert any("attention" in key for key in paying)


@pytest.mark.parametrize("network", ["resnet18", "efficientnet_b0", "densenet121", "convnext_atto"])
def test_networks_of_timm_train_one_step(network):
    model = build(network, "pay2-additive-ign1(0.5)", num_classes=3)
    x = torch.randn(2, 3, 64, 64)
    model(x).logsumexp(1).sum().backward()
    used = [p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters()]
    assert all(used)
    assert list(model.masks(x)) == list(model.layers)


def test_gates_are_found_exchanged_recorded_and_bypassed():
    model, x = resnet("pay2-dp"), images()
    with record(model) as masks, torch.no_grad():
        model(x)
    assert masks.names() == ["attention.at_layer2", "attention.at_layer3"]
    expected = list(model.masks(x).values())[1]
    torch.testing.assert_close(masks["attention.at_layer3"][:, 0] / expected[0].numel(), expected)
    assert [row.num_calls for row in audit(model, x)] == [1, 1]
    with bypass(model):
        for mask in model.masks(x).values():
            torch.testing.assert_close(mask, torch.full_like(mask, 1 / mask[0].numel()))
    assert set_gate(model, ign2) == 2
    assert model.attention.at_layer2.gate == ign2


def test_class_maps_are_taken_at_the_deepest_levels_and_not_in_what_follows():
    assert last_layer(resnet("pay2-additive"), images()) == "backbone.layer3"
    assert last_layers(resnet("pay2-additive"), images()) == ("backbone.layer2", "backbone.layer3")
    trunk = build("cifar_vgg_att_small", num_classes=4)
    assert last_layer(trunk, images(size=32)) == "block3"  # and not the global branch, of 4 x 4 places
    assert last_layer(build("cifar_vgg_att_small", "pay2-pc", num_classes=4), images(size=32)) == "backbone.block3"
    assert last_layer(trunk, images(size=8)) == "block2"
    single = build("cifar_vgg_att_small", "pay1-pc", num_classes=4)
    assert last_layers(single, images(size=32)) == ("backbone.block2", "backbone.block3")
    assert last_layer(single, images(size=8)) == "backbone.block2"
    assert last_layers(build("resnet18", "pay1-dp", num_classes=4), images(size=128))[1] == "backbone.layer4"
    early = PayAttention(build("cifar_vgg_att_small", num_classes=4), ["block1"])
    assert last_layer(early, images(size=32)) == "backbone.block1"


def test_a_class_map_at_a_level_sees_the_attention_that_looks_there():
    model, x = resnet("pay2-dp"), images()
    (second, _), _ = looked(model, x)
    leaf = second.detach().requires_grad_()
    deeper = model.backbone.layer3(leaf)
    both = zip(model.attention.values(), (leaf, deeper), strict=True)
    pooled = [pooling(each, deeper.mean((2, 3))) for pooling, each in both]
    scores = model.head([refine(each) for refine, each in zip(model.refinement, pooled, strict=True)])
    (gradient,) = torch.autograd.grad(scores[:, 2].sum(), leaf)
    expected = torch.relu((gradient.mean((2, 3), keepdim=True) * leaf).sum(1))
    found = attention_maps(model, x, layers=["backbone.layer2"], classes=torch.tensor([2, 2, 2]))["backbone.layer2"]
    torch.testing.assert_close(found[:, 0], expected.detach())


def test_copies_pickles_and_saved_networks_compute_the_same(tmp_path):
    model, x = resnet("se-ign2+pay2-additive-indep-ign1(0.5)"), images()
    model.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.card.variant == "se-ign2+pay2-additive-indep-ign1(0.5)"
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again):
        assert torch.equal(other(x), model(x))
        other.backbone.conv1.weight.data.zero_()
        assert not torch.equal(other(x), model(x))


def test_several_threads_may_share_the_network():
    model = resnet("pay2-dp")
    batches = [torch.randn(2, 3, 16, 16) for _ in range(16)]
    expected = [model(x) for x in batches]
    wrong = []

    def work(start):
        for _ in range(5):
            for x, y in zip(batches[start:], expected[start:], strict=True):
                if not torch.allclose(model(x), y, atol=1e-5):
                    wrong.append(start)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_is_left_on_the_modules_after_a_pass():
    model = resnet("pay2-dp")
    model(images())
    model.backbone(images())
    assert model.backbone.layer2.__dict__["_shelf"] == {}
    hook = model.backbone.layer3.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(images())
    hook.remove()
    assert model.backbone.layer2.__dict__["_shelf"] == {}
    assert torch.equal(copy.deepcopy(model)(images()), model(images()))


def test_an_empty_batch_has_logits_of_its_shape():
    assert resnet("pay2-dp")(images(0)).shape == (0, 4)


def test_a_query_chooses_the_places_where_the_vector_matters():
    x, query = images(), images(1, size=32)
    for variant, matters in (("pay2-dp", True), ("pay2-pc", False), ("pay2-pc-attend", True)):
        model = resnet(variant)
        vector = model.global_vector(query)
        assert vector.shape == (1, 64)
        own, driven = model.masks(x), model.masks(x, vector)
        change = max((own[name] - driven[name]).abs().max().item() for name in own)
        assert (change > 1e-6) == matters, variant
        itself = model.masks(x, model.global_vector(x))
        assert all(torch.equal(itself[name], own[name]) for name in own)


@pytest.mark.parametrize("shape", [(2, 64), (1, 63)])
def test_a_query_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=rf"query is \({shape[0]}, {shape[1]}\), but must be \(3, 64\)"):
        resnet("pay2-dp").masks(images(), torch.randn(*shape))


class Dropping(nn.Module):
    """A network whose dropout writes into what its first convolution puts out, in training alone."""

    def __init__(self):
        super().__init__()
        self.keys, self.drop, self.fc = nn.Conv2d(3, 4, 3), nn.Dropout(0.9, inplace=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.drop(self.keys(x)).mean((2, 3)))


def test_a_level_is_what_the_layer_put_out_in_training_too():
    model = PayAttention(Dropping(), ["keys"], example=torch.randn(1, 3, 8, 8))
    seen = []
    model.attention["at_keys"].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    x = images()
    model(x)
    torch.testing.assert_close(seen[0], model.backbone.keys(x))


class Written(nn.Module):
    """A network that writes into what its first convolution puts out."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).mean((2, 3)))


def test_a_level_is_what_the_layer_put_out_though_the_network_writes_into_it():
    model = PayAttention(Written(), ["conv"], compatibility="dp", example=torch.randn(1, 3, 8, 8)).eval()
    x = images()
    local = model.backbone.conv(x)
    vector = torch.relu(local).mean((2, 3))
    assert local.min() < 0
    torch.testing.assert_close(model.masks(x)["conv"], model.attention.at_conv.mask(local, vector)[:, 0])


@pytest.mark.parametrize(
    ("network", "layers", "options", "message"),
    [
        ("resnet18", ["layer4", "layer3"], {}, "layers are layer4, layer3, but the network runs layer3, layer4"),
        ("resnet18", ["layer3", "layer3"], {}, "name each once"),
        ("resnet18", ["layer5"], {}, "unknown layer 'layer5': did you mean"),
        ("resnet18", [""], {}, "unknown layer ''"),
        ("resnet18", [], {}, r"layers is \[\], but it must be a list"),
        ("resnet18", "layer4", {}, "layers is 'layer4', but it must be a list"),
        ("resnet18", ["fc"], {}, "layer 'fc' does not put out one feature map"),
        ("resnet18", ["layer1.0.relu"], {}, "layer 'layer1.0.relu' does not put out one feature map"),
        ("resnet18", ["layer4"], {"head": "sum"}, "unknown head 'sum'"),
        ("resnet18", ["layer4"], {"compatibility": "cos"}, "unknown compatibility 'cos'"),
        ("resnet18", ["layer4"], {"project": "no"}, "unknown project 'no'"),
        ("resnet18", ["layer4"], {"dropout": -1.0}, "dropout is -1"),
        ("squeezenet1_0", ["features"], {}, "the network has no global vector: it must end in a linear map"),
    ],
)
def test_what_cannot_be_is_refused_and_the_network_stays_as_it_was(network, layers, options, message):
    model = getattr(torchvision.models, network)(num_classes=3)
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(InputError, match=message):
        PayAttention(model, layers, **options)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())
    assert model(torch.randn(2, 3, 64, 64)).shape[0] == 2


def test_widths_differ_only_where_a_side_is_projected():
    model = PayAttention(torchvision.models.resnet18(num_classes=3), ["layer3", "layer4"], project="local", gate=attend)
    assert model.head.linear.in_features == 2 * 512
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    assert model.attention.at_layer3.gate == attend
    assert model.attention.at_layer3.gate != softmax


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        (
            "cifar_resnet8",
            "pay4-pc",
            r"cannot go into cifar_resnet8: it has 3 levels .*\(layer1, layer2, layer3\), not 4",
        ),
        ("squeezenet1_0", "pay2-pc", "unknown model"),
        ("vit_tiny_patch16_224", "pay2-pc", "cannot go into vit_tiny_patch16_224: it is no convolutional network"),
        ("swin_tiny_patch4_window7_224", "pay2-pc", "swin_tiny_patch4_window7_224: it is no convolutional network"),
    ],
)
def test_variants_that_a_network_does_not_allow_are_refused(name, variant, message):
    with pytest.raises(InputError, match=message):
        build(name, variant, num_classes=2)


def test_attach_refuses_what_stands_around_a_network():
    with pytest.raises(InputError, match="pay2-pc stands around a network, not in it"):
        attach(torchvision.models.resnet18(), "se+pay2-pc")
