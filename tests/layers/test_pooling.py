"""Mean and maximum over places and channels are those of torch, in every size and memory format."""

import pytest
import torch

from heedful.layers.pooling import _maximum_over_channels, _maximum_over_places, maximum, mean

SIZES = [(2, 8, 5, 4), (1, 7, 1, 1), (2, 1, 3, 3), (2, 96, 24, 22), (1, 13, 23, 31)]
FORMATS = [torch.contiguous_format, torch.channels_last]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)
every_format = pytest.mark.parametrize("memory_format", FORMATS, ids=str)
every_dims = pytest.mark.parametrize("dims", [(2, 3), (1,)], ids=str)


@every_size
@every_format
@every_dims
@pytest.mark.parametrize("keepdim", [False, True])
def test_values_are_torchs(size, memory_format, dims, keepdim):
    x = torch.randn(size, dtype=torch.float64).to(memory_format=memory_format)
    torch.testing.assert_close(mean(x, dims, keepdim=keepdim), x.mean(dims, keepdim))
    assert torch.equal(maximum(x, dims, keepdim=keepdim), x.amax(dims, keepdim))


@every_dims
@pytest.mark.parametrize("pool", [mean, maximum])
def test_gradients_are_right(dims, pool):
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pool(x, dims), x)
    assert torch.autograd.gradgradcheck(lambda x: pool(x, dims), x)


@every_size
@every_format
def test_maxima_stand_where_they_are_said_to(size, memory_format):
    x = torch.randn(size).to(memory_format=memory_format)
    values, places = _maximum_over_channels(x)
    assert torch.equal(values, x.amax(1, keepdim=True))
    assert torch.equal(x.flatten(2).gather(1, places), values.flatten(2))
    values, places = _maximum_over_places(x)
    assert torch.equal(values, x.amax((2, 3), keepdim=True))
    assert torch.equal(x.flatten(2).gather(2, places), values.flatten(2))


def test_half_precision_is_summed_in_single():
    x = torch.full((1, 1, 64, 64), 0.1, dtype=torch.bfloat16)
    assert mean(x, (2, 3)).item() == x[0, 0, 0, 0].item()
