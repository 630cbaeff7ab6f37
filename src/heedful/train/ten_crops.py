"""Testing on ten crops of an image: its four corners, its centre, and the mirror images of these.

Source: He et al., "Deep residual learning for image recognition", CVPR 2016, section 3.4; [W], table 6.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from heedful.data import DataSet, ImageArray, ImageFiles, normalise
from heedful.data.images import read_rgb
from heedful.errors import InputError

NUM_CROPS = 10


class TenCrops(nn.Module):
    """A classifier of ten crops: the logarithm of its mean probabilities, which may stand for logits.

    Args:
        model: from images to logits of one class an image.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Float[Tensor, "batch crops channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return log(mean over the crops of softmax(logits))."""
        logits = self.model(crops.flatten(0, 1)).float().unflatten(0, crops.shape[:2])
        return logits.log_softmax(2).logsumexp(1) - math.log(crops.shape[1])


def check_crops(dataset: DataSet) -> None:
    """Raise an InputError unless ten crops can be taken of the test images."""
    if dataset.multi_label:
        raise InputError("test_crops is 10, but the images have several classes each: leave test_crops out")
    if isinstance(dataset.test, ImageArray):
        raise InputError(
            f"test_crops is 10, but images of {dataset.image_size} pixels are held in memory as the network sees them, "
            "with no margin to crop from: give a folder and an image_size above 64, or leave test_crops out"
        )


def crop_batches(
    dataset: DataSet, batch_size: int, *, num_workers: int = 0
) -> Iterable[tuple[Float[Tensor, "batch crops 3 size size"], Tensor]]:
    """Return the test images in order: the ten crops of each, normalised, and labels.

    Crops are taken from the image with its shorter side scaled to 256/224 of the network's: 256 pixels on ImageNet.

    Args:
        dataset: its test split is of files.
        batch_size: crops a batch, at most, but those of one image at least: a batch holds whole images.
        num_workers: processes that read.
    """
    assert isinstance(dataset.test, ImageFiles)
    return DataLoader(
        _Crops(dataset.test),
        max(1, batch_size // NUM_CROPS),
        num_workers=num_workers,
        collate_fn=_Collate(dataset.mean, dataset.deviation),
    )


@dataclass(frozen=True, eq=False)
class _Crops(Dataset[tuple[Tensor, Tensor]]):
    split: ImageFiles

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "10 3 size size"], Tensor]:
        size = self.split.image_size
        scaled = round(size * 256 / 224)
        image = v2.functional.resize(read_rgb(self.split.paths[index], 2 * scaled), [scaled], antialias=True)
        crops = v2.functional.ten_crop(v2.functional.pil_to_tensor(image), [size, size])
        return torch.stack(crops), self.split.labels[index]


@dataclass(frozen=True)
class _Collate:
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __call__(self, items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        crops = torch.stack([image for image, _ in items])
        images = normalise(crops.flatten(0, 1), self.mean, self.deviation)
        return images.reshape(crops.shape), torch.stack([label for _, label in items])
