"""Images with boxes: read, mended, counted and divided."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from heedful.data.boxes import SMALLEST_STEP, clipped, divide_boxes, read_boxes, upright_size
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError
from tests.data_made import coco_json, voc2012

SHARED = Path(__file__).parents[3] / "shared"
UNPACK = SHARED / "tools" / "unpack.py"

CAT, DOG = ("cat", 1, 2, 9, 10), ("dog", 0, 0, 5.5, 6.25)


def many(count, start=0):
    """Return so many images: two with a cat, one with a dog and one without boxes, in turn."""
    return {f"{start + i}.png": [[CAT], [CAT, DOG], [DOG], []][i % 4] for i in range(count)}


def names(images):
    return [image.path.name for image in images]


def test_boxes_of_both_layouts(tmp_path):
    coco_json(tmp_path / "coco/train.json", {"1.png": [CAT, DOG], "2.png": []})
    pool = read_boxes(str(tmp_path / "coco"))
    assert (pool.name, pool.classes, pool.skipped, pool.dropped) == ("coco", ("cat", "dog"), (), {})
    assert [image.boxes.tolist() for image in pool.images] == [[[1, 2, 10, 12], [0, 0, 5.5, 6.25]], []]
    assert pool.images[1].boxes.shape == (0, 4)
    assert [image.labels.tolist() for image in pool.images] == [[0, 1], []]
    pool = read_boxes(voc2012(tmp_path / "voc", sets={"train": {"a": ["cat?", "cat"]}, "val": {"b": ["dog"]}}))
    assert [image.boxes.tolist() for image in pool.images] == [[[0, 1, 9, 10]] * 2, [[0, 1, 9, 10]]]
    assert [image.crowd.tolist() for image in pool.images] == [[True, False], [False]]
    assert {image.size for image in pool.images} == {(16, 16)}


def test_val_is_the_test_split_unless_there_is_one(tmp_path):
    for part, start in (("train", 0), ("val", 100)):
        coco_json(tmp_path / f"{part}.json", many(4, start))
    assert read_boxes(tmp_path).given.tolist() == [TRAIN] * 4 + [TEST] * 4
    coco_json(tmp_path / "test.json", many(4, 200))
    assert read_boxes(tmp_path).given.tolist() == [TRAIN] * 4 + [VAL] * 4 + [TEST] * 4


def test_the_layout_may_lie_in_one_folder_within(tmp_path):
    voc2012(tmp_path / "above/BCCD")
    (tmp_path / "above/notes").mkdir()
    assert read_boxes(tmp_path / "above").name == "above"
    coco_json(tmp_path / "above/coco/train.json", many(2))
    with pytest.raises(InputError, match="holds several sets of images with boxes: give one of BCCD, coco"):
        read_boxes(tmp_path / "above")
    message = r"notes has no boxes in a layout .*: COCO's .*train.json .*annotations.json, _annot.* or PASCAL VOC's"
    with pytest.raises(InputError, match=message):
        read_boxes(tmp_path / "above/notes")
    with pytest.raises(InputError, match=r"nowhere is no folder"):
        read_boxes(tmp_path / "nowhere")


def test_boxes_that_do_not_fit_are_mended_or_left_out_and_counted(tmp_path):
    shown = {
        "1.png": [
            CAT,
            ("cat", -3, 2, 9, 10),  # beyond the left
            ("cat", 8, 8, 20, 20),  # beyond the right and below
            ("dog", 16, 2, 4, 4),  # beside the image
            ("dog", -9, -9, 5, 5),  # before it
            ("dog", 3, 3, 0, 5),  # a line
            ("dog", 30, 30, 0, 0),  # a point, outside: of no area first
            ("dog", 3, 3, 2, 0.001),
            ("cat", 0, 0, 16.0001, 16),  # a rounding error
        ]
    }
    coco_json(tmp_path / "train.json", shown)
    pool = read_boxes(tmp_path)
    assert pool.dropped == {"clipped": 2, "outside the image": 2, "no area": 3}
    assert pool.images[0].boxes.tolist() == [[1, 2, 10, 12], [0, 2, 6, 12], [8, 8, 16, 16], [0, 0, 16, 16]]
    assert pool.images[0].labels.tolist() == [0, 0, 0, 0]


def test_corners_that_count_from_zero_are_clipped_in_voc(tmp_path):
    root = voc2012(tmp_path, sets={"train": {"a": ["cat"]}})
    path = root / "Annotations/a.xml"
    path.write_text(path.read_text().replace("<xmin>1</xmin>", "<xmin>0</xmin>"))
    pool = read_boxes(root)
    assert pool.images[0].boxes.tolist() == [[0, 1, 9, 10]]
    assert pool.dropped == {"clipped": 1}


def test_what_is_left_out_takes_its_label_and_crowd_along(tmp_path):
    root = voc2012(tmp_path, sets={"train": {"a": ["cat", "dog?"]}})
    path = root / "Annotations/a.xml"
    path.write_text(path.read_text().replace("<xmax>9</xmax>", "<xmax>0</xmax>", 1).replace("<xmin>1", "<xmin>0", 1))
    pool = read_boxes(root)
    assert pool.dropped == {"outside the image": 1}
    assert (pool.images[0].labels.tolist(), pool.images[0].crowd.tolist()) == ([1], [True])


@given(
    corners=st.lists(st.floats(-50, 50), min_size=4, max_size=4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_a_clipped_box_is_what_lies_in_both(corners, height, width):
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    found = clipped(torch.tensor([[x1, y1, x2, y2]], dtype=torch.float64), (height, width))[0].tolist()
    for x in np.linspace(-25, 25, 11):
        in_both = x1 < x < x2 and 0 < x < width
        assert (found[0] < x < found[2]) == in_both
    for y in np.linspace(-25, 25, 11):
        in_both = y1 < y < y2 and 0 < y < height
        assert (found[1] < y < found[3]) == in_both


def test_an_image_that_is_missing_or_broken_is_named_with_what_lists_it(tmp_path):
    coco_json(tmp_path / "train.json", many(4), images=tmp_path / "images")
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "images/2.png").write_text("no image")
    message = (
        r"images/1.png of .*train.json: images\[1\] \(id 101\) \(does not exist\); .*images/2.png of .*train.json: "
        r"images\[2\] \(id 102\) \(not an image\); mend .*--skip-bad-images"
    )
    with pytest.raises(InputError, match=message):
        read_boxes(tmp_path)
    pool = read_boxes(tmp_path, skip_bad_images=True)
    assert pool.skipped == ("images/1.png", "images/2.png")
    assert names(pool.images) == ["0.png", "3.png"]
    assert [len(image.boxes) for image in pool.images] == [1, 0]
    for name in ("0.png", "3.png"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(InputError, match=r"0.png of .* \(does not exist\)"):
        read_boxes(tmp_path, skip_bad_images=True)


def test_a_jpeg_that_is_cut_is_found_before_training(tmp_path):
    root = voc2012(tmp_path, sets={"train": {"a": ["cat"], "b": ["cat"]}}, size=64)
    path = root / "JPEGImages/b.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"b.jpg of .*Annotations/b.xml \(.*truncated"):
        read_boxes(root)


def test_another_size_than_is_written_is_refused(tmp_path):
    coco_json(tmp_path / "train.json", many(2))
    Image.new("RGB", (20, 16)).save(tmp_path / "1.png")
    message = (
        r"1.png of .*train.json: images\[1\] .*written to be 16 x 16, but has 20 x 16 pixels, so that its boxes .*skip"
    )
    with pytest.raises(InputError, match=message):
        read_boxes(tmp_path)
    pool = read_boxes(tmp_path, skip_bad_images=True)
    assert (pool.skipped, names(pool.images)) == (("1.png",), ["0.png"])


def test_a_size_of_nothing_is_none_that_is_written(tmp_path):
    path = coco_json(tmp_path / "train.json", many(2))
    path.write_text(path.read_text().replace('"height": 16', '"height": 0'))
    assert [image.size for image in read_boxes(tmp_path).images] == [(16, 16)] * 2


def test_a_name_that_is_too_long_to_be_a_file_is_no_image(tmp_path):
    name = f"{'a' * 400}.png"
    path = coco_json(tmp_path / "train.json", many(2))
    path.write_text(path.read_text().replace("0.png", name))
    with pytest.raises(InputError, match=r"images\[0\] .*\(.*too long.*\); mend"):
        read_boxes(tmp_path)
    assert read_boxes(tmp_path, skip_bad_images=True).skipped == (name,)
    path.write_text(path.read_text().replace("1.png", "b" * 400))
    with pytest.raises(InputError, match=r"images\[1\] .*; mend or add them"):
        read_boxes(tmp_path, skip_bad_images=True)
    root = voc2012(tmp_path / "voc", sets={"train": {"a": ["cat"]}})
    (root / "ImageSets/Main/test.txt").write_text("c" * 400)
    assert names(read_boxes(root).images) == ["a.jpg"]


def test_an_image_that_a_camera_turned_is_taken_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert upright_size(path) == (30, 20)
    Image.new("RGB", (30, 20)).save(path)
    assert upright_size(path) == (20, 30)


def test_the_fingerprint_tells_the_data_whatever_their_place(tmp_path):
    coco_json(tmp_path / "a/train.json", many(4))
    first = read_boxes(tmp_path / "a").fingerprint
    assert read_boxes(shutil.copytree(tmp_path / "a", tmp_path / "b")).fingerprint == first
    written = (tmp_path / "b/train.json").read_text()
    assert '"iscrowd": 0' in written
    changes = {
        "a box": lambda text: text.replace("5.5", "5.25"),
        "a label": lambda text: text.replace('"category_id": 3', '"category_id": 1', 1),
        "a crowd": lambda text: text.replace('"iscrowd": 0', '"iscrowd": 1', 1),
        "a class": lambda text: text.replace('"name": "cat"', '"name": "cow"'),
    }
    found = {first}
    for change in changes.values():
        (tmp_path / "b/train.json").write_text(change(written))
        found.add(read_boxes(tmp_path / "b").fingerprint)
    (tmp_path / "b/train.json").write_text(written)
    path = tmp_path / "b/1.png"
    path.write_bytes(path.read_bytes() + b"\0")
    found.add(read_boxes(tmp_path / "b").fingerprint)
    assert len(found) == len(changes) + 2
    coco_json(tmp_path / "b/train.json", many(4) | {"5.png": []})
    together = read_boxes(tmp_path / "b").fingerprint
    coco_json(tmp_path / "b/train.json", many(4))
    coco_json(tmp_path / "b/val.json", {"5.png": []})
    assert read_boxes(tmp_path / "b").fingerprint != together


@pytest.fixture
def pool(tmp_path):
    """Return 40 images without given splits; every other class of box in three of four."""
    coco_json(tmp_path / "train.json", many(40), size=8)
    return read_boxes(tmp_path)


def parts(data):
    return {part: set(names(getattr(data, part))) for part in ("train", "val", "test")}


def test_splits_are_drawn_by_seed_and_share_no_image(pool):
    data = divide_boxes(pool, seed=0, val_fraction=0.2, test_fraction=0.1, image_size=32)
    found = parts(data)
    assert [len(found[part]) for part in ("train", "val", "test")] == [28, 8, 4]
    assert set.union(*found.values()) == set(names(pool.images))
    assert (data.classes, data.image_size, data.name) == (pool.classes, 32, pool.name)
    assert data.fingerprint == pool.fingerprint
    assert parts(divide_boxes(pool, seed=0, val_fraction=0.2)) == found
    assert parts(divide_boxes(pool, seed=1, val_fraction=0.2)) != found


def test_given_splits_are_kept_and_val_is_drawn_where_there_is_none(tmp_path):
    coco_json(tmp_path / "train.json", many(20), size=8)
    coco_json(tmp_path / "val.json", many(4, 100), size=8)
    data = divide_boxes(read_boxes(tmp_path), seed=0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [18, 2, 4]
    assert names(data.test) == list(many(4, 100))
    coco_json(tmp_path / "test.json", many(8, 200), size=8)
    data = divide_boxes(read_boxes(tmp_path), seed=0)
    assert [names(split) for split in (data.train, data.val, data.test)] == [
        list(many(20)), list(many(4, 100)), list(many(8, 200)),
    ]  # fmt: skip


@pytest.mark.parametrize(("limit", "count"), [(12, 12), (0.5, 20), (None, 40)])
def test_a_limit_leaves_so_many_images_outside_a_given_test_split(tmp_path, limit, count):
    coco_json(tmp_path / "train.json", many(40), size=8)
    coco_json(tmp_path / "val.json", many(4, 100), size=8)
    data = divide_boxes(read_boxes(tmp_path), seed=0, limit=limit, val_fraction=0.25)
    assert len(data.test) == 4
    assert (len(data.train), len(data.val)) == (count * 3 // 4, count // 4)


def test_a_class_of_one_image_is_trained_on_and_one_of_none_is_no_obstacle(tmp_path):
    shown = many(20) | {"rare.png": [("rare", 0, 0, 4, 4)]}
    coco_json(tmp_path / "train.json", shown, size=8, names=("cat", "dog", "rare", "never"))
    pool = read_boxes(tmp_path)
    for seed in range(8):
        data = divide_boxes(pool, seed=seed, test_fraction=0.4, val_fraction=0.4)
        assert "rare.png" in names(data.train)
        assert data.classes == ("cat", "dog", "rare", "never")


def test_a_split_without_boxes_is_refused(tmp_path):
    coco_json(tmp_path / "train.json", {"1.png": [], "2.png": []})
    coco_json(tmp_path / "val.json", {"100.png": [CAT]})
    with pytest.raises(InputError, match="has no training image with a box, so there is nothing to learn"):
        divide_boxes(read_boxes(tmp_path), seed=0)
    coco_json(tmp_path / "train.json", many(8))
    assert len(divide_boxes(read_boxes(tmp_path), seed=0, val_fraction=0.5).test) == 1
    coco_json(tmp_path / "val.json", {"100.png": []})
    with pytest.raises(InputError, match="none of the 1 images of the test split has a box"):
        divide_boxes(read_boxes(tmp_path), seed=0, val_fraction=0.5)


def test_a_crowd_alone_is_nothing_to_learn(tmp_path):
    root = voc2012(tmp_path, sets={"train": {"a": ["cat?"], "b": ["cat?"]}, "val": {"c": ["cat"]}})
    with pytest.raises(InputError, match="has no training image with a box"):
        divide_boxes(read_boxes(root), seed=0)


@pytest.mark.parametrize(
    ("given_number", "message"),
    [
        ({"image_size": 4}, "image_size is 4"),
        ({"limit": 0}, "limit is 0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"test_fraction": 0.0}, "test_fraction is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"limit": 2}, "2 images are too few to divide|leaves 2 training"),
    ],
)
def test_numbers_out_of_range_are_refused(pool, given_number, message):
    with pytest.raises(InputError, match=message):
        divide_boxes(pool, **({"seed": 0} | given_number))


def within(image):
    height, width = image.size
    x1, y1, x2, y2 = image.boxes.unbind(1)
    return bool(((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)).all()) and bool(
        ((x2 - x1 > SMALLEST_STEP / 2) & (y2 - y1 > SMALLEST_STEP / 2)).all()
    )


shared = pytest.mark.skipif(not UNPACK.is_file(), reason="needs the sets in shared/, which are not in the project")


def unpacked(name, folder):
    subprocess.run([sys.executable, UNPACK, name, folder], check=True, capture_output=True)
    return folder


@shared
def test_blood_cells(tmp_path):
    pool = read_boxes(unpacked("bccd", tmp_path))
    assert pool.classes == ("Platelets", "RBC", "WBC")
    labels = torch.cat([image.labels for image in pool.images])
    assert labels.bincount().tolist() == [361, 4155, 372]
    assert pool.dropped == {}  # two boxes of one pixel stay: their corners belong to them
    assert all(within(image) for image in pool.images)
    data = divide_boxes(pool, seed=0, limit=0.25)
    assert [len(split) for split in (data.train, data.val, data.test)] == [51, 22, 72]


def as_coco(root):
    """Write the boxes of the small COCO as files in COCO's own format, with its gaps between ids."""
    content = json.loads((root / "annotations.json").read_text())
    (root / "annotations").mkdir()
    categories = [{"id": place + place // 10 + 1, "name": name} for place, name in enumerate(content["classes"])]
    for part in ("train2017", "val2017"):
        images = [image for image in content["images"] if image["file"].startswith(part)]
        entries = [
            {"id": number, "file_name": Path(image["file"]).name, "height": image["height"], "width": image["width"]}
            for number, image in enumerate(images)
        ]
        annotations = [
            {"image_id": number, "category_id": categories[label]["id"], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for number, image in enumerate(images)
            for (x1, y1, x2, y2), label in zip(image["boxes"], image["labels"], strict=True)
        ]
        text = json.dumps({"images": entries, "annotations": annotations, "categories": categories})
        (root / f"annotations/instances_{part}.json").write_text(text)
    return content


@shared
def test_the_small_coco(tmp_path):
    content = as_coco(unpacked("coco128", tmp_path))
    pool = read_boxes(tmp_path)
    assert pool.classes == tuple(content["classes"])
    assert sum(len(image.boxes) for image in pool.images) == 1827
    assert [len(image.boxes) for image in pool.images].count(0) == 2
    assert pool.dropped == {}
    for image, expected in zip(pool.images, content["images"], strict=True):
        assert image.path.name == Path(expected["file"]).name
        np.testing.assert_allclose(image.boxes, np.array(expected["boxes"]).reshape(-1, 4), atol=1e-4)
        assert image.labels.tolist() == expected["labels"]
        assert within(image)
    data = divide_boxes(pool, seed=0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [115, 13, 128]
