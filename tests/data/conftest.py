"""Small folders of images, made up."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def make_picture(seed: int, height: int = 12, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """Return the function (seed, height, width) → random RGB pixels."""
    return make_picture


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes `{"train/cat": 3, ...}`: so many image files into each folder, all different."""

    def make(counts: dict[str, int], *, suffix: str = ".png", height: int = 12, width: int = 12) -> Path:
        root = tmp_path / "photos"
        for name, count in counts.items():
            (root / name).mkdir(parents=True)
            for number in range(count):
                path = root / name / f"{number}{suffix}"
                seed = zlib.crc32(f"{name}/{number}".encode())
                Image.fromarray(make_picture(seed, height, width)).save(path)
        return root

    return make
