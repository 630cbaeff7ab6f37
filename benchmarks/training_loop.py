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

import numpy as np
import torch
from torch.nn import functional as F

from common import paired, write
from heedful.data import Batches
from heedful.models import build
from heedful.train.classify import Classification
from heedful.train.data_module import TaskData
from heedful.train.keep import Keep
from heedful.train.module import Training
from heedful.train.run import Machine, fit, trainer_for

NUM_IMAGES, BATCH_SIZE, EPOCHS, REPETITIONS = 128 * 16, 128, 2, 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def made_up(folder: Path) -> Classification:
    """Write random images into the folder, and return them as a task, with one batch of them for validation."""
    generator = np.random.default_rng(0)
    count = NUM_IMAGES + 2 * BATCH_SIZE
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels, test = generator.integers(0, 10, count), np.arange(count) < BATCH_SIZE
    np.savez(folder / "random.npz", images=images, labels=labels, test=test)
    settings = Settings(
        data=str(folder / "random.npz"),
        model="cifar_resnet20",
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=0.01,
        augment=(),
        val_fraction=BATCH_SIZE / (count - BATCH_SIZE),
    )
    return Classification(settings, 0)


def bare(task: Classification) -> None:
    """Train with nothing but PyTorch."""
    torch.manual_seed(0)
    model = build("cifar_resnet20", num_classes=10).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    train = task.dataset.train.to(DEVICE)
    for epoch in range(EPOCHS):
        for images, labels in Batches(train, task.dataset.mean, task.dataset.deviation, BATCH_SIZE, seed=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def ours(task: Classification) -> None:
    """Train as a run does."""
    torch.manual_seed(0)
    network = task.new_model()
    module = Training(network, task.learner(network), task.settings, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(task.settings, Machine(), Keep(Path(folder), lambda epoch, loss, error: None))
        fit(trainer, module, TaskData(task, seed=0), Path(folder) / "last.ckpt")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        task = made_up(Path(folder))
    ways: dict[str, Callable[[], None]] = {"heedful": partial(ours, task), "bare": partial(bare, task)}
    seconds = paired(ways, REPETITIONS)
    images = len(task.dataset.train) * EPOCHS
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
