"""Make the pictures of docs/maps.md and the README: `uv run python docs/make_pictures.py`, about three minutes.

A small network learns to tell six shapes apart, one in each image. Then it sees images with two of them, and the maps
show which shape speaks for which class. Images are drawn here; nothing is downloaded.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

import heedful
from heedful.maps.attention import METHODS
from heedful.maps.overlay import overlay

SHAPES = ("cross", "disc", "ring", "square", "star", "triangle")
SIDE = 64
HERE = Path(__file__).parent


def background(random: np.random.Generator) -> Image.Image:
    """Return blurred coloured noise."""
    noise = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    return Image.blend(noise.filter(ImageFilter.GaussianBlur(4)), Image.new("RGB", (SIDE, SIDE), "grey"), 0.4)


def corners(shape: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """Return the polygon of a shape with straight sides."""
    radii = {"square": (1, 1, 1, 1), "triangle": (1, 1, 1), "star": (1, 0.42) * 5, "cross": (1, 1, 0.42) * 4}[shape]
    angles = [2 * math.pi * i / len(radii) for i in range(len(radii))]
    if shape == "cross":
        angles = [math.pi / 2 * arm + turn_ for arm in range(4) for turn_ in (-0.3, 0.3, math.pi / 4)]
    return [
        (x + radius * r * math.cos(a + turn), y + radius * r * math.sin(a + turn))
        for r, a in zip(radii, angles, strict=True)
    ]


def draw(image: Image.Image, shape: str, x: float, y: float, random: np.random.Generator) -> None:
    """Draw a shape of random colour, size and turn around a point."""
    canvas, radius = ImageDraw.Draw(image), random.uniform(9, 14)
    colour = tuple(random.integers(120, 256, 3).tolist())
    if shape in ("disc", "ring"):
        box = (x - radius, y - radius, x + radius, y + radius)
        canvas.ellipse(box, fill=colour if shape == "disc" else None, outline=colour, width=round(0.4 * radius))
    else:
        canvas.polygon(corners(shape, x, y, radius, random.uniform(0, 2 * math.pi)), fill=colour)


def training_set(path: Path, num_images: int = 3000) -> None:
    """Write images of one shape each, with their labels, as an .npz."""
    random = np.random.default_rng(0)
    images, labels = [], []
    for number in range(num_images):
        image, label = background(random), number % len(SHAPES)
        draw(image, SHAPES[label], *random.uniform(16, SIDE - 16, 2), random)
        images.append(np.asarray(image))
        labels.append(label)
    np.savez(path, images=np.stack(images), labels=np.array(labels), classes=np.array(SHAPES))


def pairs() -> list[tuple[Image.Image, tuple[str, str]]]:
    """Return images with two shapes each, and which."""
    random = np.random.default_rng(7)
    found = []
    for two in (("star", "disc"), ("ring", "triangle"), ("cross", "square")):
        image = background(random)
        for shape, (x, y) in zip(two, ((20, 22), (44, 43)), strict=True):
            draw(image, shape, x, y, random)
        found.append((image, two))
    return found


def main() -> None:
    """Train, map and write the pictures."""
    folder = Path("runs/shapes")
    folder.mkdir(parents=True, exist_ok=True)
    training_set(folder / "shapes.npz")
    heedful.compare(
        ["se"], data=str(folder / "shapes.npz"), model="cifar_resnet20", seeds=1, epochs=10, out=folder / "compared"
    )
    run = folder / "compared" / "runs" / "se" / "seed-0"
    model = heedful.load(run)
    write_pictures(model)


def write_pictures(model: torch.nn.Module) -> None:
    """Write the table of methods: a row for each image and class, a column for each method."""
    from matplotlib.figure import Figure

    rows = [(image, shape) for image, two in pairs() for shape in two]
    pixels = np.stack([np.asarray(image) for image, _ in rows])
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (model.card.mean, model.card.deviation))
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / deviation
    classes = torch.tensor([model.card.classes.index(shape) for _, shape in rows])
    maps = {m: heedful.attention_maps(model, images, layers=["layer3"], classes=classes, method=m) for m in METHODS}
    figure = Figure(figsize=(1.15 * (len(METHODS) + 1), 1.2 * len(rows) + 0.3), dpi=110, layout="constrained")
    axes = figure.subplots(len(rows), len(METHODS) + 1)
    for line, (row, shape) in enumerate(rows):
        panels = [
            np.asarray(row),
            *(overlay(pixels[line], found["layer3"][line, 0].numpy()) for found in maps.values()),
        ]
        for axis, panel, title in zip(axes[line], panels, ["image", *METHODS], strict=True):
            axis.imshow(panel)
            axis.set(xticks=[], yticks=[])
            axis.set_title(title if line == 0 else "", fontsize=9)
        axes[line, 0].set_ylabel(shape, fontsize=9)
    figure.savefig(HERE / "methods.png")
    Image.open(HERE / "methods.png").convert("RGB").quantize(256).save(HERE / "methods.png", optimize=True)


if __name__ == "__main__":
    main()
