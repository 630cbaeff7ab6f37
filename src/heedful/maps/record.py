"""Record what layers of a network put out, so that maps can be computed from it: the one place with forward hooks."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import InputError, unknown
from heedful.surgery.stages import SMALLEST_SIDE, Finished, finishing, stage_ends
from heedful.temporary import evaluation_mode, frozen, removing

Reshape = Callable[[Tensor], Tensor]
_ONE_AT_A_TIME = threading.RLock()
"""Evaluation mode belongs to the network, not to the thread: recordings in several threads wait for each other."""


@dataclass(frozen=True)
class Recording:
    """What a forward pass left.

    Args:
        outputs: layer -> its output, from which gradients can be taken.
        linears: every linear map of (N, channels) that was called: the module, its input, its output, and the output's
            version, by which a later change in place is known.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    linears: list[tuple[nn.Linear, Tensor, Tensor, int]] = field(default_factory=list)


@contextmanager
def recorded(model: nn.Module, layers: Sequence[str], *, keep_graph: bool = False) -> Iterator[Recording]:
    """Within the context, a forward pass of the model, `unwrapped`, fills the recording that this yields.

    No gradient is carried below the first of the layers to be reached: the trunk before it runs without a graph, its
    output becomes a leaf, and the graph starts there. Works under `no_grad` and `inference_mode`, with frozen
    parameters, and in several threads. The model is in evaluation mode, and what `torch.compile` made runs eagerly. On
    leaving, also by an exception, hooks, training mode and gradient mode are as they were.

    Args:
        model: any module.
        layers: dotted names of modules that put out one tensor.
        keep_graph: leave the graph, the modes and what is compiled alone: for losses, whose gradient goes through the
            trunk.

    Raises:
        InputError: if a name is not among the model's modules; in the forward pass, if a layer is called twice or puts
            out something else than a tensor.
    """
    modules = dict(model.named_modules())
    for layer in layers:
        if layer not in modules:
            raise unknown("layer", layer, [name for name in modules if name])
    recording, thread = Recording(), threading.get_ident()

    def keep(layer: str, output: Any) -> Tensor | None:
        if threading.get_ident() != thread:
            return None
        if not isinstance(output, Tensor):
            raise InputError(f"layer {layer!r} puts out a {type(output).__name__}, not a tensor: choose another layer")
        if layer in recording.outputs:
            raise InputError(
                f"layer {layer!r} is called twice in a forward pass, so that it has no one map: choose another layer"
            )
        if not keep_graph and not recording.outputs:
            torch.set_grad_enabled(True)
            output = output.detach()
        recording.outputs[layer] = output if output.requires_grad else output.detach().requires_grad_()
        return recording.outputs[layer].clone()  # what follows may write into its input, as an in-place ReLU does

    def note(module: nn.Linear, inputs: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == thread and inputs and inputs[0].ndim == 2:
            recording.linears.append((module, inputs[0], output, output._version))

    # Before the layer's own hooks: those of PayAttention then take what `keep` returns, which is in the graph.
    hooks = [
        modules[name].register_forward_hook(lambda _m, _i, out, name=name: keep(name, out), prepend=True)
        for name in layers
    ]
    # As the first of its hooks, `note` sees what the module itself put out.
    hooks += [
        module.register_forward_hook(note, prepend=True)
        for module in modules.values()
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    ]
    with ExitStack() as stack:
        stack.enter_context(removing(hooks))
        if not keep_graph:
            stack.enter_context(undisturbed(model))
        yield recording


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within the context the model is in evaluation mode, eager, frozen and without gradients; one thread at a time.

    Frozen, since what is only needed for the gradients of parameters would be kept else.
    """
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    with _ONE_AT_A_TIME:
        # It takes effect as it is made, and remembers the stance of this moment.
        eager = torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
        # no_grad restores the mode that `keep` changes; outside of inference mode, whose tensors can have no gradient
        with eager, evaluation_mode(model), frozen(model), torch.inference_mode(False), torch.no_grad():
            yield


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network that `torch.compile`, `DataParallel` or `DistributedDataParallel` was given."""
    while True:
        if "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def require_map(layer: str, output: Tensor, images: Tensor) -> None:
    """Raise an InputError unless what a layer puts out is a feature map of at least 4 x 4 places."""
    if output.ndim != 4 or min(output.shape[2:]) < SMALLEST_SIDE:
        height, width = images.shape[2:]
        raise InputError(
            f"layer {layer!r} puts out {tuple(output.shape[1:])} on images of {height} x {width} pixels, but a map "
            f"needs {SMALLEST_SIDE} x {SMALLEST_SIDE} places: give larger images, or name an earlier layer"
        )


def last_layer(model: nn.Module, images: Tensor) -> str:
    """Return the name of the module that finishes last with a feature map of at least 4 x 4 places.

    For networks that end in pooling and a linear map this is the last stage, where class maps are usually taken, unless
    the images are so small that a map from there would show nothing: then it is an earlier one. Of a network that has
    `levels` of its own, such as `heedful.PayAttention`, only these count.

    Args:
        model: any module.
        images: one or more images (N, C, H, W) to run it on.

    Raises:
        InputError: if no module puts out such a feature map.
    """
    finished = _finished(model, images)
    if not finished:
        raise InputError("no module of this network puts out a feature map (N, C, H, W) of at least 4 x 4 places")
    return finished[-1][0]


def last_layers(model: nn.Module, images: Tensor) -> tuple[str, str]:
    """Return the module that finishes last with a feature map of 4 x 4 places, and that which ends the stage before.

    In a ResNet these are its last two stages, in [W] ("Sharpen Focus", Wang et al. 2019) the inner and the last layer.

    Args:
        model: any module.
        images: one or more images (N, C, H, W) to run it on.

    Raises:
        InputError: if there are no two such resolutions.
    """
    finished = _finished(model, images)
    last = finished[-1] if finished else ("", (0, 0))
    inner = stage_ends([each for each in finished if each[1][0] * each[1][1] > last[1][0] * last[1][1]])
    if not inner:
        height, width = images.shape[2:]
        raise InputError(
            f"on images of {height} x {width} pixels this network has no two resolutions of at least 4 x 4 places: "
            f"give larger images, for example {2 * height} x {2 * width}, or name the layers"
        )
    return inner[-1], last[0]


def _finished(model: nn.Module, images: Tensor) -> list[Finished]:
    """Return name and resolution of the modules that put out a feature map of 4 x 4 places, as they finish."""
    with finishing(model) as finished, undisturbed(model):
        model(images)
    return finished
