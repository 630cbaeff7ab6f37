"""Batches of images with boxes: each image scaled as a detector wants it, its boxes along with it."""

from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heedful.data.batches import check_batches
from heedful.data.boxes import Boxed
from heedful.data.images import read_rgb
from heedful.data.loaded import Loaded
from heedful.data.share import WHOLE, Share, batch_sampler
from heedful.errors import InputError

Target = dict[str, Tensor]
BoxBatch = tuple[list[Float32[Tensor, "3 _ _"]], list[Target]]

LARGEST_HELD = 2**30
"""Bytes of pixels up to which a split stays in memory: 1,100 images of 640 × 480, or 4,600 of 320 × 240.

To decode and scale an image of 640 × 480 takes some 5 ms of one core, each epoch anew if it is not held.
"""

_held: WeakKeyDictionary[Boxed, tuple[int, Tensor]] = WeakKeyDictionary()
"""Image → the size it was last scaled to, and its pixels; forgotten with the image."""


def box_batches(
    split: tuple[Boxed, ...],
    batch_size: int,
    *,
    image_size: int,
    augment: tuple[str, ...] = (),
    seed: int | None = None,
    num_workers: int = 0,
    share: Share = WHOLE,
) -> Loaded[BoxBatch]:
    """Return a loader of one epoch: a list of images and a list of targets a batch. It depends on the seed alone.

    Without a seed each image is a batch of its own: a batch is padded to its largest image, attention that pools over
    the whole map sees the padding, and so what is found in an image would depend on those beside it.

    An image is float32 RGB (3, h, w) in [0, 1], its size as `scaled_size` says. Its target: "boxes", float32 (n, 4),
    (x1, y1, x2, y2) in pixels of that image; "labels", int64 (n,), from 1, for 0 is torchvision's background; "crowd",
    bool (n,), the boxes not to train on; "image", its number in the split; "scale", float32 (4,): boxes times this are
    in pixels of the file.

    Args:
        split: the images; up to `LARGEST_HELD` they are read once and stay in memory while the split does.
        batch_size: images per training batch; the last may be smaller, but one of a single image is left out.
        image_size: shorter side in pixels.
        augment: "flip", or nothing: left and right are exchanged with probability 1/2.
        seed: for training: decides order and flips of this epoch. None: in order, as the images are.
        num_workers: processes that read; images that stay in memory need none.
        share: of this process, of each training batch, or without a seed of the split.

    Raises:
        InputError: if batch_size is below 1, an augmentation is unknown or not for boxes, or there is one but no seed;
            from the loader, if an image cannot be read.
    """
    check_batches(batch_size, augment, seed)
    for name in augment:
        if name != "flip":
            raise InputError(f"augment has {name!r}, but images with boxes can only be flipped: take ('flip',) or ()")
    num_bytes = sum(3 * height * width for height, width in (scaled_size(image.size, image_size) for image in split))
    held = num_bytes <= LARGEST_HELD
    loader = DataLoader(
        _Scaled(split, image_size, seed, flips="flip" in augment, held=held),
        batch_sampler=batch_sampler(len(split), share.num if seed is None else batch_size, seed, share),
        generator=torch.Generator(),  # the loader's own draw leaves the process's random numbers alone
        num_workers=0 if held else num_workers,
        collate_fn=_lists,
        pin_memory=torch.cuda.is_available(),
    )
    return Loaded(loader)


def scaled_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Return height and width of an image whose shorter side becomes image_size, or its longer twice that, if smaller.

    Small images are enlarged. torchvision's detectors of that size then leave the image as it is.

    Args:
        size: height and width of the file.
        image_size: in pixels.
    """
    shorter, longer = min(size), max(size)
    scale = min(image_size / shorter, 2 * image_size / longer)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def read_scaled(path: Path, size: tuple[int, int], image_size: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return a file's pixels as a detector sees them, of `scaled_size` (bilinear, antialiased).

    Args:
        path: the file.
        size: height and width of the upright image.
        image_size: as for `scaled_size`.

    Raises:
        Exception: as `read_rgb`.
    """
    height, width = scaled_size(size, image_size)
    # Twice the size leaves the antialiasing something to average, as in `read_square`.
    return np.array(read_rgb(path, 2 * min(height, width)).resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True, eq=False)
class _Scaled(Dataset[tuple[Tensor, Target]]):
    split: tuple[Boxed, ...]
    image_size: int
    seed: int | None
    flips: bool
    held: bool

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "3 height width"], Target]:
        image = self.split[index]
        pixels = _held_pixels(image, self.image_size) if self.held else _pixels(image, self.image_size)
        (height, width), (file_height, file_width) = pixels.shape[1:], image.size
        boxes = image.boxes * torch.tensor([width / file_width, height / file_height] * 2)
        if self.flips and self._is_flipped(index):
            pixels = pixels.flip(2)
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        return pixels.float() / 255, {
            "boxes": boxes,
            "labels": image.labels + 1,
            "crowd": image.crowd,
            "image": torch.tensor(index),
            "scale": torch.tensor([file_width / width, file_height / height] * 2),
        }

    def _is_flipped(self, index: int) -> bool:
        """Draw from the seed and the image's number, so that it is the same in any worker."""
        assert self.seed is not None
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) % 2**63)
        return bool(torch.rand((), generator=generator) < 0.5)


def _held_pixels(image: Boxed, image_size: int) -> UInt8[Tensor, "3 height width"]:
    size, pixels = _held.get(image, (0, None))
    if pixels is None or size != image_size:
        pixels = _pixels(image, image_size)
        _held[image] = (image_size, pixels)
    return pixels


def _pixels(image: Boxed, image_size: int) -> UInt8[Tensor, "3 height width"]:
    try:
        pixels = read_scaled(image.path, image.size, image_size)
    # Pillow's readers raise almost anything on broken bytes.
    except Exception as error:
        raise InputError(f"image {image.path} cannot be read ({error}): mend or remove it") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _lists(items: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in items], [target for _, target in items]
