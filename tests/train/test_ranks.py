"""What two processes share equals what one does with all images: batch norms, gradients, errors, words and deeds."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import heedful
from heedful.data.share import WHOLE, Share
from heedful.errors import InputError
from heedful.layers.batch_norm import normalized
from heedful.layers.synchronised import is_synchronised
from heedful.train import ranks
from heedful.train.errors import RankingError, TopOneError
from tests.of_processes import results

SHAPES = [(7, 3, 4, 5), (2, 3, 2, 2), (9, 3), (5, 3, 6), (4, 3, 2, 3, 2)]
NETWORKS = [("cifar_resnet8", each) for each in ("se", "bam", "srm", "coord", "ge", "gc", "sk", "aw+cbam")]


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 5


def normed(x, share):
    """Return a batch norm of a share of x, gradients, a second derivative, and the running statistics."""
    norm = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][x.ndim - 2](3, momentum=0.3).double()
    nn.init.uniform_(norm.weight, 1, 2, generator=torch.Generator().manual_seed(1))
    own, weight = (each[share.of(len(x))] for each in (x.clone(), drawn(*x.shape).cos()))
    own.requires_grad_()
    with ranks.batch_norms():
        y = norm(own)
    (slope,) = torch.autograd.grad((y**3 * weight).sum(), own, create_graph=True)
    (second, of_weight) = torch.autograd.grad((slope**2).sum(), [own, norm.weight])
    return (
        {"y": y.detach(), "slope": slope.detach(), "second": second},
        {"of_weight": of_weight},
        dict(norm.named_buffers()),
    )


def trained(name, variant, share):
    """Return the loss of a share, weighted, its gradients, and the buffers that it leaves."""
    torch.manual_seed(0)
    model = heedful.build(name, variant, num_classes=3, convention="cbam-code").double()
    images, labels = drawn(3, 3, 8, 8), torch.tensor([0, 1, 2])
    own = share.of(3)
    with ranks.batch_norms():
        logits = model(images[own])
    loss = F.cross_entropy(logits, labels[own]) * ranks.part_of_batch(len(labels[own]), images.device)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()} | {"loss": loss.detach()}, dict(model.named_buffers())


def half():
    """Return a batch norm in bfloat16 of each process's own image, and what a pooled single number becomes."""
    norm, number = nn.BatchNorm2d(3), nn.BatchNorm1d(2)
    x = drawn(2, 3, 4, 4).to(torch.bfloat16)[ranks.share().of(2)]
    with ranks.batch_norms():
        return norm(x).detach(), normalized(number, torch.tensor([[1.0, 2.0]]) + 2 * ranks.share().index).detach()


def counted(share):
    """Return the errors of a share, counted batch by batch."""
    logits, labels = drawn(11, 3).float(), torch.arange(11) % 3
    top, ranking = TopOneError(), RankingError()
    for own in torch.arange(11)[share.of(11)].split(2):
        top.add(logits[own], labels[own])
        ranking.add(logits[own], F.one_hot(labels[own], 3))
    return ranks.combined(top).percent(), ranks.combined(ranking).percent()


def refused():
    raise InputError("the first says no")


def ended(action):
    try:
        return ranks.by_the_first(action)
    except (InputError, SystemExit) as error:
        return repr(error)


def everything():
    """Return all that a process of several finds."""
    share = ranks.share()
    return {
        "share": share,
        "normed": [normed(drawn(*shape), share) for shape in SHAPES],
        "trained": {network: trained(*network, share) for network in NETWORKS},
        "half": half(),
        "counted": counted(share),
        "part": ranks.part_of_batch(1 + 2 * share.index, torch.device("cpu")).item(),
        "summed": ranks.summed(torch.tensor([1.0, share.index])),
        "gathered": ranks.gathered({"rows": torch.arange(share.index + 2)}),
        "by the first": ended(lambda: f"done by {share.index}"),
        "refused": ended(refused),
        "afterwards": ended(lambda: "goes on"),
    }


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    return results(everything, 2, tmp_path_factory.mktemp("of two"))


def test_each_has_its_share(of_two):
    assert [found["share"] for found in of_two] == [Share(0, 2), Share(1, 2)]
    assert [found["part"] for found in of_two] == [0.25, 0.75]


@pytest.mark.parametrize("number", range(len(SHAPES)), ids=str)
def test_batch_norm_is_that_of_all_images_with_first_and_second_derivatives(of_two, number):
    rows, sums, buffers = normed(drawn(*SHAPES[number]), WHOLE)
    found = [each["normed"][number] for each in of_two]
    for name, expected in rows.items():
        torch.testing.assert_close(torch.cat([own[name] for own, _, _ in found]), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sum(own["of_weight"] for _, own, _ in found), sums["of_weight"], rtol=1e-9, atol=1e-9)
    for _, _, own in found:
        assert own.keys() == buffers.keys()
        for name, expected in buffers.items():
            torch.testing.assert_close(own[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_networks_with_attention_have_the_gradients_and_buffers_of_one_process(of_two, network):
    """A process has one image, or two: layers that norm what they pooled must not look at their own batch alone."""
    gradients, buffers = trained(*network, WHOLE)
    found = [each["trained"][network] for each in of_two]
    for name, expected in gradients.items():
        torch.testing.assert_close(sum(own[name] for own, _ in found), expected, rtol=1e-7, atol=1e-9)
    for _, own in found:
        for name, expected in buffers.items():
            torch.testing.assert_close(own[name], expected, rtol=1e-9, atol=1e-12)


def test_in_half_precision_statistics_are_not(of_two):
    x = drawn(2, 3, 4, 4).to(torch.bfloat16)
    expected = nn.BatchNorm2d(3)(x.float())
    ours = torch.cat([found["half"][0] for found in of_two])
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), expected, rtol=2**-8, atol=2**-8)


def test_one_number_in_each_process_has_the_variance_of_both(of_two):
    ours = torch.cat([found["half"][1] for found in of_two])
    torch.testing.assert_close(ours, nn.BatchNorm1d(2)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])))


def test_errors_are_over_all_images_once(of_two):
    expected = counted(WHOLE)
    assert 0 < expected[0] < 100
    for found in of_two:
        assert found["counted"] == pytest.approx(expected)


def test_sums_and_rows_of_all(of_two):
    for found in of_two:
        assert found["summed"].tolist() == [2, 1]
        assert [each["rows"].tolist() for each in found["gathered"]] == [[0, 1], [0, 1, 2]]


def test_the_first_acts_for_all_and_tells_its_errors_alone(of_two):
    assert [found["by the first"] for found in of_two] == ["done by 0"] * 2
    assert [found["refused"] for found in of_two] == ["InputError('the first says no')", "SystemExit(2)"]
    assert [found["afterwards"] for found in of_two] == ["goes on"] * 2


def test_a_single_process_does_everything_itself():
    assert ranks.share() == WHOLE
    assert ranks.part_of_batch(3, torch.device("cpu")) == 1
    values = torch.ones(2)
    assert ranks.summed(values) is values
    assert ranks.gathered(values)[0] is values
    with ranks.batch_norms(), ranks.together("cpu"):
        assert not is_synchronised()
    with pytest.raises(InputError, match="the first says no"):
        ranks.by_the_first(refused)
