"""Global Context (Cao et al., GCNet, ICCVW 2019) with any gate, joined to the map by a product."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.gates import attend, fresh
from heedful.layers.product import weighted
from heedful.layers.widths import hidden_width


class GlobalContext(nn.Module):
    """Weight each channel by what a learned average says: `x * gate(W2 relu(LayerNorm(W1 context)))`.

    `context = sum_j softmax_j(w_k x_j) x_j` over the places j. The paper's own block adds
    `W2 relu(LayerNorm(W1 context))` to x: there is no weight in it, and no gate. Its ablation and code have the product
    too ("scale", `channel_mul`), as has timm (`fuse_scale`, the default of `GlobalContext`), and that is this layer.

    How it stands to the code of others, with the same gate:

    - w_k has no bias here: the softmax cancels it.
    - timm's default is a reduction of 8, the paper's of 16; its layer norm adds 1e-6 to the variance, the authors' and
      ours 1e-5. Both draw w_k He-normal; here all weights have PyTorch's initialisation.
    - Where the hidden width is 1 there is no layer norm: it would leave nothing of the one number.

    Args:
        channels: number of channels C of the feature map, at least 1.
        reduction: C divided by the hidden width, which is at least 1; 16 in the paper.
        gate: logits to weights; any of heedful's gates.
        device: where the parameters are made; timm's slot gives it.
        dtype: the parameters' type.

    Raises:
        InputError: if channels or reduction is less than 1.
    """

    source: ClassVar[str] = (
        "Cao et al., GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, ICCVW 2019"
    )

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        gate: Callable[[Tensor], Tensor] = attend,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        self.places = nn.Conv2d(channels, 1, 1, bias=False, device=device, dtype=dtype)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, device=device, dtype=dtype),
            nn.LayerNorm(hidden, device=device, dtype=dtype) if hidden > 1 else nn.Identity(),
            nn.ReLU(),
            nn.Linear(hidden, channels, device=device, dtype=dtype),
        )
        self.gate = fresh(gate, device)

    def context(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels"]:
        """Return the average of each image's places, weighted by how much the layer heeds them."""
        heeded = self.places(x).flatten(2).softmax(2)
        return (x.flatten(2) @ heeded.transpose(1, 2))[:, :, 0]

    def logits(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return what the gate is given, one number per image and channel."""
        return self.mlp(self.context(x))[:, :, None, None]

    def mask(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(x))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return `x * mask(x)`."""
        return weighted(x, self.mask(x))
