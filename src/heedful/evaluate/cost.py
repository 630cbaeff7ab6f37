"""What a network costs: parameters, floating-point operations, memory kept for the backward pass, and time."""

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from heedful.errors import InputError
from heedful.models import build, image_size_of
from heedful.temporary import evaluation_mode
from heedful.variant import parse

if TYPE_CHECKING:
    from rich.table import Table

MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """What one network costs, beside the first one that was measured with it.

    Args:
        name: of the network or variant.
        parameters: number, trainable and frozen.
        flops: floating-point operations for one image, a multiply-add counted as two.
        saved_bytes: kept for the backward pass of one batch (see `saved_bytes`).
        training_ratio: time of a forward and backward pass, divided by that of the first network; None: not measured.
        inference_ratio: time of a forward pass in evaluation mode, likewise.
    """

    name: str
    parameters: int
    flops: int
    saved_bytes: int
    training_ratio: float | None = None
    inference_ratio: float | None = None


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable and frozen parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def num_flops(model: nn.Module, image: Any) -> int:
    """Return the floating-point operations of one forward pass, a multiply-add counted as two.

    Convolutions and matrix products count, as in `torch.utils.flop_counter`; element-wise work does not.

    Args:
        model: run in evaluation mode.
        image: (1, C, H, W), or what else the network takes for one.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with evaluation_mode(model), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())


def saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Return the bytes that a training step keeps from its forward pass for the backward pass.

    Tensors that share memory count once, parameters and buffers not at all. Nothing is computed on the meta device,
    where it is known just as well.

    Args:
        model: a copy of it is run in training mode; it stays as it is.
        images: a batch (N, C, H, W), on the model's device.
    """
    model = copy.deepcopy(model).train()
    return kept_bytes(model, lambda: model(images))


def kept_bytes(model: nn.Module, compute: Callable[[], object]) -> int:
    """Return the bytes that are kept for the backward pass as something is computed with a model; see `saved_bytes`.

    Args:
        model: whose parameters and buffers do not count.
        compute: what is done; its result is thrown away.
    """
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages too: the place of a freed one would be taken by another

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor.untyped_storage()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = compute()
    del output
    return sum(storage.nbytes() for storage in kept.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@torch.inference_mode()
def inference_seconds(model: nn.Module, images: Any, *, repetitions: int = 10) -> float:
    """Return the least wall-clock seconds for one image, over repeated passes of this batch after a warm-up.

    The least, since other work on the machine only ever adds to it.

    Args:
        model: run in evaluation mode.
        images: (N, C, H, W), a list of N, or a dict of tensors of N, on the model's device.
        repetitions: number of timed passes.
    """
    device = next(model.parameters()).device
    with evaluation_mode(model):
        seconds = [_seconds(lambda: model(images), device) for _ in range(1 + repetitions)]
    return min(seconds[1:]) / len(next(iter(images.values())) if isinstance(images, dict) else images)


def first(images: Any) -> Any:
    """Return the first of a batch, as a batch; kinds of batches as for `inference_seconds`."""
    return {name: each[:1] for name, each in images.items()} if isinstance(images, dict) else images[:1]


def cost(models: Mapping[str, nn.Module], images: Tensor, *, repetitions: int = 5) -> list[Cost]:
    """Return what each network costs, in the order given; times as ratios to the first one.

    Each repetition times every network once, in turn forwards and backwards through the list, and a ratio is the median
    over the repetitions of the ratio within one: what slows the machine for a while slows both alike. A training step
    is a forward and a backward pass, without the optimiser, whose work grows with the parameters alone.

    Args:
        models: name -> network, all on the images' device; they stay as they are.
        images: the batch (N, C, H, W) that is run; at least two images, since batch norm needs them in training.
        repetitions: number of timed passes of each kind; 0: no times.

    Raises:
        InputError: if there are fewer than two images, repetitions is negative, or a network fails on the images.
    """
    if len(images) < 2:
        raise InputError(f"images holds {len(images)}, but training with batch norm needs a batch of at least 2")
    if repetitions < 0:
        raise InputError(f"repetitions is {repetitions}, but it must be 0 (no times) or more")
    try:
        training = _ratios({name: _training_step(model, images) for name, model in models.items()}, images, repetitions)
        inference = _ratios({name: _inference(model, images) for name, model in models.items()}, images, repetitions)
        return [
            Cost(
                name=name,
                parameters=num_parameters(model),
                flops=num_flops(model, images[:1]),
                saved_bytes=saved_bytes(model, images),
                training_ratio=training.get(name),
                inference_ratio=inference.get(name),
            )
            for name, model in models.items()
        ]
    except RuntimeError as error:
        shape = " x ".join(map(str, images.shape))
        raise InputError(f"the network cannot be run on images of {shape}: {str(error).splitlines()[0]}") from error


def costs_of_variants(
    model: str,
    variants: Iterable[str],
    *,
    image_size: int | None = None,
    batch_size: int = 8,
    num_classes: int = 1000,
    device: torch.device | str = "cpu",
    repetitions: int = 5,
) -> list[Cost]:
    """Return what a network costs with each variant of attention in it; the first is the plain one, unless given.

    Args:
        model: a name, as for `heedful.build`.
        variants: in the notation.
        image_size: side in pixels; None: the size that the network was made for.
        batch_size: images for memory and time, at least 2.
        num_classes: number of outputs.
        device: where to measure.
        repetitions: see `cost`.

    Raises:
        InputError: for an unknown model or variant, a number that is too small, or images that the network cannot be
            run on.
    """
    side = image_size_of(model) if image_size is None else image_size
    for what, value, least in (("image_size", side, 1), ("batch_size", batch_size, 2), ("num_classes", num_classes, 1)):
        if value < least:
            raise InputError(f"{what} is {value}, but it must be at least {least}")
    names = list(dict.fromkeys(str(parse(text)) for text in variants))
    names = names if "none" in names else ["none", *names]
    models = {name: build(model, name, num_classes=num_classes).to(device) for name in names}
    images = torch.randn(batch_size, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    return cost(models, images, repetitions=repetitions)


def chosen_device(name: str) -> torch.device:
    """Return the device of this name; auto: a GPU where there is one.

    Raises:
        InputError: if this machine has no such device.
    """
    there = [kind for kind, module in (("cuda", torch.cuda), ("mps", torch.mps)) if module.is_available()]
    if name != "auto" and name != "cpu" and name not in there:
        raise InputError(f"device is {name!r}, but this machine has {', '.join(['cpu', *there])}")
    return torch.device(name if name != "auto" else [*there, "cpu"][0])


def _training_step(model: nn.Module, images: Tensor) -> Callable[[], None]:
    model = copy.deepcopy(model).train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(images).float().square().mean().backward()

    return step


def _inference(model: nn.Module, images: Tensor) -> Callable[[], None]:
    def infer() -> None:
        with evaluation_mode(model), torch.inference_mode():
            model(images)

    return infer


def _ratios(works: Mapping[str, Callable[[], None]], images: Tensor, repetitions: int) -> dict[str, float]:
    """Return name -> median over the repetitions of its time divided by the first one's."""
    if not repetitions:
        return {}
    names = list(works)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(1 + repetitions):
        order = names if repetition % 2 else names[::-1]
        seconds = {name: _seconds(works[name], images.device) for name in order}
        if repetition:  # the first warms up
            for name in names:
                ratios[name].append(seconds[name] / seconds[names[0]])
    return {name: statistics.median(values) for name, values in ratios.items()}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def as_rich(costs: list[Cost], title: str) -> "Table":
    """Return the costs as a table for the terminal: millions of parameters, giga multiply-adds, MiB, ratios."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption_justify="left", caption=_CAPTION)
    table.add_column("variant")
    for heading in ("M parameters", "GFLOPs", "saved MiB", "saved", "training", "inference"):
        table.add_column(heading, justify="right")
    first = costs[0]
    for row in costs:
        table.add_row(
            row.name,
            f"{row.parameters / 1e6:.2f}",
            _significant(row.flops / 2e9),
            f"{row.saved_bytes / MIB:.1f}",
            _ratio(row.saved_bytes / first.saved_bytes),
            _ratio(row.training_ratio),
            _ratio(row.inference_ratio),
        )
    return table


_CAPTION = (
    "GFLOPs: of one image, a multiply-add counted as one, as papers do; element-wise work is not counted. "
    "saved: memory of a batch kept for the backward pass. training, inference: time, as a ratio to the first row."
)


def _significant(giga: float) -> str:
    return f"{giga:.2f}" if giga >= 1 else f"{giga:.3f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}×"
