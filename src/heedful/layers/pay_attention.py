"""Attention that pools: the features of all places, weighted by how well each fits the image as a whole.

After [J]: Jetley, Lord, Lee and Torr, "Learn to pay attention", ICLR 2018, section 3. The network that classifies with
such vectors alone is `heedful.models.pay_attention.PayAttention`.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.gates import Gate, fresh
from heedful.layers.batch_norm import normalized
from heedful.layers.widths import checked

PROJECTIONS = ("global", "local")


def _softmax(logits: Tensor) -> Tensor:
    return logits.flatten(2).softmax(2).reshape(logits.shape) * logits.shape[2:].numel()


softmax = Gate(_softmax)
"""e^z over its mean over the places of a map, so that places compete: [J]'s normalisation, for logits (N, 1, H, W).

The gates of [L] weigh each place by itself. 1 is the weight of plain average pooling, for this gate as for those.
"""


def _products(local: Tensor, vectors: Tensor) -> Tensor:
    """Return the product of each place with the vector of its image, (N, 1, H, W); unlike einsum it copies no map."""
    return torch.bmm(vectors[:, None], local.flatten(2)).view(local.shape[0], 1, *local.shape[2:])


class DotProduct(nn.Module):
    """Compatibility c = ⟨l, g⟩, `dp` in [J]: no parameters.

    Over hundreds of channels it soon saturates a softmax; [J] neither scales it nor has a temperature.

    Args:
        channels: of l and g.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(
        self, local: Float[Tensor, "batch channels height width"], vector: Float[Tensor, "batch channels"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Return how well each place fits the vector."""
        return _products(local, vector)


class ParametrisedCompatibility(nn.Module):
    """Compatibility c = ⟨u, l + g⟩ with a learned u, `pc` in [J].

    ⟨u, g⟩ is the same for every place. A softmax over places does not see it: the weights do not depend on g, and what
    computes g gets no gradient. With a gate of [L] it shifts all places of an image alike. The authors' code adds a
    bias, which is left out here: a softmax does not see it either. Their u starts with deviation √2, with 512
    channels 55 times as wide as ours, which starts as a 1x1 convolution of PyTorch's.

    Args:
        channels: of l and g.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-(channels**-0.5), channels**-0.5))

    def forward(
        self, local: Float[Tensor, "batch channels height width"], vector: Float[Tensor, "batch channels"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Return ⟨u, l⟩ + ⟨u, g⟩, which needs no sum of maps."""
        return _products(local, self.weight.expand_as(vector)) + (vector @ self.weight)[:, None, None, None]


class AdditiveCompatibility(nn.Module):
    """Compatibility c = ⟨u, tanh(W l + V g)⟩, in which g chooses among the places under a softmax too.

    Not in [J]. The form is that of Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align
    and translate", ICLR 2015, appendix A.1.2; here with half as many hidden units as channels.

    Args:
        channels: of l and g.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.local = nn.Conv2d(channels, hidden, 1, bias=False)
        self.vector = nn.Linear(channels, hidden)
        self.weight = nn.Parameter(torch.empty(hidden).uniform_(-(hidden**-0.5), hidden**-0.5))

    def forward(
        self, local: Float[Tensor, "batch channels height width"], vector: Float[Tensor, "batch channels"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Return how well each place fits the vector."""
        hidden = torch.tanh(self.local(local) + self.vector(vector)[:, :, None, None])
        return _products(hidden, self.weight.expand(hidden.shape[0], -1))


COMPATIBILITIES: dict[str, type[nn.Module]] = {
    "dp": DotProduct,
    "pc": ParametrisedCompatibility,
    "additive": AdditiveCompatibility,
}
"""Name in the notation of variants -> compatibility score."""


class AttentivePooling(nn.Module):
    """Pool a map to one vector, Σ a l over the places, where a depends on how well l fits the image's global vector g.

    `gate(logits)` weighs each place relative to average pooling, and a is that over the number of places. With
    `softmax` the a of an image sum to 1, and Σ a l is the convex combination of [J]. With `attend`, σ, the weights do
    not compete (the sigmoid normalisation of later work), and with an ignoring gate the layer learns what to leave
    out: `ign1(α)` keeps at least 1 - α of every place. A softmax over -c would be no gate of its own: for `pc` it is
    the softmax with the sign of u turned.

    Where l and g differ in width, g is projected to that of l (in [J]'s code: batch norm, ReLU, dropout, linear map),
    or l to that of g by a 1x1 convolution without bias.

    Args:
        channels: of l, at least 1.
        global_channels: of g, at least 1; None: those of l.
        compatibility: a name in COMPATIBILITIES.
        gate: `softmax` or any of heedful's gates.
        project: which of the two is projected if their widths differ, "global" or "local".
        dropout: before the linear map of a projected g, in [0, 1].

    Raises:
        InputError: if a number of channels is less than 1, or a name is unknown.
    """

    source: ClassVar[str] = "Jetley, Lord, Lee and Torr, Learn to Pay Attention, ICLR 2018"

    def __init__(
        self,
        channels: int,
        *,
        global_channels: int | None = None,
        compatibility: str = "pc",
        gate: Callable[[Tensor], Tensor] = softmax,
        project: str = "global",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if compatibility not in COMPATIBILITIES:
            raise unknown("compatibility", compatibility, COMPATIBILITIES)
        if project not in PROJECTIONS:
            raise unknown("project", project, PROJECTIONS)
        wide = checked(channels if global_channels is None else global_channels)
        self.width = checked(channels) if project == "global" else wide
        """Channels of the vector that a map is pooled to."""
        self.local: nn.Module = nn.Identity()
        self.vector: nn.Module = nn.Identity()
        if self.width != channels:
            self.local = nn.Conv2d(channels, wide, 1, bias=False)
        if self.width != wide:
            self.vector = nn.Sequential(Refinement(wide, dropout), nn.Linear(wide, channels))
        self.compatibility = COMPATIBILITIES[compatibility](self.width)
        self.gate = fresh(gate)

    @property
    def heeds_global(self) -> bool:
        """Whether the weights depend on g: not with `pc` under a softmax."""
        return not (self.gate == softmax and isinstance(self.compatibility, ParametrisedCompatibility))

    def logits(
        self, local: Float[Tensor, "batch channels height width"], vector: Float[Tensor, "batch global_channels"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Return what the gate is given, one number per image and place."""
        return self.compatibility(self.local(local), self.vector(vector))

    def mask(
        self, local: Float[Tensor, "batch channels height width"], vector: Float[Tensor, "batch global_channels"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Return a, the weight of each place in the sum."""
        return self._weights(self.local(local), vector)

    def forward(
        self, local: Float[Tensor, "batch channels height width"], vector: Float[Tensor, "batch global_channels"]
    ) -> Float[Tensor, "batch pooled"]:
        """Return Σ a l."""
        projected = self.local(local)
        return torch.bmm(projected.flatten(2), self._weights(projected, vector).flatten(1)[:, :, None])[:, :, 0]

    def _weights(self, projected: Tensor, vector: Tensor) -> Tensor:
        weights = self.gate(self.compatibility(projected, self.vector(vector)))
        return weights / weights.shape[2:].numel()


class Refinement(nn.Module):
    """Batch norm, ReLU and dropout, which [J]'s code applies to every attended vector before a linear map.

    Args:
        channels: of the vector.
        dropout: in [0, 1].

    Raises:
        InputError: if dropout is outside [0, 1].
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout is {dropout}, but it must be in [0, 1]; [J] has 0.5")
        self.norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vector: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch channels"]:
        """Return dropout(relu(norm(vector)))."""
        return self.dropout(torch.relu(normalized(self.norm, vector)))
