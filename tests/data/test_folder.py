"""Folders of class folders: layouts, bad images, and what is said about wrong ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from heedful.data.folder import list_folder, read_folder
from heedful.data.images import moments, read_square
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError
from tests.data_made import imagenet, save_huge


def read(root, image_size=12, skip_bad_images=False):
    return read_folder(root, image_size=image_size, skip_bad_images=skip_bad_images)


def given_counts(pool):
    return {(pool.classes[label], part): n for (label, part), n in _count(pool).items()}


def _count(pool):
    pairs = list(zip(pool.labels.tolist(), pool.given.tolist(), strict=True))
    return {pair: pairs.count(pair) for pair in set(pairs)}


def test_class_folders_are_read_into_memory(make_folder):
    root = make_folder({"cat": 3, "ant/wood": 2, "bee": 1})
    pool = read(root)
    assert pool.classes == ("ant", "bee", "cat")
    assert pool.labels.tolist() == [0, 0, 1, 2, 2, 2]
    files = ["ant/wood/0", "ant/wood/1", "bee/0", "cat/0", "cat/1", "cat/2"]
    expected = np.stack([np.asarray(Image.open(root / f"{name}.png")) for name in files])
    np.testing.assert_array_equal(pool.images.permute(0, 2, 3, 1).numpy(), expected)
    assert (pool.given == TRAIN).all()
    assert (pool.name, pool.image_size, pool.augmentation) == ("photos", 12, ("flip", "shift"))


def test_images_over_64_pixels_stay_files_with_their_moments(make_folder):
    root = make_folder({"ant": 2, "bee": 1}, height=80, width=70)
    assert isinstance(read(root, image_size=64).images, torch.Tensor)
    pool = read(root, image_size=65)
    assert pool.images == (root / "ant/0.png", root / "ant/1.png", root / "bee/0.png")
    expected = [moments(read_square(path, 65)) for path in pool.images]
    np.testing.assert_allclose(pool.moments.numpy(), np.stack(expected))
    assert pool.augmentation == ("flip", "crop")


LAYOUTS = {
    "none given": (["{}"], {TRAIN}),
    "train, val, test": (["train/{}", "val/{}", "test/{}"], {TRAIN, VAL, TEST}),
    "other names": (["Training/{}", "valid/{}", "testing/{}"], {TRAIN, VAL, TEST}),
    "train, test": (["train/{}", "test/{}"], {TRAIN, TEST}),
    "validation as test, as ImageNet has it": (["train/{}", "validation/{}"], {TRAIN, TEST}),
    "train alone": (["train/{}"], {TRAIN}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_given_splits(make_folder, layout):
    folders, parts = LAYOUTS[layout]
    counts = {folder.format(name): 1 + i for i, folder in enumerate(folders) for name in ("ant", "bee")}
    pool = read(make_folder(counts))
    order = [TRAIN, *sorted(parts - {TRAIN})]
    expected = {(name, part): 1 + i for i, part in enumerate(order) for name in ("ant", "bee")}
    assert given_counts(pool) == expected


def test_files_that_are_no_images_are_listed_and_junk_is_not(make_folder):
    root = make_folder({"train/ant": 2, "train/bee": 2, "notes": 0})
    for name in ("README.md", "train/ant/boxes.txt", "train/list.csv", "train/ant/Thumbs.db", "train/.DS_Store"):
        (root / name).write_text("not an image")
    (root / ".git").mkdir()
    pool = read(root)
    assert pool.ignored == ("README.md", "notes", "train/ant/boxes.txt", "train/list.csv")
    assert len(pool.labels) == 4


def test_fingerprint_is_of_names_and_sizes(make_folder, tmp_path):
    root = make_folder({"ant": 2, "bee": 2})
    first = read(root).fingerprint
    assert read(root.rename(tmp_path / "moved"), image_size=70).fingerprint == first
    moved = tmp_path / "moved"
    (moved / "ant/0.png").rename(moved / "ant/5.png")
    renamed = read(moved).fingerprint
    assert renamed != first
    with (moved / "ant/5.png").open("ab") as file:
        file.write(b"more")
    assert read(moved).fingerprint not in (first, renamed)


def spoil(root):
    """Truncate one image, put a text file in the place of another."""
    whole = (root / "ant/1.jpg").read_bytes()
    (root / "ant/1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "bee/0.jpg").write_text("I am not an image")


@pytest.mark.parametrize("image_size", [32, 70])
def test_bad_images_are_named_and_counted_at_once(make_folder, image_size):
    root = make_folder({"ant": 4, "bee": 4}, suffix=".jpg", height=100, width=100)
    spoil(root)
    with pytest.raises(InputError) as error:
        read(root, image_size)
    message = str(error.value)
    assert "2 of 8 images in" in message
    assert "ant/1.jpg (image file is truncated" in message
    assert "bee/0.jpg (not an image)" in message
    assert "pass --skip-bad-images" in message


@pytest.mark.parametrize("image_size", [32, 70])
def test_bad_images_are_left_out_if_asked(make_folder, image_size):
    root = make_folder({"ant": 4, "bee": 4}, suffix=".jpg", height=100, width=100)
    spoil(root)
    pool = read(root, image_size, skip_bad_images=True)
    assert pool.skipped == ("ant/1.jpg", "bee/0.jpg")
    assert pool.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(pool.images) == 6
    if image_size == 32:
        expected = torch.from_numpy(read_square(root / "bee/1.jpg", 32).copy()).permute(2, 0, 1)
        assert torch.equal(pool.images[3], expected)
    else:
        assert pool.images[3] == root / "bee/1.jpg"


def test_many_bad_images_are_counted_and_ten_named(make_folder):
    root = make_folder({"ant": 12, "bee": 12})
    for number in range(12):
        (root / f"ant/{number}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"12 of 24 images in .*, and 2 more; mend") as error:
        read(root)
    assert str(error.value).count(".png") == 10


def test_only_bad_images_are_an_error_even_if_skipped(make_folder):
    root = make_folder({"ant": 1, "bee": 1})
    for name in ("ant/0.png", "bee/0.png"):
        (root / name).write_bytes(b"")
    with pytest.raises(InputError, match="2 of 2 images"):
        read(root, skip_bad_images=True)


WRONG = {
    "empty folder": ({".": 0}, "holds no images and no class folders: put the images of each class into a folder"),
    "no class folders": ({".": 3}, "holds 3 images and no class folders"),
    "one class": ({"ant": 3}, "holds one class, 'ant', so there is nothing to tell apart: give two or more"),
    "one folder too high": ({"all/ant": 3, "all/bee": 3}, "holds one class, 'all', .*: give .*all, if its folders are"),
    "images and masks": (
        {"images/ant": 3, "images/bee": 3, "masks/ant": 3},
        "holds images/ and masks/, which are not two classes: give .*photos/images, beside which",
    ),
    "empty class": ({"ant": 3, "bee": 0}, "class folder .*bee holds no images: fill it or remove it"),
    "empty train": ({"train": 0, "test/ant": 1}, "train holds no images and no class folders"),
    "class of test only": (
        {"train/ant": 1, "train/bee": 1, "test/ant": 1, "test/been": 1},
        "test/been has no counterpart in train/: unknown class 'been': did you mean bee",
    ),
    "class of val only": (
        {"train/ant": 1, "train/bee": 1, "val/images": 1},
        "val/images has no counterpart in train/: unknown class 'images': choose one of ant, bee",
    ),
    "no train": ({"val/ant": 1, "val/bee": 1, "test/ant": 1}, "holds test/, val/ but no train/"),
    "twice the same split": (
        {"train/ant": 1, "train/bee": 1, "val/ant": 1, "valid/ant": 1},
        "holds train/, val/, valid/, of which two mean the same split",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_layouts_are_refused(make_folder, case):
    counts, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        list_folder(make_folder(counts))


def test_imagenets_folders_are_read_and_val_is_the_test_split(tmp_path):
    pool = read(imagenet(tmp_path))
    assert pool.classes == ("n01440764", "n01443537")
    assert given_counts(pool) == {(name, part): n for name in pool.classes for part, n in ((TRAIN, 6), (TEST, 2))}


def test_a_flat_validation_folder_as_imagenets_archive_makes_it_is_refused_with_the_repair(tmp_path):
    root = imagenet(tmp_path)
    for path in sorted((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
    for name in ("n01440764", "n01443537"):
        (root / "val" / name).rmdir()
    message = r"val holds 4 images and no class folders: .* as in train/; for ImageNet.*ImageNet\(ROOT, split='val'\)"
    with pytest.raises(InputError, match=message):
        read(root)


def test_an_image_too_large_to_decode_is_named_among_others(make_folder):
    root = make_folder({"ant": 2, "bee": 2})
    save_huge(root / "bee/huge.png")
    with pytest.raises(InputError, match=r"1 of 5 images in .*bee/huge.png \(huge.png has more than the 89"):
        read(root)
    assert read(root, skip_bad_images=True).skipped == ("bee/huge.png",)
