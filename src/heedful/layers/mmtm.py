"""Multimodal Transfer Module (Joze et al., CVPR 2020) with any gate: the streams of a network weight each other.

[L] puts its ignoring gates there: Laakom et al., "Learning to ignore", BMVC 2021, section 4.3 and table 4.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.gates import attend, fresh
from heedful.layers.widths import checked, hidden_width


class MMTM(nn.Module):
    """Weight the channels of each stream by what the means of all streams say together.

    `Y_k = X_k * factor * gate(W_k relu(W [GAP(X_1), GAP(X_2), ...] + b) + b_k)`

    How it stands to others:

    - [L] multiplies by σ alone: "sigmoid activation is then applied to obtain attention masks". That is the default,
      since its gates say what passes as it is, weight 1, and what is ignored. Joze et al. write 2 × σ, which is
      `attend` with `factor=2`; their code leaves out the 2, which they call an oversight (their repository, issue 3).
    - The joint width is that of all streams together over `reduction`, 4. In the authors' code it is twice as large
      for a "ratio" of 4: `reduction=2`.
    - One call takes two streams or more; theirs takes two.

    A stream that is absent has the mean 0: nothing of it enters the joint layer, as if its columns of W were not there.
    This holds in training and evaluation alike and has no state, which a mean learned from the data would be. A network
    that is to work so should see absent streams in training too (see `heedful.models.two_stream`).

    Args:
        channels: of each stream, at least 1; two streams or more.
        reduction: channels of all streams divided by the width of the joint layer, which is at least 1.
        gate: logits to weights; any of heedful's gates.
        factor: on the weights, more than 0; 1 in [L], 2 in the MMTM paper.
        names: of the streams, under which their gates are recorded; None: 0, 1, ...

    Raises:
        InputError: if there are less than two streams, a width, the reduction or the factor is too small, or the names
            are not one for each stream.
    """

    source: ClassVar[str] = "Joze et al., MMTM: Multimodal Transfer Module for CNN Fusion, CVPR 2020"

    def __init__(
        self,
        channels: Sequence[int],
        *,
        reduction: int = 4,
        gate: Callable[[Tensor], Tensor] = attend,
        factor: float = 1.0,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.channels = tuple(checked(each) for each in channels)
        names = [str(number) for number in range(len(channels))] if names is None else names
        _check(channels, names)
        hidden = hidden_width(sum(channels), reduction)
        self.squeeze = nn.Linear(sum(channels), hidden)
        self.excitations = nn.ModuleDict({
            name: Excitation(hidden, each, gate=gate, factor=factor)
            for name, each in zip(names, channels, strict=True)
        })  # fmt: skip

    def joint(
        self,
        streams: Sequence[Float[Tensor, "..."] | None],
        present: Sequence[Bool[Tensor, " _"]] | None = None,
    ) -> Float[Tensor, "batch hidden"]:
        """Return what all streams say together, `relu(W [means] + b)`; arguments: see `forward`."""
        self._check_streams(streams)
        some = next(stream for stream in streams if stream is not None)
        means = []
        for number, (stream, width) in enumerate(zip(streams, self.channels, strict=True)):
            mean = some.new_zeros(len(some), width) if stream is None else _mean(stream)
            # Not a product: what an absent stream holds may be anything, also NaN.
            means.append(mean if present is None else torch.where(present[number][:, None], mean, 0))
        return torch.relu(self.squeeze(torch.cat(means, 1)))

    def masks(
        self,
        streams: Sequence[Float[Tensor, "..."] | None],
        present: Sequence[Bool[Tensor, " _"]] | None = None,
    ) -> list[Float[Tensor, "_ _"] | None]:
        """Return for each stream the weights of its channels, (N, C), in the range of the gate; `factor` is not in."""
        joint = self.joint(streams, present)
        pairs = zip(streams, self._excitations(), strict=True)
        return [None if stream is None else excitation.mask(joint) for stream, excitation in pairs]

    def forward(
        self,
        streams: Sequence[Float[Tensor, "..."] | None],
        present: Sequence[Bool[Tensor, " _"]] | None = None,
    ) -> list[Float[Tensor, "_ _ ..."] | None]:
        """Return each stream times its weights.

        Args:
            streams: feature maps (N, C), (N, C, L), (N, C, H, W), ... of as many channels as the layer was made for; of
                any number of places. None: the stream is absent, and None comes out for it.
            present: for each stream, whether each element of the batch has it, (N,); None: all have. An element's
                absent stream is weighted too, so that shapes stay; what it holds reaches no other stream.

        Raises:
            InputError: if the number of streams, their channels or their batch sizes do not fit, or all are absent.
        """
        joint = self.joint(streams, present)
        pairs = zip(streams, self._excitations(), strict=True)
        return [None if stream is None else excitation(stream, joint) for stream, excitation in pairs]

    def _excitations(self) -> list["Excitation"]:
        return [each for each in self.excitations.values() if isinstance(each, Excitation)]

    def _check_streams(self, streams: Sequence[Tensor | None]) -> None:
        shapes = [None if stream is None else tuple(stream.shape) for stream in streams]
        given = [shape for shape in shapes if shape is not None]
        if len(shapes) != len(self.channels) or not given:
            raise InputError(
                f"there are {len(given)} streams of {len(shapes)}, but the layer takes {len(self.channels)}, of which "
                "None may stand for those that are absent, not for all"
            )
        wrong = [
            shape
            for shape, width in zip(shapes, self.channels, strict=True)
            if shape is not None and (len(shape) < 2 or shape[1] != width)
        ]
        if wrong or len({shape[0] for shape in given}) > 1:
            raise InputError(
                f"the streams are {', '.join(map(str, shapes))}, but they must have one batch size, and "
                f"{', '.join(map(str, self.channels))} channels"
            )


class Excitation(nn.Module):
    """The weights of one stream's channels, from what all streams say together.

    Args:
        hidden: width of the joint layer.
        channels: of the stream.
        gate: logits to weights.
        factor: on the weights, more than 0.

    Raises:
        InputError: if the factor is not more than 0.
    """

    def __init__(
        self, hidden: int, channels: int, *, gate: Callable[[Tensor], Tensor] = attend, factor: float = 1.0
    ) -> None:
        super().__init__()
        if not factor > 0:
            raise InputError(f"factor is {factor}, but it must be more than 0: 1 as in [L], or 2 as in the MMTM paper")
        self.expand = nn.Linear(hidden, channels)
        self.gate = fresh(gate)
        self.factor = factor

    @property
    def neutral(self) -> float:
        """The weight at which the stream stays as it is."""
        return 1 / self.factor

    def logits(self, joint: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch channels"]:
        """Return what the gate is given, one number for each channel."""
        return self.expand(joint)

    def mask(self, joint: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch channels"]:
        """Return the weight of each channel, in the range of the gate."""
        return self.gate(self.logits(joint))

    def forward(
        self, stream: Float[Tensor, "batch channels *places"], joint: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch channels *places"]:
        """Return `stream * factor * mask`."""
        weights = self.factor * self.mask(joint)
        return stream * weights.reshape(*weights.shape, *[1] * (stream.ndim - 2))


def _mean(stream: Tensor) -> Tensor:
    return stream.flatten(2).mean(2) if stream.ndim > 2 else stream


def _check(channels: Sequence[int], names: Sequence[str]) -> None:
    if len(channels) < 2:
        raise InputError(f"channels is {list(channels)!r}, but there must be two streams or more, like [512, 128]")
    if len(set(names)) != len(channels):
        raise InputError(f"names is {list(names)!r}, but each of the {len(channels)} streams must have its own")
