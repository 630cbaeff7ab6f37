"""A network that classifies with what its attention attends to alone: PayAttention around any CNN.

[J] is Jetley, Lord, Lee and Torr, "Learn to pay attention", ICLR 2018.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from heedful.errors import InputError, unknown
from heedful.layers.pay_attention import AttentivePooling, Refinement, softmax
from heedful.surgery.dry_run import outputs
from heedful.surgery.stages import own_levels
from heedful.temporary import removing


class ConcatHead(nn.Module):
    """One linear map of the attended vectors of all levels, one behind the other: "concat" in [J].

    Args:
        widths: of the vectors.
        num_classes: number of outputs.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(widths), num_classes)

    def forward(self, vectors: Sequence[Float[Tensor, "batch _"]]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.linear(torch.cat(list(vectors), 1))


class IndependentHead(nn.Module):
    """One linear map a level, and the mean of the levels' probabilities: "indep" in [J].

    It puts out the logarithm of that mean, which a softmax turns back into it. The authors' code sums logarithms of
    probabilities for two levels, and logits for three.

    Args:
        widths: of the vectors.
        num_classes: number of outputs.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)

    def forward(self, vectors: Sequence[Float[Tensor, "batch _"]]) -> Float[Tensor, "batch classes"]:
        """Return the logarithm of the mean probability of each class."""
        each = [F.log_softmax(linear(vector), 1) for linear, vector in zip(self.linears, vectors, strict=True)]
        return torch.stack(each).logsumexp(0) - math.log(len(each))


HEADS: dict[str, type[ConcatHead] | type[IndependentHead]] = {"concat": ConcatHead, "indep": IndependentHead}
"""Name in the notation of variants -> how the attended vectors are classified."""


class PayAttention(nn.Module):
    """A network whose classifier sees nothing but attended local features: [J], around any CNN.

    The input of the network's last linear map is its global vector g. That map goes; at each level the features of all
    places are pooled by how well they fit g (`heedful.layers.pay_attention.AttentivePooling`), and a new head
    classifies the pooled vectors. Images may have any size that the network takes. The authors' backward pass averages
    the gradients of branches where the true gradient sums them; ours is the true one.

    Args:
        backbone: a network that ends in a linear map of one vector an image; it is changed in place, or not at all.
        layers: dotted names of the modules whose outputs are looked at, early to deep; one or more.
        compatibility: "dp" or "pc" of [J], or "additive"; see `heedful.layers.pay_attention`.
        head: "concat", or "indep".
        gate: `softmax`, or any of heedful's gates, which weighs each place by itself.
        project: where the widths differ: "global" projects g to the layer's, as [J] does, "local" the layer to g's.
        dropout: before the linear maps, in [0, 1]; [J]'s code: 0.5.
        example: an input of the network, for one that does not run on an image of 224 x 224 pixels.

    Raises:
        InputError: if a layer is unknown, puts out no feature map, or they are not in the order in which the network
            runs, the network has no global vector, or an argument is out of range.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layers: Sequence[str],
        *,
        compatibility: str = "pc",
        head: str = "concat",
        gate: Callable[[Tensor], Tensor] = softmax,
        project: str = "global",
        dropout: float = 0.5,
        example: Any = None,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise unknown("head", head, HEADS)
        if isinstance(layers, str) or not layers:
            raise InputError(f"layers is {layers!r}, but it must be a list of one or more names of modules")
        found, last = _inspected(backbone, layers, example)
        self.layers = tuple(layers)
        self.attention = nn.ModuleDict({
            f"at_{layer.replace('.', '__')}": AttentivePooling(
                level.channels, global_channels=last.linear.in_features, compatibility=compatibility, gate=gate,
                project=project, dropout=dropout,
            ) for layer, level in zip(layers, found, strict=True)
        })  # fmt: skip
        widths = [pooling.width for pooling in self._poolings()]
        self.refinement = nn.ModuleList(Refinement(width, dropout) for width in widths)
        self.head = HEADS[head](widths, last.linear.out_features)
        last.parent.__setattr__(last.attribute, nn.Identity())
        self.backbone = backbone
        for layer, level in zip(self.layers, found, strict=True):
            backbone.get_submodule(layer).register_forward_hook(_keep_copy if level.is_written else _keep)

    @property
    def levels(self) -> tuple[str, ...]:
        """Where class maps are taken: at the backbone's own levels down to the deepest layer, or at the layers."""
        own, deepest = own_levels(self.backbone), self.layers[-1]
        names = own[: own.index(deepest) + 1] if deepest in own else self.layers
        return tuple(f"backbone.{name}" for name in names)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        local, vector = self._looked(images)
        attended = [pooling(each, vector) for pooling, each in zip(self._poolings(), local, strict=True)]
        return self.head([refine(each) for refine, each in zip(self.refinement, attended, strict=True)])

    def global_vector(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch global_channels"]:
        """Return g of each image."""
        return self._looked(images)[1]

    def masks(
        self,
        images: Float[Tensor, "batch channels height width"],
        query: Float[Tensor, "rows query_channels"] | None = None,
    ) -> dict[str, Float[Tensor, "batch h w"]]:
        """Return by level the weight of each place; under a softmax those of an image sum to 1.

        Args:
            images: as the network takes them.
            query: global vectors that choose among the places instead of the images' own: one for each image, or one
                for all.

        Raises:
            InputError: if the query has another number of rows or columns.
        """
        local, vector = self._looked(images)
        if query is not None:
            if query.ndim != 2 or query.shape[1] != vector.shape[1] or len(query) not in (1, len(vector)):
                raise InputError(
                    f"query is {tuple(query.shape)}, but must be {tuple(vector.shape)}, or one such row for all images"
                )
            vector = query.expand_as(vector)
        found = [pooling.mask(each, vector)[:, 0] for pooling, each in zip(self._poolings(), local, strict=True)]
        return dict(zip(self.layers, found, strict=True))

    def _poolings(self) -> list[AttentivePooling]:
        return [pooling for pooling in self.attention.values() if isinstance(pooling, AttentivePooling)]

    def _looked(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features of all levels, and the global vector, from one pass of the backbone."""
        shelves = [_shelf(self.backbone.get_submodule(layer)) for layer in self.layers]
        thread = _thread()
        for shelf in shelves:
            shelf[thread] = None
        try:
            vector = self.backbone(images)
        finally:
            local = [shelf.pop(thread) for shelf in shelves]
        return local, vector


def _shelf(module: nn.Module) -> dict[int, Any]:
    """Return where a level's module leaves its features: by thread, so that several may share the network."""
    shelf: dict[int, Any] = module.__dict__.setdefault("_shelf", {})
    return shelf


def _keep(module: nn.Module, _inputs: Any, output: Tensor) -> None:
    """Leave a level's features where a pass waits for them."""
    shelf, thread = _shelf(module), _thread()
    if thread in shelf:
        shelf[thread] = output


def _keep_copy(module: nn.Module, inputs: Any, output: Tensor) -> None:
    """The same for a level whose output is written into by what follows, such as an in-place ReLU."""
    _keep(module, inputs, output.clone())


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


class _Level(NamedTuple):
    """A layer to look at: its channels, and whether what follows writes into its output."""

    channels: int
    is_written: bool


class LastLinear(NamedTuple):
    """The linear map that a network ends in, and where it stands."""

    linear: nn.Linear
    parent: nn.Module
    attribute: str


def _inspected(backbone: nn.Module, layers: Sequence[str], example: Any) -> tuple[list[_Level], LastLinear]:
    """Return the levels, and the network's last linear map."""
    modules = dict(backbone.named_modules())
    for name in layers:
        if name not in modules or not name:
            raise unknown("layer", name, [name for name in modules if name])
    linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    versions: dict[str, int] = {}
    hooks = [
        modules[name].register_forward_hook(lambda _m, _i, out, name=name: versions.update({name: _version(out)}))
        for name in layers
    ]
    with removing(hooks):
        found = outputs(backbone, [*layers, *linears, ""], example)
    widths = [_width(name, found[name]) for name in layers]
    if list(layers) != list(versions):
        raise InputError(
            f"layers are {', '.join(layers)}, but the network runs {', '.join(versions)}: name each once, in this order"
        )
    # The trial is in evaluation mode, in which a dropout writes nothing.
    drops = any(isinstance(module, _DropoutNd) and module.inplace for module in modules.values())
    written = [drops or _version(found[name][0]) != version for name, version in versions.items()]
    levels = [_Level(width, is_written) for width, is_written in zip(widths, written, strict=True)]
    return levels, last_linear(modules, {name: found[name] for name in linears}, found[""])


def last_linear(
    modules: Mapping[str, nn.Module], linear_calls: Mapping[str, list[Any]], results: list[Any]
) -> LastLinear:
    """Return the linear map whose output is the network's."""
    for name, calls in linear_calls.items():
        if calls and results and calls[-1] is results[-1] and calls[-1].ndim == 2:
            parent, _, attribute = name.rpartition(".")
            linear = modules[name]
            assert isinstance(linear, nn.Linear)
            return LastLinear(linear, modules[parent], attribute)
    raise InputError(
        "the network has no global vector: it must end in a linear map (nn.Linear) of one vector an image, as "
        "classifiers do that pool their last feature map"
    )


def _version(output: Any) -> int:
    """Return how often a tensor was written into."""
    return output._version if isinstance(output, Tensor) else 0


def _width(name: str, calls: list[Any]) -> int:
    if len(calls) != 1 or not isinstance(calls[0], Tensor) or calls[0].ndim != 4:
        raise InputError(
            f"layer {name!r} does not put out one feature map (N, C, H, W) in a forward pass: choose another layer"
        )
    return calls[0].shape[1]
