"""Real sets in small, where they are at hand, can be trained on as they unpack, or with a labels.csv."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heedful.data import load

SHARED = Path(__file__).parents[3] / "shared"
UNPACK = SHARED / "tools" / "unpack.py"

pytestmark = pytest.mark.skipif(not UNPACK.is_file(), reason="needs the sets in shared/, which are not in the project")


@pytest.fixture(scope="module")
def unpack(tmp_path_factory):
    """Return the function name → the folder in which the set lies, unpacked once."""
    folders = {}

    def unpacked(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            subprocess.run([sys.executable, UNPACK, name, folders[name]], check=True, capture_output=True)
        return folders[name]

    return unpacked


def write_labels(root, classes, rows):
    """Write labels.csv from (path, classes that are there, split)."""
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *classes, "split"])
        writer.writerows([path, *(int(name in there) for name in classes), part] for path, there, part in rows)


def label_coco128(root):
    """Write labels.csv from the boxes; classes that no training image shows are left out."""
    content = json.loads((root / "annotations.json").read_text())
    parts = {"train2017": "train", "val2017": "test"}
    rows = []
    for image in content["images"]:
        there = {content["classes"][number] for number in image["present"]}
        rows.append((f"images/{image['file']}", there, parts[image["file"].partition("/")[0]]))
    trained = set().union(*(there for _, there, part in rows if part == "train"))
    write_labels(root, [name for name in content["classes"] if name in trained], rows)


def label_camvid(root):
    """Write labels.csv from the pixels: a class is in a picture if it covers a hundredth of it."""
    classes = [name for name in (root / "classes.txt").read_text().split() if name != "unlabelled"]
    rows = []
    for part in ("train", "val", "test"):
        for path in sorted((root / part).glob("*.jpg")):
            pixels = np.asarray(Image.open(root / f"{part}annot" / f"{path.stem}.png"))
            there = {name for number, name in enumerate(classes) if (pixels == number).mean() >= 0.01}
            rows.append((f"{part}/{path.name}", there, part))
    write_labels(root, classes, rows)


def sizes(data):
    return [len(split) for split in (data.train, data.val, data.test)]


def test_caltech101_with_a_number_of_images_of_each_class(unpack):
    root = unpack("caltech101_subset") / "101_ObjectCategories"
    data = load(str(root), seed=0, image_size=16, train_per_class=15, test_per_class=10)
    assert len(data.classes) == 101
    assert [set(split.labels.bincount().tolist()) for split in (data.train, data.val, data.test)] == [{15}, {2}, {10}]


def test_cub200_2010(unpack):
    data = load(str(unpack("cub200_2010_10classes")), seed=0, image_size=72)
    assert len(data.classes) == 10
    assert sum(sizes(data)) == 294


def test_coco128(unpack):
    root = unpack("coco128")
    label_coco128(root)
    data = load(str(root), seed=0, image_size=32)
    assert data.multi_label
    assert sizes(data) == [115, 13, 128]
    assert (data.train.labels.sum(dim=0) >= 1).all()


def test_camvid(unpack):
    root = unpack("camvid")
    label_camvid(root)
    data = load(str(root), seed=0, image_size=32)
    assert len(data.classes) == 11
    assert sizes(data) == [367, 101, 233]
    # Most pictures show a road, few a cyclist.
    shares = dict(zip(data.classes, data.test.labels.double().mean(dim=0).tolist(), strict=True))
    assert shares["road"] > 0.9 > 0.5 > shares["bicyclist"] > 0
