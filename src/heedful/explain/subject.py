"""The network to explain, with what it needs: names of its classes, and how an image file is prepared for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from heedful.data.batches import Channels, normalise
from heedful.data.folder import LARGEST_IN_MEMORY
from heedful.data.images import read_square
from heedful.errors import InputError, unknown
from heedful.models.cards import Card, ModelCard
from heedful.models.saved import CARD, HUB_ID, WEIGHTS, Saveable, load, read_card

Reader = Callable[[Path], UInt8[np.ndarray, "height width 3"]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and how to show it image files.

    Args:
        title: what it is, for people.
        model: from normalised images to logits, in evaluation mode.
        classes: names of its outputs, in order; they may repeat.
        other_names: of the same outputs, or empty: WordNet's for networks of ImageNet.
        read: from a file to the pixels that the network sees, as when it was trained or tested.
        mean: of each colour channel, in [0, 1].
        deviation: likewise.
        size: height and width of what `read` returns.
        warning: what a reader of its maps must know; empty if nothing.
        multi_label: whether an image can be of several classes.
    """

    title: str
    model: nn.Module
    classes: tuple[str, ...]
    read: Reader
    mean: Channels
    deviation: Channels
    size: tuple[int, int]
    other_names: tuple[str, ...] = ()
    warning: str = ""
    multi_label: bool = False

    def numbers(self, name: str) -> list[int]:
        """Return the classes of this name, whatever its capitals: usually one or none."""
        wanted = name.strip().casefold()
        names = [*enumerate(self.classes), *enumerate(self.other_names)]
        return sorted({number for number, each in names if each.casefold() == wanted})

    def normalised(self, pixels: UInt8[np.ndarray, "batch height width 3"]) -> Float32[Tensor, "batch 3 height width"]:
        """Return images as the network takes them."""
        return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.mean, self.deviation)


def subject(model: str | Path, *, pretrained: bool = True) -> Subject:
    """Return the network of a run or of timm.

    Args:
        model: a run's folder or one of `save_pretrained`, a name of timm's, or the id of a saved network on the Hugging
            Face Hub, owner/name.
        pretrained: for a name of timm's: with its pretrained weights, else with random ones.

    Raises:
        InputError: if there is no such network, its weights cannot be had, or it takes no RGB images.
    """
    import timm

    name = str(model)
    if _is_saved(name):
        return _of_run(load(model))
    if not timm.is_model(name):
        raise unknown("model", name, timm.list_models(), where="no such folder, and no such network of timm's: ")
    return _of_timm(name, pretrained)


def card_of(model: str | Path) -> Card | None:
    """Return what a saved network is described by; None of one of timm's, or what is none. Arguments as `subject`'s."""
    name, folder = str(model), Path(model)
    if _is_saved(name) and not folder.exists():
        try:
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=[WEIGHTS, CARD]))
        except (OSError, HFValidationError):  # `load` says what is wrong
            return None
    return read_card(folder) if (folder / CARD).is_file() else None


def _is_saved(name: str) -> bool:
    """Return whether this can be only a folder, or a network on the Hub."""
    import timm

    return Path(name).exists() or (HUB_ID.fullmatch(name) is not None and not timm.is_model(name))


def _card(model: nn.Module) -> Card:
    assert isinstance(model, Saveable)
    return model.card


def _of_run(model: nn.Module) -> Subject:
    card = _card(model)
    if not isinstance(card, ModelCard):
        raise InputError(
            f"{card.model} is a network for {card.task}, which has no maps of classes in images: give one that "
            "classifies images"
        )
    _check_channels(card.in_channels)
    red, green, blue = card.mean
    red_deviation, green_deviation, blue_deviation = card.deviation
    return Subject(
        title=card.model if card.variant == "none" else f"{card.model} with {card.variant}",
        model=model,
        classes=card.classes,
        read=_reader(card.image_size),
        mean=(red, green, blue),
        deviation=(red_deviation, green_deviation, blue_deviation),
        size=(card.image_size, card.image_size),
        multi_label=card.multi_label,
    )


def _reader(size: int) -> Reader:
    """Return how a run of this image size read its test images: through memory, or as batches of files."""
    if size <= LARGEST_IN_MEMORY:
        return lambda path: read_square(path, size)
    from heedful.data.dataset import ImageFiles
    from heedful.data.file_batches import file_batches

    def read(path: Path) -> UInt8[np.ndarray, "height width 3"]:
        one = ImageFiles((path,), torch.zeros(1, dtype=torch.int64), size)
        images, _ = next(iter(file_batches(one, (0.0,) * 3, (1.0,) * 3, batch_size=1)))
        return (images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

    return read


def _of_timm(name: str, pretrained: bool) -> Subject:
    from timm.data import create_transform, resolve_model_data_config  # type: ignore[attr-defined]

    from heedful.data.images import read_rgb

    model: Any = _made_by_timm(name, pretrained).eval()
    if not model.num_classes:
        raise InputError(f"{name} has no classes, only features: choose a network with a classifier")
    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    channels, height, width = config["input_size"]
    _check_channels(channels)
    transform = create_transform(**config, is_training=False, normalize=False)
    classes, other_names = _imagenet_names(model.num_classes)
    return Subject(
        title=name if pretrained else f"{name} with random weights",
        model=model,
        classes=classes,
        other_names=other_names,
        # Four times the size: a JPEG may be decoded smaller, and still has pixels to average.
        read=lambda path: transform(read_rgb(path, 4 * max(height, width))).permute(1, 2, 0).numpy(),
        mean=config["mean"],
        deviation=config["std"],
        size=(height, width),
        warning="" if pretrained else RANDOM_WEIGHTS,
    )


RANDOM_WEIGHTS = (
    "The weights of this network are random (--no-pretrained): it has learnt nothing, its probabilities are chance, "
    "and its maps say nothing about the images."
)


def _made_by_timm(name: str, pretrained: bool) -> nn.Module:
    import timm

    if pretrained and timm.get_pretrained_cfg(name, allow_unregistered=False) is None:
        raise InputError(f"timm has no pretrained weights for {name}: choose another network, or give --no-pretrained")
    try:
        return timm.create_model(name, pretrained=pretrained)
    # Whatever the connection, the Hub and timm raise: the network itself is known.
    except Exception as error:
        if not pretrained:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the pretrained weights of {name} cannot be had ({reason}): mend the connection, or give the folder of a "
            "run; --no-pretrained shows the network with random weights"
        ) from error


def _imagenet_names(num_classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and WordNet's identifiers of ImageNet's classes, where the number of outputs says that it is one."""
    from timm.data import ImageNetInfo, infer_imagenet_subset  # type: ignore[attr-defined]

    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return tuple(str(number) for number in range(num_classes)), ()
    info = ImageNetInfo(subset)
    # Of "tench, Tinca tinca" the first name is enough.
    names = (info.index_to_description(number).split(",")[0] for number in range(num_classes))
    return tuple(names), tuple(info.label_names())  # type: ignore[no-untyped-call]


def _check_channels(channels: int) -> None:
    if channels != 3:
        raise InputError(f"this network takes images of {channels} channels, but images are read as RGB, of 3")
