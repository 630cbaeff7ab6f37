"""`weighted`: a plain product, whatever the shape of the mask, wherever nothing is known of the map."""

import pytest
import torch

from heedful.layers.product import Origin, Parts, forget, origin_of, remember, weighted

SHAPES = [(2, 6, 1, 1), (1, 6, 1, 1), (2, 1, 5, 4), (2, 6, 5, 1), (2, 6, 5, 4), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("only_pooled", [False, True])
def test_a_map_without_origin_is_multiplied_and_stays(shape, only_pooled):
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    assert torch.equal(weighted(x, mask, only_pooled=only_pooled), before * mask)
    assert torch.equal(x, before)
    assert torch.autograd.gradcheck(weighted, (x, mask))
    with torch.no_grad():
        assert torch.equal(weighted(x, mask, only_pooled=only_pooled), before * mask)
    assert torch.equal(x, before)


def test_without_gradients_only_a_fresh_map_gives_up_its_memory():
    mask = torch.rand(2, 6, 1, 1)
    with torch.no_grad():
        for fresh in (True, False):
            x = torch.randn(2, 6, 5, 4)
            expected = x * mask
            result = weighted(remember(x, Origin(fresh=fresh)), mask)
            assert torch.equal(result, expected)
            assert (result.data_ptr() == x.data_ptr()) is fresh


def test_a_mask_of_a_wider_type_is_not_squeezed_into_the_maps_memory():
    x = remember(torch.randn(2, 6, 5, 4, dtype=torch.bfloat16), Origin(fresh=True))
    mask, before = torch.rand(2, 6, 1, 1), x.clone()
    with torch.no_grad():
        assert weighted(x, mask).dtype == torch.float32
    assert torch.equal(x, before)


def test_an_origin_is_forgotten_and_does_not_outlive_a_change_of_the_map():
    numbers = torch.ones(6)
    origin = Origin((torch.ones(2, 6, 5, 4), numbers, numbers, numbers, numbers), training=True, eps=1e-5)
    x = remember(torch.ones(2, 6, 5, 4), origin)
    assert origin_of(x) is origin
    assert origin_of(forget(x)) is None
    remember(x, origin).add_(1)
    assert origin_of(x) is None
    assert forget("not a map") == "not a map"


def test_parts_of_an_earlier_backward_pass_are_dropped():
    parts = Parts(torch.Size([2, 6, 5, 4]), torch.float32, torch.device("cpu"))
    parts.backward_pass, parts.shares = 12345, [torch.ones(2, 6, 1, 1)]
    assert torch.equal(parts.now().total(), torch.zeros(2, 6, 5, 4))
