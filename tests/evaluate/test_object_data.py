"""Where images to evaluate on come from, with what is known of their objects."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heedful import InputError
from heedful.data.dataset import ImageArray, ImageFiles
from heedful.data.images import read_square
from heedful.evaluate.object_data import objects_of, sample_of
from tests.data_made import bright_squares

CLASSES = ("cat", "dog", "eel")


def photo(path, seed=0, height=12, width=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """`images/` of two classes, and boxes beside it."""
    for seed, name in enumerate(["dog/1.png", "cat/2.png", "cat/1.png"]):
        photo(tmp_path / "images" / name, seed)
    lines = ["path,left,top,right,bottom", "cat/1.png,0,0,5,5", "dog/1.png,6,6,11,11", "cat/2.png,3,3,3,9"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    return tmp_path


def names_of(sample):
    return [path.relative_to(path.parents[1]).as_posix() for path in sample.paths]


def test_a_folder_of_images_with_boxes_beside_it(folder):
    sample = sample_of(str(folder), CLASSES, 12)
    assert names_of(sample) == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert sample.split.labels.tolist() == [0, 0, 1]
    assert isinstance(sample.split, ImageArray)
    for image, path in zip(sample.split.images, sample.paths, strict=True):
        assert (image.permute(1, 2, 0).numpy() == read_square(path, 12)).all()
    assert sample.objects.without_area == 1
    assert [sample.objects.find(path, 12)[1].tolist() for path in sample.paths] == [
        [[0, 0, 5, 5]],
        [],
        [[6, 6, 11, 11]],
    ]
    assert sample_of(str(folder / "images"), CLASSES, 12).objects.without_area == 1


def test_labels_are_the_runs(folder):
    assert sample_of(str(folder), ("dog", "ox", "cat"), 12).split.labels.tolist() == [2, 2, 0]


def test_large_images_stay_files(folder):
    split = sample_of(str(folder), CLASSES, 80).split
    assert isinstance(split, ImageFiles)
    assert split.image_size == 80


def test_masks_beside_images_of_one_class(tmp_path):
    photo(tmp_path / "images" / "cat" / "a.png")
    (tmp_path / "masks" / "cat").mkdir(parents=True)
    mask = np.zeros((12, 12), dtype=np.uint8)
    mask[2:4] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "cat" / "a.png")
    sample = sample_of(str(tmp_path), CLASSES, 12)
    assert sample.objects.kind == "masks"
    assert (sample.objects.find(sample.paths[0], 12)[0] == mask.astype(bool)).all()


def test_masks_among_class_folders(tmp_path):
    photo(tmp_path / "cat" / "a.png")
    (tmp_path / "masks" / "cat").mkdir(parents=True)
    Image.fromarray(np.ones((12, 12), dtype=np.uint8)).save(tmp_path / "masks" / "cat" / "a.png")
    sample = sample_of(str(tmp_path), CLASSES, 12)
    assert names_of(sample) == ["cat/a.png"]
    assert sample.objects.find(sample.paths[0], 12)[0].all()


@pytest.mark.parametrize("part", ["test", "val", "Testing"])
def test_of_splits_the_one_for_testing_is_taken(tmp_path, part):
    photo(tmp_path / "train" / "cat" / "a.png")
    photo(tmp_path / part / "eel" / "b.png")
    (tmp_path / "boxes.csv").write_text(f"path,left,top,right,bottom\n{part}/eel/b.png,0,0,3,3\n")
    sample = sample_of(str(tmp_path), CLASSES, 12)
    assert names_of(sample) == ["eel/b.png"]
    assert sample.split.labels.tolist() == [2]
    assert sample.objects.find(sample.paths[0], 12)[0].sum() == 16


def test_test_comes_before_val(tmp_path):
    for part in ("train", "val", "test"):
        photo(tmp_path / part / "cat" / f"{part}.png")
    assert names_of(sample_of(str(tmp_path), CLASSES, 12)) == ["cat/test.png"]


def test_cub_with_its_boxes(tmp_path):
    for name in ("001.cat/1.jpg", "001.cat/2.jpg", "002.dog/1.jpg"):
        photo(tmp_path / "images" / name, height=20, width=30)
    files = {
        "images.txt": "1 001.cat/1.jpg\n2 001.cat/2.jpg\n3 002.dog/1.jpg\n",
        "image_class_labels.txt": "1 1\n2 1\n3 2\n",
        "classes.txt": "1 001.cat\n2 002.dog\n",
        "train_test_split.txt": "1 1\n2 0\n3 0\n",
        "bounding_boxes.txt": "1 0 0 5 5\n2 5.0 0.0 20.0 20.0\n3 15.0 10.0 10.0 10.0\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    sample = sample_of(str(tmp_path), ("dog", "cat"), 20)
    assert sample.split.labels.tolist() == [1, 0]
    assert [sample.objects.find(path, 20)[1].tolist() for path in sample.paths] == [
        [[0, 0, 19, 19]],
        [[10, 10, 19, 19]],
    ]


def test_tiny_imagenet(tmp_path):
    """Its validation images, and the boxes of its training images for runs on train/."""
    for name in (
        "train/n01/images/n01_0.JPEG",
        "train/n02/images/n02_0.JPEG",
        "val/images/val_0.JPEG",
        "val/images/val_1.JPEG",
    ):
        photo(tmp_path / name, height=64, width=64)
    (tmp_path / "train" / "n01" / "n01_boxes.txt").write_text("n01_0.JPEG\t0\t10\t63\t58\n")
    (tmp_path / "train" / "n02" / "n02_boxes.txt").write_text("n02_0.JPEG\t63\t10\t63\t20\n")
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t1\t2\t3\t4\nval_1.JPEG\tn01\t5\t5\t60\t60\n"
    )
    sample = sample_of(str(tmp_path), ("n01", "n02"), 64)
    assert [path.name for path in sample.paths] == ["val_0.JPEG", "val_1.JPEG"]
    assert sample.split.labels.tolist() == [1, 0]
    assert [sample.objects.find(path, 64)[1].tolist() for path in sample.paths] == [[[1, 2, 3, 4]], [[5, 5, 60, 60]]]
    train = tmp_path / "train"
    objects = objects_of(train)
    assert objects.find(train / "n01/images/n01_0.JPEG", 64)[1].tolist() == [[0, 10, 63, 58]]
    assert objects.without_area == 1
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t1\t2\n")
    with pytest.raises(InputError, match="four corners"):
        sample_of(str(tmp_path), ("n01", "n02"), 64)


def test_an_npz_has_no_objects(tmp_path):
    path = bright_squares(tmp_path / "squares.npz", with_test=True)
    sample = sample_of(str(path), ("class 2", "class 1", "class 0"), 8)
    assert (sample.paths, sample.objects) == (None, None)
    with np.load(path) as arrays:
        assert sample.split.labels.tolist() == (2 - arrays["labels"][arrays["test"]]).tolist()


def test_a_limit_keeps_every_class(tmp_path):
    sample = sample_of(str(bright_squares(tmp_path / "a.npz", per_class=20)), ("class 0", "class 1", "class 2"), 8)
    few = sample.limited(6)
    assert few.split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(few.split.images, sample.split.images[::10])
    assert sample.limited(None) is sample
    assert sample.limited(60) is sample
    with pytest.raises(InputError, match="limit is 0"):
        sample.limited(0)


def test_a_limit_takes_the_paths_along(folder):
    few = sample_of(str(folder), CLASSES, 12).limited(2)
    assert names_of(few) == ["cat/1.png", "cat/2.png"]
    assert sample_of(str(folder), CLASSES, 80).limited(1).split.paths == few.paths[:1]


def test_no_objects(tmp_path):
    photo(tmp_path / "cat" / "a.png")
    assert sample_of(str(tmp_path), CLASSES, 12).objects is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cot/a.png"], "has other classes than the run: unknown class 'cot': did you mean cat"),
        (["a.png"], "holds no class folders with images"),
        ([], "holds no class folders with images"),
    ],
)
def test_folders_that_do_not_fit_the_run(tmp_path, files, message):
    for name in files:
        photo(tmp_path / name)
    with pytest.raises(InputError, match=message):
        sample_of(str(tmp_path), CLASSES, 12)


def test_a_broken_image_is_named(tmp_path):
    photo(tmp_path / "cat" / "a.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"image .*a\.png cannot be read"):
        sample_of(str(tmp_path), CLASSES, 12)


def test_no_such_data():
    with pytest.raises(InputError, match="no such file or folder"):
        sample_of(str(Path("missing") / "photos"), CLASSES, 12)


def test_images_with_several_classes(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / name)
    (tmp_path / "labels.csv").write_text("path,cat,dog\na.png,1,1\nb.png,0,1\nc.png,1,0\n")
    with pytest.raises(InputError, match="images with several classes"):
        sample_of(str(tmp_path), CLASSES, 12)
