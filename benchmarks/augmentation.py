"""Batch augmentation against torchvision's transforms in a DataLoader: flip, shift with zero fill and normalisation.

Run with `python benchmarks/augmentation.py`. Both take the same uint8 images of CIFAR's size in memory to shuffled,
normalised float32 batches of 128. torchvision transforms image by image, from tensors and from PIL images, in this
process and in two workers that stay alive between epochs: the best of the four counts. Target: at least 5 times its
images per second.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from common import paired, write
from heedful.data import Batches, ImageArray

NUM_IMAGES = 128 * 60
BATCH_SIZE = 128
REPETITIONS = 7
MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


class Transformed(Dataset[tuple[Tensor, Tensor]]):
    """torchvision's usual pipeline for CIFAR over images in memory."""

    def __init__(self, images: Tensor, labels: Tensor, *, pil: bool) -> None:
        self.images: list[Tensor | Image.Image] = list(images)
        if pil:
            self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.labels = labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                *([v2.ToImage()] if pil else []),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def candidates() -> dict[str, Callable[[], None]]:
    """Return one function per way, each of which goes through one epoch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (NUM_IMAGES,), generator=generator)
    ours = Batches(ImageArray(images, labels), MEAN, DEVIATION, BATCH_SIZE, augment=("flip", "shift-zero"), seed=0)
    ways: dict[str, Callable[[], None]] = {"heedful": partial(exhaust, ours)}
    for kind in ("tensor", "pil"):
        dataset = Transformed(images, labels, pil=kind == "pil")
        for num_workers in (0, 2):
            loader = DataLoader(
                dataset, BATCH_SIZE, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0
            )
            ways[f"torchvision, {kind}, {num_workers} workers"] = partial(exhaust, loader)
    return ways


def exhaust(batches: Batches | DataLoader[tuple[Tensor, Tensor]]) -> None:
    num_images = sum(len(labels) for _, labels in batches)
    assert num_images == NUM_IMAGES


def main() -> None:
    seconds = paired(candidates(), REPETITIONS)
    peers = [name for name in seconds if name != "heedful"]
    best = min(peers, key=lambda name: median(seconds[name]))
    ratio = median(peer / ours for peer, ours in zip(seconds[best], seconds["heedful"], strict=True))
    result = {
        "ratios": {"images per second, heedful / best torchvision": round(ratio, 2)},
        "best torchvision": best,
        "images_per_second": {name: round(NUM_IMAGES / median(times)) for name, times in seconds.items()},
    }
    print(write("augmentation", result).read_text(), end="")


if __name__ == "__main__":
    main()
