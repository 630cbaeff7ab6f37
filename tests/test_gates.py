import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heedful import GATES, InputError, attend, ign1, ign2, ign3
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
