"""CUB-200-2011 in the layout of its archive, made up."""

import pytest

from heedful.data import cub_boxes, load
from heedful.data.folder import list_folder
from heedful.data.pool import TEST, TRAIN
from heedful.errors import InputError
from tests.data_made import cub200


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_labels_and_the_test_split_are_the_files_own(tmp_path):
    listing = list_folder(cub200(tmp_path))
    assert listing.classes == ("Black_footed_Albatross", "Laysan_Albatross")
    assert listing.labels.tolist() == [0] * 8 + [1] * 8
    assert listing.given.tolist() == [TEST, TRAIN] * 8
    first = tmp_path / "images/001.Black_footed_Albatross/Black_footed_Albatross_0000.jpg"
    assert listing.paths[0] == first
    data = load(str(tmp_path), seed=0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [6, 2, 8]


def test_labels_follow_the_numbers_not_the_order_of_lines(tmp_path):
    root = cub200(tmp_path)
    for file in ("images.txt", "image_class_labels.txt"):
        lines = (root / file).read_text().splitlines()
        (root / file).write_text("\n".join(lines[::-1] if file == "images.txt" else lines[3:] + lines[:3]))
    listing = list_folder(root)
    for path, label in zip(listing.paths, listing.labels.tolist(), strict=True):
        assert listing.classes[label] in path.name


def test_boxes_have_inclusive_corners_in_pixels(tmp_path):
    boxes = cub_boxes(cub200(tmp_path))
    assert len(boxes) == 16
    name = "images/001.Black_footed_Albatross/Black_footed_Albatross_0003.jpg"
    # bounding_boxes.txt says 3.0 1.0 8.0 9.5 of it: left, top, width, height.
    assert boxes[name] == (3.0, 1.0, 10.0, 9.5)
    assert all((tmp_path / name).is_file() for name in boxes)


WRONG = {
    "no class": (
        "image_class_labels.txt",
        "3 1\n",
        "3 7\n",
        r"says '7' of image 3, but it must be a number in",
    ),
    "no split": ("train_test_split.txt", "3 0\n", "3 2\n", r"says '2' of image 3, but it must be 0 \(test\) or 1"),
    "joined": ("train_test_split.txt", "3 0\n", "3 01\n", r"says '01' of image 3"),
    "an image less": ("images.txt", "3 001", "99 001", "the first, 3, in image_class_labels.txt and not in images.txt"),
    "a label less": (
        "image_class_labels.txt",
        "16 2\n",
        "",
        "the first, 16, in images.txt and not in image_class",
    ),
    "a number twice": ("train_test_split.txt", "4 1\n", "3 1\n", "train_test_split.txt has number 3 twice"),
    "no number": (
        "classes.txt",
        "1 001.",
        "one 001.",
        "classes.txt has the line 'one 001.Black_footed_Albatross'",
    ),
    "no such image": (
        "images.txt",
        "_0002.jpg",
        "_0092.jpg",
        "1 of 16 files .* do not exist: .*0092",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_disagree_are_named(tmp_path, case):
    file, old, new, message = WRONG[case]
    root = cub200(tmp_path)
    rewrite(root / file, old, new)
    with pytest.raises(InputError, match=message):
        list_folder(root)


@pytest.mark.parametrize("file", ["train_test_split.txt", "classes.txt"])
def test_a_missing_or_empty_file_is_named(tmp_path, file):
    root = cub200(tmp_path)
    (root / file).write_text("\n")
    with pytest.raises(InputError, match=f"{file} is empty"):
        list_folder(root)
    (root / file).unlink()
    with pytest.raises(InputError, match=f"{file} cannot be read .* unpack the data set again"):
        list_folder(root)


@pytest.mark.parametrize(("old", "new"), [("3 2.0", "3 two"), ("3 2.0 1.0", "3 2.0")])
def test_a_wrong_box_is_named(tmp_path, old, new):
    root = cub200(tmp_path)
    rewrite(root / "bounding_boxes.txt", old, new)
    with pytest.raises(InputError, match=r"bounding_boxes.txt says .* of image 3, but a box is four numbers"):
        cub_boxes(root)


def test_boxes_of_other_images_are_refused(tmp_path):
    root = cub200(tmp_path)
    rewrite(root / "bounding_boxes.txt", "16 3.0", "17 3.0")
    with pytest.raises(InputError, match=r"2 images stand in one of images.txt and bounding_boxes.txt alone"):
        cub_boxes(root)
