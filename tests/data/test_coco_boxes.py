"""COCO's JSON in the folders that are common, made up."""

import json

import pytest
import torch
from pycocotools.coco import COCO
from torchvision.ops import box_convert

from heedful.data.coco_boxes import coco_files, list_coco_boxes
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError
from tests.data_made import coco_json

TRAINING = {"1.jpg": [("cat", 1, 2, 9, 10), ("dog", 0, 0, 5.5, 6.25)], "2.jpg": []}
OTHER = {"3.jpg": [("dog", 4, 4, 4, 4)]}


@pytest.mark.parametrize(
    ("train", "val", "images"),
    [
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "{}2017"),
        ("annotations/instances_train2014.json", "annotations/instances_val2014.json", "images/{}2014"),
        ("annotations/instances_train.json", "annotations/instances_val.json", "images"),
        ("annotations/train.json", "annotations/val.json", "{}"),
        ("train.json", "validation.json", "images"),
        ("train.json", "val.json", "."),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", "{}"),
    ],
)
def test_the_common_layouts_list_the_same(tmp_path, train, val, images):
    for file, shown, part in ((train, TRAINING, "train"), (val, OTHER, "valid" if "valid/" in val else "val")):
        coco_json(tmp_path / file, shown, images=tmp_path / images.format(part))
    listing = list_coco_boxes(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert [(image.path.name, image.part) for image in listing.images] == [
        ("1.jpg", TRAIN), ("2.jpg", TRAIN), ("3.jpg", VAL),
    ]  # fmt: skip
    assert all(image.path.is_file() and image.size == (16, 16) for image in listing.images)
    assert [image.labels for image in listing.images] == [(0, 1), (), (1,)]
    assert listing.images[0].boxes == ((1, 2, 10, 12), (0, 0, 5.5, 6.25))


@pytest.mark.parametrize(
    "file", ["annotations.json", "_annotations.coco.json", "annotations/instances_default.json", "train.json"]
)
def test_one_file_is_not_divided(tmp_path, file):
    coco_json(tmp_path / file, TRAINING, images=tmp_path / "images" if "/" in file else tmp_path)
    listing = list_coco_boxes(tmp_path)
    assert [image.part for image in listing.images] == [TRAIN, TRAIN]
    assert all(image.path.is_file() for image in listing.images)


def test_the_three_splits_of_roboflow(tmp_path):
    for part, name in (("train", "1.jpg"), ("valid", "2.jpg"), ("test", "3.jpg")):
        coco_json(tmp_path / part / "_annotations.coco.json", {name: [("cat", 0, 0, 2, 2)]})
    parts = {image.path.relative_to(tmp_path).as_posix(): image.part for image in list_coco_boxes(tmp_path).images}
    assert parts == {"train/1.jpg": TRAIN, "valid/2.jpg": VAL, "test/3.jpg": TEST}


def test_captions_and_key_points_are_no_boxes(tmp_path):
    coco_json(tmp_path / "annotations/instances_train2017.json", TRAINING, images=tmp_path / "train2017")
    for name in ("captions_train2017", "person_keypoints_val2017", "image_info_test2017"):
        (tmp_path / f"annotations/{name}.json").write_text("{}")
    assert [path.name for path in coco_files(tmp_path)] == ["instances_train2017.json"]


def test_what_is_listed_is_what_pycocotools_reads(tmp_path):
    path = coco_json(tmp_path / "train.json", TRAINING | OTHER)
    change(path, lambda c: c["annotations"][2].update(iscrowd=1), lambda c: c["categories"].reverse())
    reader, listing = COCO(path), list_coco_boxes(tmp_path)
    assert [entry["name"] for entry in reader.loadCats(sorted(reader.getCatIds()))] == list(listing.classes)
    for number, image in zip(reader.getImgIds(), listing.images, strict=True):
        entries = reader.loadAnns(reader.getAnnIds(number))
        boxes = torch.tensor([entry["bbox"] for entry in entries], dtype=torch.float64).view(-1, 4)
        assert box_convert(boxes, "xywh", "xyxy").tolist() == [list(box) for box in image.boxes]
        assert [reader.cats[entry["category_id"]]["name"] for entry in entries] == [
            listing.classes[label] for label in image.labels
        ]
        assert [bool(entry["iscrowd"]) for entry in entries] == list(image.crowd)


def change(path, *changes):
    content = json.loads(path.read_text())
    for each in changes:
        each(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("written", "expected"), [({"height": 20, "width": 30}, (20, 30)), ({"height": None}, None), ({"width": "9"}, None)]
)
def test_the_size_is_the_one_written_if_any_is(tmp_path, written, expected):
    path = coco_json(tmp_path / "train.json", TRAINING)
    change(path, lambda content: content["images"][0].update(written))
    assert list_coco_boxes(tmp_path).images[0].size == expected


def test_categories_of_one_name_are_one_class_whatever_their_ids(tmp_path):
    change(
        coco_json(tmp_path / "train.json", TRAINING),
        lambda c: c["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"}),
    )
    change(
        coco_json(tmp_path / "val.json", OTHER),
        lambda c: c["categories"][1].update(id=7),
        lambda c: c["annotations"][0].update(category_id=7),
    )
    listing = list_coco_boxes(tmp_path)
    assert listing.classes == ("dog", "cat")
    assert [image.labels for image in listing.images] == [(1, 0), (), (0,)]


@pytest.mark.parametrize(
    ("entry", "changed", "message"),
    [
        ("annotations", {"category_id": 2}, r"annotations\[1\] \(id 1\) has category_id 2, but the categories "),
        ("annotations", {"category_id": "3"}, r"annotations\[1\] \(id 1\) has category_id '3', but must have a whole"),
        ("annotations", {"image_id": 7}, r"annotations\[1\] \(id 1\) has image_id 7, but no image has this id"),
        ("annotations", {"bbox": [1, 2, -3, 4]}, r"annotations\[1\] \(id 1\) has bbox \[1, 2, -3, 4\], but width and"),
        (
            "annotations",
            {"bbox": [1, 2, 3, float("nan")]},
            r"annotations\[1\] .*has bbox \[1, 2, 3, nan\], but",
        ),
        ("annotations", {"bbox": [10**400, 2, 3, 4]}, r"annotations\[1\] .*must have \[x, y, width, height\]"),
        ("annotations", {"bbox": [1, 2, 3]}, r"annotations\[1\] .*must have \[x, y, width, height\]"),
        ("annotations", {"bbox": None}, r"annotations\[1\] .*has bbox None"),
        ("annotations", {"iscrowd": "no"}, r"annotations\[1\] .*has iscrowd 'no', but must have 0 or 1"),
        ("images", {"id": 100}, r"images\[1\] has id 100, as images\[0\] has"),
        ("images", {"id": None}, r"images\[1\] \(id None\) has id None, but must have a whole number"),
        ("images", {"file_name": "1.jpg"}, r"images\[1\] \(id 101\) is .*1.jpg, as .*images\[0\] \(id 100\) is"),
        ("images", {"file_name": ""}, r"images\[1\] .*has file_name '', but must have a text"),
        ("images", {"file_name": "../2.jpg"}, r"images\[1\] has file_name '../2.jpg', but it must be relative"),
        ("categories", {"id": 1}, r"categories\[1\] has id 1, as 'cat' has"),
        ("categories", {"name": 5}, r"categories\[1\] .*has name 5, but must have a text"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, entry, changed, message):
    path = coco_json(tmp_path / "train.json", TRAINING)
    list_coco_boxes(tmp_path)
    change(path, lambda content: content[entry][1].update(changed))
    with pytest.raises(InputError, match=f"train.json: {message}"):
        list_coco_boxes(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "annotations"', r"train.json, line 2: no JSON"),
        ("", r"train.json, line 1: no JSON"),
        ('{"images": [\udcff]}', r"train.json cannot be read"),
        ("[" * 100_000, r"train.json cannot be read"),
        ("[1" + "0" * 5000 + "]", r"train.json cannot be read"),
        ("[]", r"train.json has no list 'images'"),
        ('{"images": [], "annotations": {}}', r"train.json has no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', r"train.json has no category"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', r"train.json lists no image"),
        ('{"images": [3], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', r"images\[0\] has id None"),
    ],
)
def test_a_file_that_is_none_of_cocos_is_named(tmp_path, text, message):
    (tmp_path / "train.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        list_coco_boxes(tmp_path)


def test_files_that_contradict_each_other_are_refused(tmp_path):
    coco_json(tmp_path / "train.json", TRAINING)
    coco_json(tmp_path / "val.json", OTHER | {"2.jpg": []})
    with pytest.raises(InputError, match=r"val.json: images\[1\] .* is .*2.jpg, as .*train.json: images\[1\] "):
        list_coco_boxes(tmp_path)
    coco_json(tmp_path / "val.json", {"3.jpg": []}, names=("cat", "cow"))
    with pytest.raises(InputError, match=r"val.json has category 'cow', which .*train.json has not"):
        list_coco_boxes(tmp_path)
    coco_json(tmp_path / "valid.json", {"4.jpg": []})
    with pytest.raises(InputError, match=r"several JSON files for one split: train.json, val.json, valid.json"):
        list_coco_boxes(tmp_path)
    (tmp_path / "train.json").unlink()
    (tmp_path / "valid.json").unlink()
    with pytest.raises(InputError, match=r"has val.json, but no JSON file for training"):
        list_coco_boxes(tmp_path)
