"""Masks of images as another image drives them, drawn: what `heedful explain --query` adds."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from heedful.errors import InputError
from heedful.evaluate.cost import chosen_device
from heedful.evaluate.query import query_figure, query_masks
from heedful.explain.images import image_files, pixels
from heedful.explain.subject import Subject, subject
from heedful.models.pay_attention import PayAttention

MOST_DRIVEN = 12
"""Images in a picture; the first ones."""


def driven(
    paths: Sequence[str | Path], model: str | Path, query: str | Path, *, pretrained: bool = True, device: str = "auto"
) -> bytes:
    """Return a picture, as PNG, of the masks of images: their own, and those that the query's global vector chooses.

    Args:
        paths: image files, and folders of them; those that cannot be read are left out.
        model: as for `heedful.explain.explain`, with pay attention that heeds the global vector, such as `pay2-dp`.
        query: an image file.
        pretrained: as for `heedful.explain.explain`.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "mps".

    Raises:
        InputError: if the query or all images cannot be read, or no query can drive the network's masks.
    """
    network = subject(model, pretrained=pretrained)
    network.model.to(chosen_device(device))
    asked = _read(Path(query), network)
    read = (pixels(path, network.read)[0] for path in image_files(paths))
    pictures = list(itertools.islice((picture for picture in read if picture is not None), MOST_DRIVEN))
    if not pictures:
        raise InputError(f"none of {', '.join(map(str, paths))} can be read: name other images")
    shown = np.stack(pictures)
    images, query_image = (network.normalised(each).to(chosen_device(device)) for each in (shown, np.stack([asked])))
    masks = query_masks(network.model, images, query_image)
    assert isinstance(network.model, PayAttention)  # else there are no such masks
    with torch.no_grad():
        own = network.model.masks(images)
    return query_figure(asked, shown, own, masks)


def _read(path: Path, network: Subject) -> UInt8[np.ndarray, "height width 3"]:
    picture, reason = pixels(path, network.read)
    if picture is None:
        raise InputError(f"query {path} cannot be read ({reason}): give an image file")
    return picture
