"""A network on disk: weights in `model.safetensors`, how to rebuild it and feed it in `model.json`."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HFValidationError
from pydantic import TypeAdapter, ValidationError
from torch import nn

from heedful import files
from heedful.errors import InputError
from heedful.models.cards import CARDS, Card, ClipCard, DetectorCard
from heedful.surgery.mixing import Mixed, mix

WEIGHTS, CARD = "model.safetensors", "model.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PAGE = """---
{{ card_data }}
---

# {{ model }}, {{ variant }}

`{{ model }}` with `{{ variant }}`:
{{ num_classes }} classes{% if image_size %}, images of {{ image_size }} pixels{% endif %}.

```python
import heedful

model = heedful.load("this repository's id")
model.card
```
"""
"""The README beside the weights; huggingface_hub fills it in."""


PIPELINES = {
    "classification": "image-classification",
    "clips": "video-classification",
    "detection": "object-detection",
}
"""Task -> what the Hub calls it."""


class Saveable(Mixed, huggingface_hub.ModelHubMixin, model_card_template=PAGE, library_name="heedful"):
    """A network that `build` made: `save_pretrained(folder)` and `push_to_hub(repo_id)` of huggingface_hub.

    Both write what `save` writes, and a README; `heedful.load` reads it.
    """

    card: Card

    def __new__(cls, *_args: Any, **_options: Any) -> "Saveable":
        """Return a blank network; the Hub's own would give copies a configuration of the constructor's defaults."""
        return object.__new__(cls)

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        _check_rebuilt(self, self.card)
        save(self, self.card, save_directory)

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # takes no options of the model: its card has them
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None,
    ) -> nn.Module:  # fmt: skip
        if Path(model_id).is_dir():
            return load(model_id)
        folder = huggingface_hub.snapshot_download(
            model_id, revision=revision, cache_dir=cache_dir, force_download=force_download,
            local_files_only=local_files_only, token=token, allow_patterns=[WEIGHTS, CARD],
        )  # fmt: skip
        return load(folder)

    def generate_model_card(self, *args: Any, **options: Any) -> huggingface_hub.ModelCard:
        """Return the README of this network; the arguments fill in further fields of the template."""
        options = {**asdict(self.card), "num_classes": len(self.card.classes), **options}
        page = super().generate_model_card(*args, **options)
        page.data["pipeline_tag"] = PIPELINES[self.card.task]
        return page


def saveable(model: nn.Module, card: Card) -> None:
    """Give the network `card`, `save_pretrained` and `push_to_hub`, in place; a second call exchanges the card."""
    if not isinstance(model, Saveable):
        mix(model, Saveable)
    model.card = card  # type: ignore[assignment]  # nn.Module's stub allows tensors and modules alone


def save(model: nn.Module, card: Card, folder: Path) -> None:
    """Write `model.safetensors` and `model.json` into the folder, each in one step."""
    from safetensors.torch import save_model

    partial = folder / f"{WEIGHTS}.partial"
    try:
        save_model(model, str(partial))
        os.replace(partial, folder / WEIGHTS)
    finally:
        partial.unlink(missing_ok=True)
    files.write(folder / CARD, json.dumps(asdict(card), indent=1, ensure_ascii=False))


def read_card(folder: Path) -> Card:
    """Return what `save` wrote into `model.json`.

    Raises:
        InputError: if the folder holds no trained model, or its `model.json` cannot be understood.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder} holds no trained model (no {CARD}): give the folder of a finished run")
    try:
        text = path.read_bytes()
        kind = CARDS[json.loads(text).get("task", "classification")]
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        reason = "".join(f"{part}: " for part in first["loc"]) + first["msg"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error)
    raise InputError(f"{path} is damaged, or of another version of heedful: {reason}")


def load(model: str | Path, *, revision: str | None = None) -> nn.Module:
    """Return a saved network, in evaluation mode; nothing is unpickled.

    Args:
        model: a folder with `model.safetensors` and `model.json`, as that of each run and of `save_pretrained`; or the
            id of such a repository on the Hugging Face Hub, `owner/name`.
        revision: branch, tag or commit on the Hub.

    Raises:
        InputError: if there is no such folder or repository, a file is missing or damaged, or the weights do not fit.
    """
    folder = _folder_of(str(model), revision)
    card = read_card(folder)
    network = _rebuilt(card)
    _fill(network, folder / WEIGHTS)
    saveable(network, card)
    return network.eval()


def _rebuilt(card: Card) -> nn.Module:
    # Those that build make what they build saveable: each module needs the other.
    if isinstance(card, ClipCard):
        return _rebuilt_streams(card)
    if isinstance(card, DetectorCard):
        return _rebuilt_detector(card)
    from heedful.models import build

    return build(
        card.model,
        card.variant,
        num_classes=len(card.classes),
        in_channels=card.in_channels,
        reduction=card.reduction,
        convention=card.convention,
        start=card.start,
    )


def _rebuilt_streams(card: ClipCard) -> nn.Module:
    from heedful.models.build_streams import build_streams

    return build_streams(
        card.model,
        card.variant,
        num_classes=len(card.classes),
        shapes={name: stream.shape for name, stream in card.streams.items()},
        reduction=card.reduction,
        factor=card.factor,
        start=card.start,
    )


def _rebuilt_detector(card: DetectorCard) -> nn.Module:
    from heedful.models.detection import detector_of

    return detector_of(card)


def _folder_of(model: str, revision: str | None) -> Path:
    if Path(model).exists():
        return Path(model)
    if not HUB_ID.fullmatch(model):
        raise InputError(f"{model}: no such folder; give a run's folder, or the id of a network on the Hub, owner/name")
    try:
        folder = huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=[WEIGHTS, CARD])
    except (OSError, HFValidationError) as error:  # the Hub's own errors are OSErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{model}: no such folder here, and no such network on the Hub ({reason})") from None
    return Path(folder)


def _fill(network: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    if not path.is_file():
        raise InputError(f"{path} is missing: without its weights the network cannot be loaded")
    try:
        load_model(network, str(path))
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}): copy or download it again") from None
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network of {CARD}: {error}") from None


def _check_rebuilt(model: nn.Module, card: Card) -> None:
    """Raise InputError if `load` would make another network of the card than this one."""
    with torch.device("meta"):
        twin = _rebuilt(card)
    for described, of in ((_shapes, "parameters and buffers"), (_gates, "gates")):
        ours, theirs = described(model), described(twin)
        if ours != theirs:
            changed = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
            raise InputError(
                f"the network was changed after it was built: its {of} are not those that {card.model!r} with "
                f"{card.variant!r} has, first at {changed[0]!r}; build it as it is now, or put what it is now into its "
                "card (model.card)"
            )


def _shapes(model: nn.Module) -> dict[str, str]:
    return {name: str(tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


def _gates(model: nn.Module) -> dict[str, str]:
    return {name: repr(module.gate) for name, module in model.named_modules() if hasattr(module, "gate")}
