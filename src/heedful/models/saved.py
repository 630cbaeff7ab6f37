"""A trained network on disk: weights in `model.safetensors`, how to rebuild it and feed it in `model.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from heedful.errors import InputError
from heedful.models import build


@dataclass(frozen=True)
class ModelCard:
    """What is needed to rebuild a network and to prepare images for it.

    Args:
        model: name, as for `build`.
        variant: the attention in it, in the notation.
        reduction: of the attention's MLPs.
        classes: names of the outputs, in order.
        image_size: side in pixels of the images it was trained on.
        mean: of each colour channel, in [0, 1], subtracted from the image.
        deviation: of each colour channel, by which the image is then divided.
    """

    model: str
    variant: str
    reduction: int
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def save(model: nn.Module, card: ModelCard, folder: Path) -> None:
    """Write `model.safetensors` and `model.json` into the folder."""
    from safetensors.torch import save_model

    save_model(model, str(folder / "model.safetensors"))
    (folder / "model.json").write_text(json.dumps(asdict(card), indent=1, ensure_ascii=False), encoding="utf-8")


def read_card(folder: Path) -> ModelCard:
    """Return what `save` wrote into `model.json`.

    Raises:
        InputError: if the folder holds no trained model.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no trained model (no model.json): give the folder of a finished run")
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in ("classes", "mean", "deviation"):
        fields[name] = tuple(fields[name])
    return ModelCard(**fields)


def load(folder: str | Path) -> nn.Module:
    """Return the network of a finished run, in evaluation mode; nothing is unpickled.

    Args:
        folder: holds `model.safetensors` and `model.json`, as the folder of each run does.

    Raises:
        InputError: if the folder holds no trained model.
    """
    from safetensors.torch import load_model

    folder = Path(folder)
    card = read_card(folder)
    model = build(card.model, card.variant, num_classes=len(card.classes), reduction=card.reduction)
    load_model(model, str(folder / "model.safetensors"))
    return model.eval()
