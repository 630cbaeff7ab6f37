"""Two or more networks that see the same event, fused: by MMTM at named depths, by their logits, or by their vectors.

[L] is Laakom et al., "Learning to ignore", BMVC 2021, section 4.3; MMTM is Joze et al., CVPR 2020.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.layers.mmtm import MMTM
from heedful.models.meeting import Depth, check, depths, ending, looked, num_classes_of
from heedful.surgery.steps import steps
from heedful.variant import Fusion, parse_fusion


class TwoStream(nn.Module):
    """Any CNNs, one for each stream, and what fuses them; two streams or more, in spite of the name.

    - `mmtm`, or with a gate `mmtm-ign1(0.5)`: at every depth the streams weight each other's channels
      (`heedful.layers.mmtm.MMTM`), and the mean of their logits is the result, as in the code of MMTM's authors.
    - `late`: the mean of the logits alone.
    - `concat`: what goes into the last linear maps, side by side, goes into one new linear map.

    A stream may be absent, for the whole batch or for some of its elements. Then it has the mean 0 in every MMTM, the
    zero vector in `concat`, and no part in the mean of the logits, so that an element depends on what it has alone
    (but for batch norms in training). With `drop` this happens at random in training.

    The forwards of the streams, and of modules that hold a layer where streams meet, are run node by node of their
    graphs (`heedful.surgery.steps`): they must not depend on the values of their input, and their own hooks do not run.

    Args:
        streams: name -> network that ends in a linear map of one vector, all with the same number of classes. They
            become parts of this network; `concat` takes their last linear map away.
        fusion: "mmtm", "mmtm-" and a gate, "late" or "concat"; or what `heedful.variant` makes of it.
        at: the depths, early to deep, where MMTM stands, for two or more of the streams each. None: the streams' own
            `levels`, the deepest with the deepest. Of this, `reduction` and `factor`, `late` and `concat` make no use.
        drop: in training, the share of the elements that lack one of their streams, in [0, 1]; each is as likely.
        reduction: see `MMTM`.
        factor: see `MMTM`.
        examples: name -> an input of that stream, with which the widths of its layers are found; needed for networks
            that have no `input_shape` and do not take an image.

    Raises:
        InputError: if there are less than two streams, a name or number is not what it may be, a layer is unknown or
            the network cannot be stopped there, the layers are not in the order in which a stream runs, or the streams
            differ in classes.
    """

    def __init__(
        self, streams: Mapping[str, nn.Module], *, fusion: str | Fusion = "mmtm", at: Sequence[Depth] | None = None,
        drop: float = 0.0, reduction: int = 4, factor: float = 1.0, examples: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check(streams, examples or {}, drop)
        fusion = parse_fusion(fusion) if isinstance(fusion, str) else fusion
        self.at = depths(streams, at) if fusion.name == "mmtm" else []
        self.drop = drop
        found = {name: looked(name, each, self.at, (examples or {}).get(name)) for name, each in streams.items()}
        num_classes = num_classes_of(found)
        self.mmtm = nn.ModuleList()
        for depth in self.at:
            widths = [found[name].widths[layer] for name, layer in depth.items()]
            self.mmtm.append(MMTM(widths, reduction=reduction, gate=fusion.gate, factor=factor, names=list(depth)))
        self.head: nn.Module = MeanLogits()
        if fusion.name == "concat":
            lasts = [ending(streams[name], each) for name, each in found.items()]
            self.head = ConcatVectors([last.linear.in_features for last in lasts], num_classes)
            for last in lasts:
                last.parent.__setattr__(last.attribute, nn.Identity())
        self.streams = nn.ModuleDict(streams)

    def forward(
        self, inputs: Mapping[str, Tensor | None], present: Mapping[str, Bool[Tensor, " _"]] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes.

        Args:
            inputs: name -> batch of that stream; a stream that is None or left out is absent.
            present: name -> whether each element has that stream, (N,); a stream left out is there wherever `inputs`
                has it. None: all are, or in training all but those that `drop` draws.

        Raises:
            InputError: if a stream is unknown, the batch sizes differ, or an element has no stream.
        """
        given = self._given(inputs)
        here = self._present(given, present)
        values = self._run(given, here)
        return self.head([values.get(name) for name in self.streams], list(here.values()))

    def _run(self, given: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each stream puts out, after all have waited for each other at every depth."""
        layers = {name: [depth[name] for depth in self.at if name in depth] for name in given}
        runs = {name: steps(self.streams[name], layers[name], x) for name, x in given.items()}
        values: dict[str, Any] = {name: next(run) for name, run in runs.items()}
        for depth, mmtm in zip(self.at, self.mmtm, strict=True):
            met = [name for name in depth if name in given]
            if met:
                fused = mmtm([values.get(name) for name in depth], [here[name] for name in depth])
                by_name = dict(zip(depth, fused, strict=True))
                values.update({name: runs[name].send(by_name[name]) for name in met})
        return values

    def _given(self, inputs: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        for name in inputs:
            if name not in self.streams:
                raise unknown("stream", name, self.streams)
        given = {name: x for name, x in inputs.items() if x is not None}
        if len({len(x) for x in given.values()}) != 1:
            sizes = ", ".join(f"{name} {len(x)}" for name, x in given.items())
            raise InputError(
                f"the streams must be batches of one size, one stream at least, but are: {sizes or 'none'}"
            )
        return given

    def _present(
        self, given: Mapping[str, Tensor], present: Mapping[str, Tensor] | None
    ) -> dict[str, Bool[Tensor, " _"]]:
        """Return for each stream which elements of the batch have it."""
        some = next(iter(given.values()))
        here = {
            name: torch.full((len(some),), name in given, dtype=torch.bool, device=some.device)
            for name in self.streams
        }  # fmt: skip
        if present is None and self.training and self.drop > 0 and len(given) > 1:
            here.update(zip(given, all_but_one(len(given), len(some), self.drop, some.device), strict=True))
        for name, each in (present or {}).items():
            if name not in self.streams or each.shape != (len(some),):
                raise InputError(
                    f"present has {name!r} of shape {tuple(each.shape)}, but it must name one of "
                    f"{', '.join(self.streams)}, each with {len(some)} truth values"
                )
            here[name] = here[name] & each
        if present is not None and not torch.stack(list(here.values())).any(0).all():
            raise InputError("an element of the batch has no stream: leave it out of the batch")
        return here


class MeanLogits(nn.Module):
    """The mean of the logits of those streams that an element has."""

    def forward(
        self, logits: Sequence[Float[Tensor, "batch classes"] | None], present: Sequence[Bool[Tensor, " batch"]]
    ) -> Float[Tensor, "batch classes"]:
        """Return the mean over the streams."""
        known = [
            torch.where(here[:, None], each, 0) for each, here in zip(logits, present, strict=True) if each is not None
        ]
        return torch.stack(known).sum(0) / torch.stack(list(present)).sum(0)[:, None]


class ConcatVectors(nn.Module):
    """One linear map of the vectors of all streams side by side; the control of plain concatenation.

    Args:
        widths: of the vectors.
        num_classes: number of outputs.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.linear = nn.Linear(sum(widths), num_classes)

    def forward(
        self, vectors: Sequence[Float[Tensor, "batch _"] | None], present: Sequence[Bool[Tensor, " batch"]]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits; the vector of a stream that an element lacks is 0."""
        some = next(vector for vector in vectors if vector is not None)
        rows = [
            some.new_zeros(len(some), width) if vector is None else torch.where(here[:, None], vector, 0)
            for vector, width, here in zip(vectors, self.widths, present, strict=True)
        ]
        return self.linear(torch.cat(rows, 1))


def all_but_one(
    num_streams: int, num_elements: int, share: float, device: torch.device | None = None
) -> Bool[Tensor, "streams elements"]:
    """Return which streams each element keeps: with probability `share` it loses one, each as likely.

    Args:
        num_streams: 2 or more.
        num_elements: of the batch.
        share: in [0, 1].
        device: of the result, from whose generator is drawn.
    """
    lost = torch.randint(num_streams, (num_elements,), device=device)
    loses = torch.rand(num_elements, device=device) < share
    return (torch.arange(num_streams, device=device)[:, None] != lost) | ~loses
