"""Small data sets made up for the tests: images that a tiny network can learn within seconds."""

import json
import struct
import zlib
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


def many_squares(path: Path, *, num_classes=3, count=60, size=8, seed=0, with_test=False):
    """Write an .npz of noisy images with several labels: a bright square for each class that is there, or none."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, num_classes))
    images = rng.integers(0, 120, (count, size, size, 3), dtype=np.uint8)
    for image, number in zip(*labels.nonzero(), strict=True):
        row, column = divmod(int(number), size // 2)
        images[image, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 255
    arrays = {"images": images, "labels": labels, "classes": np.array([f"class {i}" for i in range(num_classes)])}
    if with_test:
        arrays["test"] = np.arange(count) % 4 == 0
    np.savez(path, **arrays)
    return path


def save_image(path: Path, *, size=16):
    """Write an image file of random pixels, the same for the same name, making its folder."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def imagenet(root: Path, *, classes=("n01440764", "n01443537"), num_train=6, num_val=2, size=16):
    """Write class folders under train/ and val/, named as ImageNet's."""
    for part, count in (("train", num_train), ("val", num_val)):
        for name in classes:
            for number in range(count):
                save_image(root / part / name / f"{name}_{part}_{number}.JPEG", size=size)
    return root


def caltech256(root: Path, *, classes=("ak47", "american-flag", "backpack"), per_class=10, size=16):
    """Write what Caltech-256's archive holds: numbered class folders, clutter, and what lies there by mistake."""
    base = root / "256_ObjectCategories"
    for label, name in enumerate([*classes, "clutter"], start=1):
        label = 257 if name == "clutter" else label
        for number in range(1, per_class + 1):
            save_image(base / f"{label:03d}.{name}" / f"{label:03d}_{number:04d}.jpg", size=size)
    save_image(base / f"002.{classes[1]}" / "greg" / "vision309" / "002_0020.jpg", size=size)
    (base / f"003.{classes[2]}" / "RENAME2").write_text("a script\n")
    return root


def cub200(root: Path, *, classes=("Black_footed_Albatross", "Laysan_Albatross"), per_class=8, size=16):
    """Write what CUB-200-2011's archive holds; every second image is for training."""
    numbered = [f"{label:03d}.{name}" for label, name in enumerate(classes, start=1)]
    names = [f"{name}/{name[4:]}_{number:04d}.jpg" for name in numbered for number in range(per_class)]
    for name in names:
        save_image(root / "images" / name, size=size)
    rows = {
        "images.txt": names,
        "image_class_labels.txt": [1 + index // per_class for index in range(len(names))],
        "train_test_split.txt": [index % 2 for index in range(len(names))],
        "bounding_boxes.txt": [f"{index % 4}.0 1.0 {5 + index % 8}.0 9.5" for index in range(len(names))],
    }
    for file, values in rows.items():
        (root / file).write_text("".join(f"{number} {value}\n" for number, value in enumerate(values, start=1)))
    (root / "classes.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(numbered, start=1)))
    return root


VOC_OBJECT = """  <object>
    <name>{name}</name>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>10</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>
  </object>
"""


def voc2012(root: Path, *, sets=None, size=16):
    """Write what VOC 2012's archive holds.

    Args:
        root: where.
        sets: {"train": {"2008_000001": ["cat", "dog?"]}}: the objects in each image, "?" after the difficult ones.
        size: of the images, in pixels.
    """
    if sets is None:
        shown = [["cat"], ["dog", "dog"], ["cat", "person"], ["person"], ["dog", "cat?"], []]
        sets = {part: {f"{part}_{i:06d}": shown[i % 6] for i in range(12)} for part in ("train", "val")}
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for part, images in sets.items():
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in images))
        for name, objects in images.items():
            save_image(root / "JPEGImages" / f"{name}.jpg", size=size)
            written = [VOC_OBJECT.format(name=n.rstrip("?"), difficult=int(n.endswith("?"))) for n in objects]
            text = f"<annotation>\n  <filename>{name}.jpg</filename>\n{''.join(written)}</annotation>\n"
            (root / "Annotations" / f"{name}.xml").write_text(text)
    return root


def coco_json(path: Path, shown, *, size=16, names=("cat", "dog"), images=None):
    """Write a file in COCO's format, and the images that it lists.

    Args:
        path: of the JSON.
        shown: {"1.jpg": [("cat", 1, 2, 9, 10)]}: name and x, y, width, height of the boxes of each image.
        size: of the images, in pixels.
        names: of the categories, whose ids are 1, 3, 5, ...
        images: the folder of the images; None: that of the JSON.
    """
    content = {
        "images": [
            {"id": number, "file_name": name, "height": size, "width": size}
            for number, name in enumerate(shown, start=100)
        ],
        "annotations": [
            {"image_id": number, "category_id": 2 * names.index(name) + 1, "bbox": box, "iscrowd": 0}
            for number, boxes in enumerate(shown.values(), start=100)
            for name, *box in boxes
        ],
        "categories": [{"id": 2 * place + 1, "name": name} for place, name in enumerate(names)],
    }
    for number, entry in enumerate(content["annotations"]):
        entry["id"] = number
    for name in shown:
        save_image((images or path.parent) / name, size=size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    return path


def labels_csv(root: Path, *, num_classes=3, count=24, size=16, with_split=False):
    """Write a folder with a labels.csv: image i shows class c if bit c of i is set."""
    parts = ("train", "val", "test")
    header = ["path", *(f"class {c}" for c in range(num_classes)), "split"]
    rows = [header]
    for number in range(count):
        name = f"photos/{number:03d}.png"
        save_image(root / name, size=size)
        rows.append([name, *(str(number >> c & 1) for c in range(num_classes)), parts[number // 8 % 3]])
    lines = [",".join(row if with_split else row[:-1]) for row in rows]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def save_huge(path: Path, *, side=20_000):
    """Write a PNG of side × side black pixels, one bit each, without ever holding them as an image."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side * (1 + (side + 7) // 8)), level=1)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path
