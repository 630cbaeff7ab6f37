"""Clips made up: files in the layouts of UTD-MHAD and NTU RGB+D, small."""

from pathlib import Path

import numpy as np
from PIL import Image

JOINTS = ("hip_center", "left_hand", "right_hand", "left_foot", "right_foot")


def write_utd_mhad(path: Path, *, num_classes: int = 2, num_trials: int = 2, num_subjects: int = 8) -> Path:
    """Write clips of 20 and more frames; in class k the left hand rises k + 1 times, and the sensor shows it."""
    generator = np.random.default_rng(0)
    subject, action, _ = (
        axis.ravel() for axis in np.indices((num_subjects, num_classes, num_trials), dtype=np.uint8) + 1
    )
    lengths = generator.integers(20, 30, len(subject))
    skeletons, inertial, depth = [], [], []
    for length, times in zip(lengths, action, strict=True):
        wave = np.sin(2 * np.pi * times * np.arange(length) / length)
        places = generator.normal(0, 100, (length, len(JOINTS), 3)) + np.arange(15).reshape(5, 3) * 1000
        places[:, 1, 1] += 3000 * wave
        skeletons.append(places)
        inertial.append(np.repeat(wave, 2)[:, None] + generator.normal(0, 0.1, (2 * length, 6)))
        depth.append(np.full((4, 6, 8), 40 * times) + generator.integers(0, 9, (4, 6, 8)))
    np.savez(
        path,
        action=action,
        subject=subject,
        actions=np.array([f"wave {number + 1}" for number in range(num_classes)]),
        joints=np.array(JOINTS),
        skeleton_q=np.concatenate(skeletons).astype(np.int16),
        skeleton_length=lengths.astype(np.int32),
        inertial=np.concatenate(inertial),
        inertial_length=2 * lengths.astype(np.int32),
        depth=np.stack(depth).astype(np.uint8),
    )
    return path


def write_ntu_rgbd(root: Path, names: list[str], *, frames: int = 20, video: bool = False, size: int = 16) -> Path:
    """Write a skeleton file for each name, of one person, and if wanted its frames, number f of brightness 8f."""
    skeletons = root / "nturgb+d_skeletons"
    skeletons.mkdir(parents=True)
    for number, name in enumerate(names):
        places = np.random.default_rng(number).normal((0, 0, 3), size=(frames, 25, 3))
        lines = [f"{frames}"]
        for points in places:
            lines += ["1", "72057594037931101 0 1 1 1 1 0 0.02 0.05 2", "25"]
            lines += [f"{x:.7f} {y:.7f} {z:.7f} 277.4 191.8 1036.2 519.2 -0.21 0.03 0.97 0.02 2" for x, y, z in points]
        (skeletons / f"{name}.skeleton").write_text("\n".join(lines) + "\n")
        if video:
            folder = root / "nturgb+d_rgb" / f"{name}_rgb"
            folder.mkdir(parents=True)
            for frame in range(frames):
                pixels = np.full((size, size + 4, 3), 8 * frame, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{frame + 1}.png")
    return root
