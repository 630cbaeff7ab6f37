"""Small data sets made up for the tests: images that a tiny network can learn within seconds."""

from pathlib import Path

import numpy as np


def bright_squares(path: Path, *, num_classes=3, per_class=20, size=8, seed=0, with_test=False):
    """Write an .npz of noisy images with one bright square, whose place is the class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    images = rng.integers(0, 120, (len(labels), size, size, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), size // 2)
        image[2 * row : 2 * row + 3, 2 * column : 2 * column + 3] = 255
    arrays = {"images": images, "labels": labels, "classes": np.array([f"class {i}" for i in range(num_classes)])}
    if with_test:
        arrays["test"] = np.arange(len(labels)) % 4 == 0
    np.savez(path, **arrays)
    return path
