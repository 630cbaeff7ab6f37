"""Costs against counts by hand and against the papers' tables; times with a clock of our own."""

import pytest
import torch
from rich.console import Console
from torch import nn

from heedful import InputError, build
from heedful.evaluate import cost as module
from heedful.evaluate.cost import (
    Cost,
    as_rich,
    chosen_device,
    cost,
    costs_of_variants,
    inference_seconds,
    num_flops,
    num_parameters,
    saved_bytes,
)

FLOAT = 4


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)
    )


def test_flops_and_parameters_are_those_of_the_definition():
    model = small()
    assert num_flops(model, torch.randn(1, 3, 4, 4)) == 2 * (8 * 16 * 27 + 8 * 16 * 5)
    assert num_parameters(model) == 8 * 27 + 8 + 16 + 8 * 16 * 5 + 5
    assert model.training


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_saved_bytes_are_those_of_the_definition(device):
    images = torch.randn(2, 3, 4, 4, device=device)
    maps = 2 * 8 * 4 * 4
    # the convolution keeps the images, batch norm its input, two numbers a channel, and nothing more; the ReLU its
    # output, which is the linear map's input too
    expected = FLOAT * (images.numel() + maps + 2 * 8 + maps)
    assert saved_bytes(small().to(device), images) == expected
    frozen = small().to(device).requires_grad_(False)
    assert saved_bytes(frozen, images) == 0


def test_a_product_with_a_mask_keeps_both_and_a_view_counts_once():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(3, 1, 1))

        def forward(self, x):
            mask = torch.sigmoid(self.logits)  # kept by the sigmoid and by both products
            return (x * mask).flatten(1), (x.flatten(2).unflatten(2, x.shape[2:]) * mask)

    images = torch.randn(2, 3, 4, 4)
    assert saved_bytes(Product(), images) == FLOAT * (images.numel() + 3)


def test_measuring_changes_nothing():
    model = build("cifar_resnet8", "se", num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost({"se": model}, torch.randn(2, 3, 8, 8), repetitions=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(m.training for m in model.modules())


class Clock:
    """Stands for `_seconds`: does the work, and says how long it took, on a machine that is now slow, now quick."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.calls = []

    def __call__(self, work, device):
        seen = []
        hook = nn.modules.module.register_module_forward_hook(lambda m, i, o: seen.append((m, m.training)))
        work()
        hook.remove()
        name, training = next((m.name, training) for m, training in seen if hasattr(m, "name"))
        self.calls.append((name, training))
        slow = 1 + 10 * ((len(self.calls) - 1) // len(self.seconds) % 2)
        return slow * self.seconds[name]


class Named(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


def test_times_are_medians_of_ratios_within_a_repetition(monkeypatch):
    clock = Clock({"a": 0.2, "b": 0.3, "c": 0.1})
    monkeypatch.setattr(module, "_seconds", clock)
    rows = cost({name: Named(name) for name in "abc"}, torch.randn(2, 3, 4, 4), repetitions=3)
    assert [row.name for row in rows] == ["a", "b", "c"]
    assert [row.training_ratio for row in rows] == pytest.approx([1, 1.5, 0.5])
    assert [row.inference_ratio for row in rows] == pytest.approx([1, 1.5, 0.5])
    order = "cba" + "abc" + "cba" + "abc"  # a warm-up and three repetitions, in turn
    assert clock.calls == [(name, True) for name in order] + [(name, False) for name in order]


def test_without_repetitions_nothing_is_timed(monkeypatch):
    monkeypatch.setattr(module, "_seconds", None)
    (row,) = cost({"a": Named("a")}, torch.randn(2, 3, 4, 4), repetitions=0)
    assert row == Cost("a", 8, 2 * 6, FLOAT * 2 * 3, None, None)


def test_inference_time_is_for_one_image_the_least_and_in_evaluation_mode(monkeypatch):
    times = iter([0.1, 0.4, 0.2, 0.8])  # the first warms up
    training = []

    def seconds(work, device):
        work()
        return next(times)

    monkeypatch.setattr(module, "_seconds", seconds)
    model = Named("a")
    model.register_forward_hook(lambda m, i, o: training.append(m.training))
    assert inference_seconds(model, torch.randn(4, 3, 2, 2), repetitions=3) == 0.05
    assert training == [False] * 4
    assert model.training


@pytest.mark.parametrize(
    ("name", "variant", "millions"),
    [
        # [Z], table 1; ResNets' parameters with SE are those of the SE paper too
        ("resnet50", "none", 25.56),
        ("resnet50", "se", 28.09),
        ("resnet50", "aw", 25.72),
        ("resnet50", "aw+se", 28.25),
        ("resnet101", "none", 44.55),
        ("resnet101", "se", 49.33),
        ("resnet101", "aw", 44.86),  # the paper prints 44.95: docs/methods.md
        ("mobilenetv1_100", "none", 4.23),
        ("mobilenetv1_100", "se", 5.07),
    ],
)
def test_parameters_are_those_of_the_papers(name, variant, millions):
    with torch.device("meta"):
        model = build(name, variant, num_classes=1000)
    assert round(num_parameters(model) / 1e6, 2) == millions


@pytest.mark.parametrize(("name", "giga"), [("resnet50", 3.86), ("resnet101", 7.57), ("mobilenetv1_100", 0.569)])
def test_multiply_adds_are_those_of_the_papers(name, giga):
    with torch.device("meta"):
        model = build(name, num_classes=1000)
        image = torch.empty(1, 3, 224, 224)
    for block in model.modules():
        if hasattr(block, "conv3") and block.conv2.stride == (2, 2):
            # The paper's numbers are those of the first ResNets, whose stride is in the 1x1 convolution; timm and
            # torchvision have it in the 3x3, which makes 4.09 and 7.80 of them.
            block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    assert num_flops(model, image) / 2e9 == pytest.approx(giga, abs=0.005 if giga > 1 else 0.0005)


def test_variants_are_measured_beside_the_plain_network():
    options = {"image_size": 8, "batch_size": 2, "num_classes": 3, "repetitions": 0}
    rows = costs_of_variants("cifar_resnet8", ["SE", "cbam", "se"], **options)
    assert [row.name for row in rows] == ["none", "se", "cbam"]
    plain, se, cbam = rows
    assert plain.parameters < se.parameters < cbam.parameters
    assert plain.saved_bytes < se.saved_bytes < cbam.saved_bytes
    assert [row.name for row in costs_of_variants("cifar_resnet8", ["se", "none"], **options)] == ["se", "none"]
    larger = costs_of_variants("cifar_resnet8", [], **options | {"batch_size": 4, "image_size": 16})
    assert larger[0].flops > 3.9 * plain.flops
    assert larger[0].saved_bytes > 7 * plain.saved_bytes
    more = costs_of_variants("cifar_resnet8", [], **options | {"num_classes": 13})
    assert more[0].parameters - plain.parameters == 10 * 65


@pytest.mark.parametrize(
    ("name", "variants", "options", "message"),
    [
        ("cifar_resnet9", ["se"], {}, "unknown model 'cifar_resnet9': did you mean"),
        ("cifar_resnet8", ["sse"], {}, "unknown attention layer 'sse': did you mean se"),
        ("inception_v3", [], {"image_size": 16}, "cannot be run on images of 2 x 3 x 16 x 16: "),
        ("cifar_resnet8", [], {"batch_size": 1}, "batch_size is 1, but it must be at least 2"),
        ("cifar_resnet8", [], {"image_size": 0}, "image_size is 0, but it must be at least 1"),
        ("cifar_resnet8", [], {"num_classes": 0}, "num_classes is 0, but it must be at least 1"),
        ("cifar_resnet8", [], {"repetitions": -1}, "repetitions is -1"),
    ],
)
def test_what_cannot_be_measured_is_refused(name, variants, options, message):
    with pytest.raises(InputError, match=message):
        costs_of_variants(name, variants, **{"batch_size": 2, "num_classes": 3, "repetitions": 0} | options)


def test_one_image_is_refused():
    with pytest.raises(InputError, match="images holds 1, but training with batch norm needs a batch of at least 2"):
        cost({"a": Named("a")}, torch.randn(1, 3, 4, 4))


def test_the_table_is_in_the_papers_units():
    rows = [
        Cost("none", 25_557_032, 8_178_368_512, 100 * 2**20, 1.0, 1.0),
        Cost("se", 28_088_024, 900_000_000, 126 * 2**20, 1.0912, None),
    ]
    console = Console(width=100)
    with console.capture() as captured:
        console.print(as_rich(rows, "resnet50"))
    text = captured.get()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert cells == [
        ["none", "25.56", "4.09", "100.0", "1.00×", "1.00×", "1.00×"],
        ["se", "28.09", "0.450", "126.0", "1.26×", "1.09×", "-"],
    ]
    assert "a multiply-add counted as one" in text


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    assert chosen_device("auto").type == chosen_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="device is 'cuda', but this machine has cpu"):
        chosen_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device("auto").type == "cuda"
    with pytest.raises(InputError, match="device is 'mps', but this machine has cpu, cuda"):
        chosen_device("mps")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_costs_on_a_gpu():
    rows = costs_of_variants("cifar_resnet8", ["se"], image_size=32, batch_size=4, device="cuda", repetitions=2)
    on_cpu = costs_of_variants("cifar_resnet8", ["se"], image_size=32, batch_size=4, repetitions=0)
    assert [row.flops for row in rows] == [row.flops for row in on_cpu]
    assert all(row.training_ratio > 0 and row.inference_ratio > 0 for row in rows)
