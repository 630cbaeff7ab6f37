import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from heedful import GATES, InputError, SqueezeExcitation, attend, ign1, ign2, ign3
from heedful.gates import LearnedIgn1, Opening, ScheduledIgn1, advance, fresh
from tests.references import attention as reference

ALL = [
    (attend, reference.attend, (0, 1)),
    (ign1(1), reference.ign1(1), (0, 1)),
    (ign1(0.8), reference.ign1(0.8), (0.2, 1)),
    (ign1(0.5), reference.ign1(0.5), (0.5, 1)),
    (ign1(0.01), reference.ign1(0.01), (0.99, 1)),
    (ign2, reference.ign2, (0.7310585786300049, 1)),
    (ign3, reference.ign3, (0, 1)),
]
EXTREMES = [-1e4, -1000, -200, -90, -50, -17, -12, -10, -8, -7.01, -7, -6.99, -6, -4, -2, -1, -0.1]
LOGITS = [*EXTREMES, 0.0, *(-z for z in EXTREMES)]
every_gate = pytest.mark.parametrize(("gate", "exact", "bounds"), ALL, ids=[repr(row[0]) for row in ALL])
every_type = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)


def weights_and_slopes(gate, dtype, logits=LOGITS):
    z = torch.tensor(logits, dtype=dtype, requires_grad=True)
    weights = gate(z)
    weights.sum().backward()
    return z.detach(), weights.detach(), z.grad


@every_gate
@every_type
def test_values_and_gradients_equal_the_float64_reference(gate, exact, bounds, dtype):
    z, weights, slopes = weights_and_slopes(gate, dtype)
    assert weights.dtype == slopes.dtype == dtype
    expected = torch.tensor([exact(value) for value in z.tolist()], dtype=torch.float64)  # at the rounded logit
    tolerance = 3 * torch.finfo(dtype).eps
    assert torch.isfinite(weights).all()
    assert torch.isfinite(slopes).all()
    torch.testing.assert_close(weights.double(), expected[:, 0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slopes.double(), expected[:, 1], rtol=tolerance, atol=tolerance)


@every_gate
@every_type
def test_weights_stay_in_the_stated_range(gate, exact, bounds, dtype):
    _, weights, _ = weights_and_slopes(gate, dtype)
    rounding = torch.finfo(dtype).eps
    assert weights.min() >= bounds[0] - rounding
    assert weights.max() <= bounds[1]
    assert weights.min() < bounds[0] + 0.01
    assert weights.max() > bounds[1] - 0.01


@every_gate
def test_every_gate_but_attend_decreases(gate, exact, bounds):
    z = torch.linspace(-3, 30, 500, dtype=torch.float64)
    steps = gate(z).diff()
    assert (steps >= 0).all() if gate == attend else (steps <= 0).all()
    assert steps.abs().max() > 1e-4


def test_ign2_keeps_its_gradient_in_half_precision():
    # In float16 the weight at z = -2 rounds to 1, and a backward pass that reads the weight would give 0.
    for dtype in (torch.float16, torch.bfloat16):
        _, _, slopes = weights_and_slopes(ign2, dtype, [-2.0])
        assert slopes.item() == pytest.approx(reference.ign2(-2.0)[1], rel=0.01)


def test_ign2_is_within_a_millionth_of_the_authors_form_with_epsilon():
    z = torch.linspace(-30, 30, 2001, dtype=torch.float64)
    authors = torch.sigmoid(1 / (torch.sigmoid(z) + 1e-6))
    assert (ign2(z) - authors).abs().max() < 5e-7


@given(st.floats(-1e4, 1e4))
def test_ign1_of_1_is_ign3_to_the_bit(z):
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        _, first, first_slope = weights_and_slopes(ign1(1), dtype, [z])
        _, third, third_slope = weights_and_slopes(ign3, dtype, [z])
        assert torch.equal(first, third)
        assert torch.equal(first_slope, third_slope)


@pytest.mark.parametrize("gate", [attend, ign1(0.5), ign2, ign3], ids=repr)
def test_gradients_agree_with_finite_differences_twice(gate):
    z = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate, z)
    assert torch.autograd.gradgradcheck(gate, z)


def test_names_print_back_and_gates_pickle():
    assert [repr(gate) for gate in (attend, ign1(0.5), ign1(1), ign2, ign3)] == [
        "attend",
        "ign1(0.5)",
        "ign1(1)",
        "ign2",
        "ign3",
    ]
    for gate in (attend, ign1(0.5), ign2, ign3):
        assert pickle.loads(pickle.dumps(gate)) == gate
        assert copy.deepcopy(gate) == gate
        assert eval(repr(gate), dict(GATES)) == gate
    assert ign1(0.5) != ign1(0.8)


@pytest.mark.parametrize("alpha", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(InputError, match=r"alpha is .*must be in \(0, 1\]"):
        ign1(alpha)


VARYING = [ign1("learned"), ign1("learned 0.7"), ign1("1to0.5"), ign1("0.25 to 0.75")]
every_varying = pytest.mark.parametrize("gate", VARYING, ids=repr)
WIDE = torch.tensor(LOGITS, dtype=torch.float64)


@pytest.mark.parametrize(
    "gate",
    [*VARYING, ign1(0.123456789), ign1(1e-7), ign1("learned 0.123456789"), ign1("0.987654321to0.3"), ign1(2 / 3)],
    ids=repr,
)
def test_notation_is_parsed_back_to_the_same_gate(gate):
    from heedful.variant import parse

    variant = parse(f"se-{gate!r}+cbam-ign3")
    assert variant.parts[0].gate == gate
    assert str(variant) == f"se-{gate!r}+cbam-ign3"


def test_gates_that_vary_print_and_compare_by_how_they_do():
    assert [repr(gate) for gate in VARYING] == [
        "ign1(learned)",
        "ign1(learned0.7)",
        "ign1(1to0.5)",
        "ign1(0.25to0.75)",
    ]
    assert len({ign1(0.5), *VARYING}) == 5
    assert ign1("learned") == ign1("learned 0.5") != ign1(0.5)
    for gate in VARYING:
        assert pickle.loads(pickle.dumps(gate)) == gate
        assert copy.deepcopy(gate) == gate


@pytest.mark.parametrize(
    ("alpha", "match"),
    [
        ("learned 1", "a learned alpha stays below 1"),
        ("learned 0", r"alpha is 0, but it must be in \(0, 1\]"),
        ("learned x", "alpha is x, but"),
        ("0.5to0", "alpha is 0, but"),
        ("2to1", "alpha is 2, but"),
        ("half", "alpha is half, but it must be .* 'learned', or a schedule"),
        ("to", "alpha is to, but"),
    ],
)
def test_an_alpha_that_cannot_vary_so_is_refused(alpha, match):
    with pytest.raises(InputError, match=match):
        ign1(alpha)


@every_varying
@every_type
def test_a_gate_that_varies_is_ign1_of_its_alpha(gate, dtype):
    own = fresh(gate)
    z = WIDE.to(dtype)
    tolerance = 3 * torch.finfo(dtype).eps + 1e-7  # α itself is kept in float32
    torch.testing.assert_close(own(z), ign1(gate.arguments[0])(z), rtol=tolerance, atol=tolerance)
    assert own(z).dtype == dtype
    assert (own(z) >= 1 - own.alpha - tolerance).all()
    assert (own(z) <= 1).all()


def test_fresh_leaves_gates_without_a_parameter_and_makes_each_layer_its_own():
    for gate in (attend, ign1(0.5), ign2, ign3, torch.sigmoid):
        assert fresh(gate) is gate
    one, other = fresh(ign1("learned")), fresh(ign1("learned"))
    assert [type(one), type(fresh(ign1("1to0.5")))] == [LearnedIgn1, ScheduledIgn1]
    assert one.logit_alpha is not other.logit_alpha
    assert fresh(one) is one
    for gate in VARYING:
        made = fresh(gate, torch.device("meta"))
        assert all(tensor.is_meta for tensor in [*made.parameters(), *made.buffers()])


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1e-30, 1 - 1e-12])
def test_a_learned_alpha_starts_where_it_is_told_and_is_finite(alpha):
    gate = LearnedIgn1(alpha)
    assert gate.alpha.item() == pytest.approx(alpha, rel=1e-6)
    assert torch.isfinite(gate.logit_alpha)


def test_a_learned_alpha_has_the_gradient_of_finite_differences():
    gate, z = LearnedIgn1(0.7).double(), torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)

    def output(z, logit_alpha):
        return torch.func.functional_call(gate, {"logit_alpha": logit_alpha}, (z,))

    assert torch.autograd.gradcheck(output, (z, gate.logit_alpha))
    assert torch.autograd.gradgradcheck(output, (z, gate.logit_alpha))


@pytest.mark.parametrize(("direction", "reached"), [(1, 0.95), (-1, 0.05)])
def test_a_learned_alpha_moves_and_stays_in_its_range(direction, reached):
    gate, z = LearnedIgn1(0.5), torch.linspace(-3, 3, 7)
    optimizer = torch.optim.SGD(gate.parameters(), lr=2.0)
    for _ in range(60):
        optimizer.zero_grad()
        (direction * gate(z).sum()).backward()
        optimizer.step()
        assert 0 < gate.alpha < 1
    assert direction * (gate.alpha - reached) > 0


def test_a_scheduled_alpha_goes_straight_from_start_to_end_and_is_saved():
    model = nn.Sequential(SqueezeExcitation(4, gate=ign1("1to0.5")), SqueezeExcitation(4, gate=ign1("learned")))
    scheduled, learned = model[0].gate, model[1].gate.alpha.item()
    z = torch.zeros(1)
    for progress, alpha in ((0, 1), (0.25, 0.875), (1, 0.5), (0.5, 0.75)):
        advance(model, progress)
        assert scheduled.alpha.item() == pytest.approx(alpha)
        assert scheduled(z).item() == pytest.approx(1 - alpha / 2)
    assert model[1].gate.alpha.item() == learned
    assert "0.gate.alpha" not in dict(model.named_parameters())
    other = nn.Sequential(SqueezeExcitation(4, gate=ign1("1to0.5")), SqueezeExcitation(4, gate=ign1("learned")))
    other.load_state_dict(model.state_dict())
    assert other[0].gate.alpha.item() == pytest.approx(0.75)
    advance(nn.Linear(2, 2), 0.5)  # without any schedule nothing happens


@pytest.mark.parametrize("neutral", [1.0, 0.0])
@pytest.mark.parametrize("gate", [attend, ign1(0.5), ign2, ign3, LearnedIgn1(0.5)], ids=repr)
def test_an_opening_goes_from_the_neutral_weight_to_the_gates(gate, neutral):
    opening = Opening(gate, neutral).double()
    assert torch.equal(opening(WIDE), torch.full_like(WIDE, neutral))
    opening.opening.data.fill_(1)
    torch.testing.assert_close(opening(WIDE), gate(WIDE), rtol=1e-15, atol=1e-15)
    opening.opening.data.fill_(0.25)
    torch.testing.assert_close(opening(WIDE), 0.75 * neutral + 0.25 * gate(WIDE), rtol=1e-12, atol=1e-12)


@every_type
def test_a_closed_opening_is_neutral_to_the_bit_and_only_it_has_a_gradient(dtype):
    opening = Opening(LearnedIgn1(0.5))
    z = torch.tensor(LOGITS, dtype=dtype, requires_grad=True)
    weights = opening(z)
    assert weights.dtype == dtype
    assert torch.equal(weights, torch.ones_like(weights))
    weights.sum().backward()
    assert opening.opening.grad.abs() > 0
    assert not z.grad.any()
    assert not opening.gate.logit_alpha.grad.any()


def test_an_openings_gradients_agree_with_finite_differences():
    gate, z = Opening(ign2).double(), torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    half = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def output(z, opening):
        return torch.func.functional_call(gate, {"opening": opening}, (z,))

    assert torch.autograd.gradcheck(output, (z, half))
    assert torch.autograd.gradgradcheck(output, (z, half))


@pytest.mark.parametrize("make", [lambda: LearnedIgn1(0.3), lambda: ScheduledIgn1(1, 0.5), lambda: Opening(ign3)])
def test_copies_have_parameters_of_their_own(make):
    gate, z = make(), torch.linspace(-3, 3, 7)
    for twin in (copy.deepcopy(gate), pickle.loads(pickle.dumps(gate))):
        assert torch.equal(twin(z), gate(z))
        for tensor in [*twin.parameters(), *twin.buffers()]:
            tensor.data.add_(0.25)
        assert not torch.allclose(twin(z), gate(z))


def test_an_opening_prints_its_gate():
    assert repr(Opening(ign1(0.5))) == "Opening(ign1(0.5))"
    assert "LearnedIgn1" in repr(Opening(LearnedIgn1(0.5)))
