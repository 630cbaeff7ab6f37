"""A network as one file for other programs: ONNX, or torch's exported program; checked against the network itself."""

import copy
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful import files
from heedful.errors import InputError
from heedful.models.cards import ModelCard
from heedful.models.saved import Saveable

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}
TOLERANCE = 1e-4
EXPORTED_AT = 2  # a batch of 1 would be taken for a constant
CHECKED_AT = (1, 3)
BATCH = ({0: torch.export.Dim("batch", min=1)},)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    format: str = "onnx",
    example: Float[Tensor, "batch channels height width"] | None = None,
) -> float:
    """Write the network, in evaluation mode and with any batch size, and compare what was written with the network.

    Nothing stands at the path unless it passed. A network that `build` made brings its card: class names, mean,
    deviation and the rest go into the file (ONNX: metadata; torch: the extra file `card.json`) and into a JSON file
    beside it, `<path>.json`.

    Args:
        model: from images to one tensor; it stays as it is: a copy on the CPU in float32 is exported.
        path: of the file, in a folder that exists; it is replaced.
        format: `onnx`, run by onnxruntime and others; `torch`, read by `torch.export.load` without heedful.
        example: images of the size to export for; only the shape counts. None: what the network's card says.

    Returns:
        The largest difference between the file's outputs and the network's, on batches of 1 and 3 random images,
        relative to the largest output, or to 1 if that is larger.

    Raises:
        InputError: for an unknown format, an example that is missing, a network that cannot be exported, without the
            packages that the format needs, or if the difference is more than 1e-4. What stood at the path stays.
    """
    _check_format(format)
    path = Path(path)
    card = model.card if isinstance(model, Saveable) else None
    if card is not None and not isinstance(card, ModelCard):
        raise InputError(f"the network is for {card.task}, but only networks that classify images can be exported")
    shape = _image_shape(card, example)
    network = copy.deepcopy(model).cpu().float().eval()  # onnxruntime has no convolution of other types on the CPU
    batches = [torch.randn(size, *shape, generator=torch.Generator().manual_seed(size)) for size in CHECKED_AT]
    expected = [_logits(network, images) for images in batches]
    partial = path.with_name(f"{path.name}.partial")
    try:
        with _exporting():
            program = _program(network, torch.zeros(EXPORTED_AT, *shape))
            run = (_write_onnx if format == "onnx" else _write_torch)(program, partial, card)
        difference = max(_difference(run(images), logits) for images, logits in zip(batches, expected, strict=True))
        if difference > TOLERANCE:
            raise InputError(
                f"{path} was not written: what was exported differs from the network by {difference:.1e}, more than "
                f"{TOLERANCE:.0e}; the other format ({', '.join(set(SUFFIXES) - {format})}) may be exact"
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if card is not None:
        files.write(path.with_name(f"{path.name}.json"), json.dumps(asdict(card), indent=1, ensure_ascii=False))
    return difference


def _check_format(format: str) -> None:
    if format not in SUFFIXES:
        raise InputError(f"format is {format!r}, but it must be one of {', '.join(SUFFIXES)}")
    missing = [name for name in NEEDED[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"format={format!r} needs {', '.join(missing)}: pip install heedful[export]")


def _image_shape(card: ModelCard | None, example: Tensor | None) -> tuple[int, ...]:
    if example is not None:
        return tuple(example.shape[1:])
    if card is None:
        raise InputError("example is missing: the network has no card that tells its image size; give example=images")
    return card.in_channels, card.image_size, card.image_size


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        output = network(images)
    if not isinstance(output, Tensor):
        raise InputError(f"the network puts out a {type(output).__name__}, but only one tensor can be exported")
    return output


def _program(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=BATCH)


def _write_torch(
    program: torch.export.ExportedProgram, path: Path, card: ModelCard | None
) -> Callable[[Tensor], Tensor]:
    extra = {} if card is None else {"card.json": json.dumps(asdict(card), ensure_ascii=False)}
    with path.open("wb") as file:  # by its name, torch would ask for the ending .pt2
        torch.export.save(program, file, extra_files=extra)
    with path.open("rb") as file:
        module: nn.Module = torch.export.load(file).module()
    return module


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, card: ModelCard | None
) -> Callable[[Tensor], Tensor]:
    import onnxruntime  # type: ignore[import-untyped]

    onnx = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["images"], output_names=["logits"], dynamic_shapes=BATCH
    )
    assert onnx is not None
    for name, value in ({} if card is None else asdict(card)).items():
        onnx.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    onnx.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    error = (found - expected).abs().max() / expected.abs().max().clamp(min=1)
    return error.item() if error.isfinite() else float("inf")


@contextmanager
def _exporting() -> Iterator[None]:
    """Tell what torch could not export as the user's error, and keep its advice to developers from the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # of whatever kind torch, onnxscript and onnxruntime raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the network cannot be exported: {reason}") from error
    finally:
        logger.setLevel(level)
