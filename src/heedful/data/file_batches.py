"""Batches of a split of image files: read, transformed by torchvision and normalised in a DataLoader's workers."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from heedful.data.batches import Batch, Channels, check_batches, normalise
from heedful.data.dataset import ImageFiles
from heedful.data.images import read_rgb
from heedful.data.loaded import Loaded
from heedful.data.share import WHOLE, Share, batch_sampler
from heedful.errors import InputError


def file_batches(
    split: ImageFiles,
    mean: Channels,
    deviation: Channels,
    batch_size: int,
    *,
    augment: tuple[str, ...] = (),
    seed: int | None = None,
    num_workers: int = 0,
    share: Share = WHOLE,
) -> Loaded[Batch]:
    """Return a loader of one epoch: float32 images, channels last, and labels. It depends on the seed, not the workers.

    Args:
        split: the files.
        mean: per channel, to normalise with.
        deviation: likewise.
        batch_size: images per batch; the last may be smaller. A last training batch of one image is left out.
        augment: names from AUGMENTATIONS; "crop" is torchvision's RandomResizedCrop.
        seed: for training: decides order and augmentation of this epoch. None: in order, the centre of each image.
        num_workers: processes that read; 0 reads in this one.
        share: of each training batch, or without a seed of the split; no other file is read.

    Raises:
        InputError: as `Batches`; from the loader, if an image cannot be read.
    """
    check_batches(batch_size, augment, seed)
    loader = DataLoader(
        _TransformedFiles(split, _transform(split.image_size, augment), seed),
        batch_sampler=batch_sampler(len(split), batch_size, seed, share),
        generator=torch.Generator(),  # the loader's own draw leaves the process's random numbers alone
        num_workers=num_workers,
        collate_fn=_Collate(mean, deviation),
        pin_memory=torch.cuda.is_available(),
    )
    return Loaded(loader)


@dataclass(frozen=True, eq=False)
class _TransformedFiles(Dataset[tuple[Tensor, Tensor]]):
    split: ImageFiles
    transform: nn.Module
    seed: int | None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 size size"], Int64[Tensor, "*classes"]]:
        # RandomResizedCrop's smallest window is 0.28 of the side: of four times the size it still has enough pixels.
        path = self.split.paths[index]
        try:
            image = read_rgb(path, 4 * self.split.image_size)
        # Pillow's readers raise almost anything on broken bytes.
        except Exception as error:
            raise InputError(f"image {path} cannot be read ({error}): mend or remove it") from error
        label = self.split.labels[index]
        if self.seed is None:
            return self.transform(image), label
        # The transforms draw from torch's global generator. Seeded for each image, they draw the same in any worker
        # and leave the process's own random numbers as they were.
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed((self.seed * 1_000_003 + index) % 2**63)
            return self.transform(image), label
        finally:
            torch.set_rng_state(state)


def _transform(size: int, augment: tuple[str, ...]) -> nn.Module:
    if "crop" in augment:
        steps: list[nn.Module] = [v2.RandomResizedCrop(size, antialias=True)]
    else:
        # 256 to 224: the usual margin at evaluation on ImageNet.
        steps = [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
    drawn = {
        "flip": v2.RandomHorizontalFlip(),
        "shift": v2.RandomCrop(size, padding=size // 8, padding_mode="edge"),
        "shift-zero": v2.RandomCrop(size, padding=size // 8),
    }
    steps += [drawn[name] for name in augment if name != "crop"]
    return v2.Compose([*steps, v2.PILToTensor()])


@dataclass(frozen=True)
class _Collate:
    """Normalises a whole batch at once: image by image takes twice as long."""

    mean: Channels
    deviation: Channels

    def __call__(self, items: list[tuple[Tensor, Tensor]]) -> Batch:
        images = torch.stack([image for image, _ in items])
        return normalise(images, self.mean, self.deviation), torch.stack([label for _, label in items])
