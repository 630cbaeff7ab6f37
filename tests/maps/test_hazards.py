"""What breaks class maps elsewhere: each situation gives the map that the equations give, or a clear error."""

import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from heedful import ICASC, InputError, attention_maps, build
from heedful.maps.attention import METHODS
from tests.references.class_maps import class_map, gradient

LABELS = torch.tensor([1, 3])


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def convolutions(*, inplace=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3, padding=1),
        nn.ReLU(inplace=inplace),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    ).double()


def assert_subprocess_passes(script):
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def expected(network, images, layer, labels=LABELS, method="grad-cam"):
    network.eval()
    activations = network[: layer + 1](images).detach().clone()
    head = network[layer + 1 :]
    gradients = [gradient(head, activations.clone(), n, int(label)) for n, label in enumerate(labels)]
    return torch.stack([class_map(method, a, g) for a, g in zip(activations, gradients, strict=True)])


def maps_of(network, images, layer="3", labels=LABELS, **options):
    return attention_maps(network, images, layers=[layer], classes=labels, **options)[layer][:, 0]


@pytest.mark.parametrize("method", ["grad-cam", "channel", "hires-cam"])
def test_an_in_place_relu_after_the_layer_changes_nothing(images, method):
    reference = expected(convolutions(), images, 3, method=method)
    torch.testing.assert_close(maps_of(convolutions(inplace=True), images, method=method), reference)


def test_a_functional_relu_after_the_features_as_in_densenets(images):
    model = build("cifar_densenet40", "none", num_classes=4).double().eval()
    images = images.repeat(1, 1, 2, 2)
    name = [name for name, _ in model.named_modules() if name.count(".") == 0 and name][-3]
    maps = attention_maps(model, images, layers=[name], classes=LABELS, method="channel")[name]
    found = {}
    hook = model.get_submodule(name).register_forward_hook(lambda _m, _i, out: found.update(a=out) or out.clone())
    scores = model(images)
    hook.remove()
    slopes = torch.autograd.grad(scores[0, 1] + scores[1, 3], found["a"])[0]
    for n in range(2):
        torch.testing.assert_close(maps[n, 0], class_map("channel", found["a"].detach()[n], slopes[n]))


def test_a_module_that_is_called_twice_is_refused(images):
    shared = nn.Conv2d(3, 3, 3, padding=1).double()
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(192, 4).double())
    with pytest.raises(InputError, match="layer '0' is called twice in a forward pass"):
        maps_of(model, images, "0")
    assert not shared._forward_hooks


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_frozen_networks_without_gradients_have_the_same_maps(images, mode):
    network = convolutions().requires_grad_(False)
    references = [expected(network, images, layer) for layer in (3, 0)]
    with mode():
        maps = [maps_of(network, images.clone(), layer) for layer in ("3", "0")]
    for found, reference in zip(maps, references, strict=True):
        torch.testing.assert_close(found, reference)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["autocast", "converted"])
def test_half_precision_gives_maps_in_float32_near_the_exact_ones(images, dtype, way, method):
    network = convolutions()
    reference = maps_of(network, images, method=method).float()
    network = network.float() if way == "autocast" else network.to(dtype)
    images = images.float() if way == "autocast" else images.to(dtype)
    with torch.autocast("cpu", dtype, enabled=way == "autocast"):
        maps = maps_of(network, images, method=method)
    assert maps.dtype == torch.float32
    assert (maps - reference).abs().max() < 0.1 * reference.abs().max()
    assert maps.abs().max() > 0


def test_float16_gradients_do_not_underflow():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    network[4].weight.data *= 1e-4
    images = torch.rand(2, 3, 66, 66)
    with torch.autocast("cpu", torch.float16):
        maps = maps_of(network, images, "0", method="channel")
    reference = maps_of(network, images, "0", method="channel")
    torch.testing.assert_close(maps, reference, rtol=0.05, atol=0.05 * maps.max().item())
    assert maps.max() > 0


def test_one_class_for_two_images_is_refused(images):
    with pytest.raises(InputError, match="classes has 1 rows for 2 images"):
        maps_of(convolutions(), images, labels=torch.tensor([1]))


def test_users_mode_gradients_and_statistics_stay(images):
    network = convolutions().train()
    network[3].weight.grad = torch.ones_like(network[3].weight)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    flags = [parameter.requires_grad for parameter in network.parameters()]
    maps_of(network, images)
    assert network.training
    assert [p.grad is None for p in network.parameters()] == [p is not network[3].weight for p in network.parameters()]
    assert (network[3].weight.grad == 1).all()
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_nothing_of_the_graph_is_left(images):
    network = convolutions()
    maps = maps_of(network, images)
    assert maps.grad_fn is None
    assert not maps.requires_grad
    assert not any(module._forward_hooks for module in network.modules())


def test_threads_do_not_disturb_each_other(images):
    network = convolutions().train()
    batches = [images + shift for shift in range(6)]
    references = [expected(convolutions(), batch, 3) for batch in batches]
    found, errors = {}, []

    def work(i):
        try:
            for _ in range(5):
                found[i] = maps_of(network, batches[i])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert network.training
    for i, reference in enumerate(references):
        torch.testing.assert_close(found[i], reference)


def test_of_a_wrapped_network_the_one_within_is_mapped(images):
    network = convolutions()
    torch.testing.assert_close(maps_of(nn.DataParallel(network), images), expected(network, images, 3))


def test_distributed_networks_are_mapped_too():
    assert_subprocess_passes(
        """
        import tempfile, torch, torch.distributed as dist
        from heedful import attention_maps
        from tests.maps.test_hazards import convolutions, expected
        dist.init_process_group("gloo", init_method=f"file://{tempfile.mkdtemp()}/x", rank=0, world_size=1)
        images, labels = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([1, 3])
        network = convolutions()
        model = torch.nn.parallel.DistributedDataParallel(network)
        maps = attention_maps(model, images, layers=["3"], classes=labels)["3"][:, 0]
        torch.testing.assert_close(maps, expected(network, images, 3, labels))
        dist.destroy_process_group()
        """
    )


def test_compiled_networks_are_mapped_before_and_after_their_first_call():
    assert_subprocess_passes(
        """
        import torch
        from heedful import attention_maps
        from tests.maps.test_hazards import convolutions, expected
        images, labels = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([1, 3])
        reference = expected(convolutions(), images, 3, labels)
        def check(model):
            for _ in range(2):
                maps = attention_maps(model, images, layers=["3"], classes=labels)["3"][:, 0]
                torch.testing.assert_close(maps, reference)
                model(images)
        check(torch.compile(convolutions().eval(), backend="aot_eager"))
        network = convolutions().eval()
        network.compile(backend="aot_eager")
        check(network)
        network = convolutions().eval()
        network[3].compile(backend="aot_eager")
        check(network)
        """
    )


def test_threads_leave_compilation_as_it_was():
    assert_subprocess_passes(
        """
        import threading, time, torch
        from heedful import attention_maps
        from heedful.maps.record import undisturbed
        from tests.maps.test_hazards import convolutions
        model = torch.compile(convolutions().eval(), backend="eager")
        inside, leave = threading.Event(), threading.Event()
        def hold():
            with undisturbed(model):
                inside.set()
                leave.wait()
        first = threading.Thread(target=hold)
        first.start()
        inside.wait()
        images, labels = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([1, 3])
        second = threading.Thread(target=lambda: attention_maps(model, images, layers=["3"], classes=labels))
        second.start()
        time.sleep(0.5)
        leave.set()
        first.join()
        second.join()
        assert torch._dynamo.eval_frame._stance.stance == "default"
        """
    )


class Head(nn.Module):
    """Ends like a network whose gradient is known, but for what `between` does to the map, or `after` to the scores."""

    def __init__(self, between, after):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()).double()
        self.linear = nn.Linear(6, 4).double()
        self.between, self.after = between, after

    def forward(self, x):
        return self.after(self.linear(self.between(self.layer(x)).mean((2, 3))))


@pytest.mark.parametrize(
    ("between", "after"),
    [(torch.relu, torch.clone), (torch.clone, lambda z: z.sub_(z.mean(1, keepdim=True)))],
    ids=["a second ReLU, which changes no value", "scores changed in place"],
)
@pytest.mark.parametrize("method", ["grad-cam", "layer-cam"])
def test_what_looks_like_pooling_and_a_linear_map_is_not_taken_for_it(images, between, after, method):
    model = Head(between, after)
    maps = maps_of(model, images, "layer", method=method)
    activations = model.layer(images).detach()
    for n, label in enumerate(LABELS.tolist()):
        slope = gradient(lambda a: after(model.linear(between(a).mean((2, 3)))), activations, n, label)
        torch.testing.assert_close(maps[n], class_map(method, activations[n], slope))


def test_a_layer_is_a_module_or_its_name(images):
    network = convolutions()
    maps = attention_maps(network, images, layers=[network[3]], classes=LABELS)
    torch.testing.assert_close(maps["3"][:, 0], expected(network, images, 3))
    with pytest.raises(InputError, match="the Conv2d that was given is no module within the model"):
        attention_maps(network, images, layers=[nn.Conv2d(1, 1, 1)], classes=LABELS)


def test_layers_within_each_other_and_in_any_order(images):
    model = build("cifar_resnet8", "se", num_classes=4).double()
    images = images.repeat(1, 1, 2, 2)
    names = ["layer3", "layer2.0", "layer2"]
    together = attention_maps(model, images, layers=names, classes=LABELS)
    assert list(together) == names
    for name in names:
        alone = attention_maps(model, images, layers=[name], classes=LABELS)[name]
        torch.testing.assert_close(together[name], alone)
    assert torch.equal(together["layer2"], together["layer2.0"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": torch.tensor([1, 4])}, "class 4 is out of range: the scores are of classes 0 to 3"),
        ({"labels": torch.tensor([-1, 2])}, "class -1 is out of range"),
        ({"layer": "33"}, "unknown layer '33'"),
        ({"layer": "7"}, r"layer '7' puts out \(2, 4\), which is no feature map"),
        ({"method": "grad-cam+"}, "unknown method 'grad-cam\\+': did you mean grad-cam"),
        ({"method": "eigen-cam", "differentiable": True}, "differentiable: eigen-cam has no gradient"),
    ],
)
def test_bad_input(images, options, message):
    network = convolutions()
    with pytest.raises(InputError, match=message):
        maps_of(network, images, **options)
    assert network.training
    assert torch.is_grad_enabled()
    assert not any(module._forward_hooks for module in network.modules())


def test_no_images_are_refused(images):
    with pytest.raises(InputError, match="there is no image to explain"):
        maps_of(convolutions(), images[:0], labels=LABELS[:0])


def test_a_trunk_without_gradients_is_named(images):
    class Frozen(nn.Sequential):
        def forward(self, x):
            with torch.no_grad():
                x = self[0](x)
            return self[1](x)

    model = Frozen(convolutions()[:5], convolutions()[5:])
    with pytest.raises(InputError, match=r"layer '0\.3': no gradient of the scores reaches it"):
        maps_of(model, images, "0.3")


def test_differentiable_maps_need_gradients_switched_on(images):
    with torch.no_grad(), pytest.raises(InputError, match="gradients are switched off here"):
        maps_of(convolutions(), images, differentiable=True)


def test_nan_in_an_image_is_named(images):
    images[1, 2, 3, 4] = torch.nan
    with pytest.raises(InputError, match="image 1 holds NaN or infinite values"):
        maps_of(convolutions(), images)


def test_a_map_of_zeros_stays_zero(images):
    network = convolutions()
    network[7].weight.data = -network[7].weight.data.abs()
    assert (maps_of(network, images, "4") == 0).all()
    assert (maps_of(network, images, "4", method="grad-cam++") == 0).all()


def test_a_single_place_is_warned_of(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)).double()
    with pytest.warns(UserWarning, match="'1' puts out 1 x 1 places for images of 8 x 8 .* give images of 32 x 32"):
        maps_of(network, images, "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps_of(convolutions(), images)


def test_maps_do_not_depend_on_the_scale_of_the_scores_but_for_their_own(images):
    network = convolutions()
    maps = maps_of(network, images)
    network[7].weight.data *= 3
    network[7].bias.data *= 3
    torch.testing.assert_close(maps_of(network, images), 3 * maps)


def test_a_user_hook_on_the_layer_is_seen(images):
    network = convolutions()
    network[3].register_forward_hook(lambda _m, _i, out: 2 * out)
    reference = nn.Sequential(*network[:3], nn.Conv2d(5, 6, 3, padding=1).double(), *network[4:])
    reference[3].load_state_dict({key: 2 * value for key, value in network[3].state_dict().items()})
    torch.testing.assert_close(maps_of(network, images), expected(reference, images, 3))


def test_icasc_leaves_no_hooks_after_an_exception(images):
    network = convolutions()
    criterion = ICASC(network, "2", "4")
    with pytest.raises(RuntimeError, match="expected input"):
        criterion(images[:, :2], LABELS)
    assert not any(module._forward_hooks for module in network.modules())
