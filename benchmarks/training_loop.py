"""heedful's training loop against a bare PyTorch loop of the same network, with the data on the device.

Run with `python benchmarks/training_loop.py`. Both train cifar_resnet20 with SGD in float32 on the same uint8 images in
memory, batches of 128, shuffled and normalised by the same `Batches`, without augmentation. heedful's time is the whole
of `trainer.fit`: Lightning's loop, counting errors, validation on one batch, checkpoints and metrics after every epoch.
Target: at least 0.95 of the bare loop's images per second.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional as F

from common import paired, write
from heedful.data import Batches, DataSet, ImageArray
from heedful.models import build
from heedful.train.data_module import ImageData
from heedful.train.keep import Keep
from heedful.train.module import Classifier
from heedful.train.run import Machine, fit, trainer_for
from heedful.train.settings import Settings

NUM_IMAGES, BATCH_SIZE, EPOCHS, REPETITIONS = 128 * 16, 128, 2, 5
STATISTICS = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def made_up() -> DataSet:
    """Return random images, with one batch of them for validation."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (NUM_IMAGES,), generator=generator)
    train, val = ImageArray(images, labels), ImageArray(images[:BATCH_SIZE], labels[:BATCH_SIZE])
    return DataSet("random", tuple("0123456789"), train, val, val, *STATISTICS, 32, (), "")


def bare(dataset: DataSet) -> None:
    """Train with nothing but PyTorch."""
    torch.manual_seed(0)
    model = build("cifar_resnet20", num_classes=10).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    train = dataset.train.to(DEVICE)
    for epoch in range(EPOCHS):
        for images, labels in Batches(train, *STATISTICS, BATCH_SIZE, seed=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def ours(dataset: DataSet) -> None:
    """Train as a run does."""
    torch.manual_seed(0)
    settings = Settings(model="cifar_resnet20", epochs=EPOCHS, learning_rate=0.01, augment=())
    module = Classifier(build("cifar_resnet20", num_classes=10), settings, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(settings, Machine(), Keep(Path(folder), lambda epoch, loss, error: None))
        fit(trainer, module, ImageData(dataset, settings, seed=0), Path(folder) / "last.ckpt")


def main() -> None:
    dataset = made_up()
    ways: dict[str, Callable[[], None]] = {"heedful": partial(ours, dataset), "bare": partial(bare, dataset)}
    seconds = paired(ways, REPETITIONS)
    images = NUM_IMAGES * EPOCHS
    result = {
        "settings": f"cifar_resnet20, {DEVICE}, float32, batch {BATCH_SIZE}, {images} images a repetition",
        "repetitions": REPETITIONS,
        "ratios": {
            "images per second, heedful / bare loop": median(
                b / a for a, b in zip(seconds["heedful"], seconds["bare"], strict=True)
            )
        },
        "images_per_second": {name: images / median(times) for name, times in seconds.items()},
    }
    print(result["ratios"], result["images_per_second"], write("training_loop", result))


if __name__ == "__main__":
    main()
