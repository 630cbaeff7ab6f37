"""Whether maps depend on what the network has learnt: they must change when its weights are replaced by chance.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, the cascading model parameter randomisation
test. Maps that stay as they are, a rank correlation near 1, show the image, not the network.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError

Maps = Float[Tensor, "images h w"]
Likeness = dict[str, Float[np.ndarray, "images"]]
"""Part of the network -> a number for each image."""


def randomisation(model: nn.Module, explain: Callable[[], Maps], *, seed: int = 0) -> Likeness:
    """Return how like the maps of the network its maps are as its weights are drawn anew, from the head down.

    The parts of the network (its children that have parameters) are drawn one after another, the last first; what has
    been drawn stays so. The network comes back as it was, also after an exception, and so do the random numbers.

    Args:
        model: the network.
        explain: makes the maps of a few images by the network as it is when called, always of the same classes.
        seed: of what is drawn.

    Returns:
        Part that was drawn last -> Spearman's rank correlation of each image's map with the first one, in [-1, 1]; NaN
        where one of the two is the same everywhere.

    Raises:
        InputError: if no part of the network has parameters.
    """
    parts = [(name, part) for name, part in model.named_children() if any(True for _ in part.parameters())]
    if not parts:
        raise InputError(f"the {type(model).__name__} has no part with parameters, so that nothing can be drawn anew")
    before = explain()
    found: Likeness = {}
    with _restored(model), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for name, part in reversed(parts):
            redraw(part)
            found[name] = rank_correlation(before, explain())
    return found


def redraw(part: nn.Module) -> None:
    """Give all parameters of a part chance values, in place.

    A module that can set its parameters as when it was made does so, and batch norms forget their statistics too; the
    values of other parameters are shuffled.
    """
    for module in part.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            continue
        for parameter in module.parameters(recurse=False):
            shuffled = torch.randperm(parameter.numel()).to(parameter.device)
            parameter.data.copy_(parameter.data.flatten()[shuffled].reshape(parameter.shape))


def rank_correlation(first: Maps, second: Maps) -> Float[np.ndarray, "images"]:
    """Return Spearman's rank correlation of two maps of each image, NaN where one of them is the same everywhere."""
    from scipy.stats import rankdata

    ranks = [rankdata(maps.flatten(1).cpu().numpy(), axis=1) for maps in (first, second)]
    centred = [each - each.mean(1, keepdims=True) for each in ranks]
    shared = (centred[0] * centred[1]).sum(1)
    extent = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    return np.divide(shared, extent, out=np.full(len(shared), np.nan), where=extent > 0)


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Give every parameter and buffer its values back on leaving."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
