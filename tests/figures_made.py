"""Made-up images with masks of their figures, in the layouts that segmentation reads."""

import numpy as np
from PIL import Image

SIDE = 16


def rectangle(seed, height=SIDE, width=SIDE):
    """Return a mask with one rectangle, not at the border."""
    rng = np.random.default_rng(seed)
    (top, left), mask = rng.integers(1, SIDE // 2, 2), np.zeros((height, width), dtype=bool)
    mask[top : top + 3 + seed % 4, left : left + 4 + seed % 3] = True
    return mask


def save_figure(image, mask, figure, *, seed=0):
    """Write a noisy image that is bright on the figure, and the figure as a mask."""
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 60, (*figure.shape, 3), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(180) * figure[..., None]).save(image)
    Image.fromarray(figure).save(mask)


def class_folders(root, counts):
    """Write images/CLASS/N.png with masks/CLASS/N.png."""
    for group, count in counts.items():
        for number in range(count):
            paths = (root / part / group / f"{number}.png" for part in ("images", "masks"))
            save_figure(*paths, rectangle(number), seed=number)
    return root


def weizmann(root, count):
    """Write rgb/horseN.png with mask/horseN.png."""
    for number in range(count):
        paths = (root / part / f"horse{number}.png" for part in ("rgb", "mask"))
        save_figure(*paths, rectangle(number), seed=number)
    return root


def object_discovery(root, counts):
    """Write CLASS/N.bmp with CLASS/GroundTruth/N.png."""
    for group, count in counts.items():
        for number in range(count):
            folder = root / group
            paths = folder / f"{number}.bmp", folder / "GroundTruth" / f"{number}.png"
            save_figure(*paths, rectangle(number), seed=number)
    return root
