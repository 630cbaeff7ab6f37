"""Caltech-256 in the layout of its archive, made up."""

import shutil

import pytest

from heedful.data import load
from heedful.data.folder import list_folder
from heedful.errors import InputError
from tests.data_made import caltech256


def test_the_clutter_class_and_stray_files_are_left_out(tmp_path):
    root = caltech256(tmp_path)
    listing = list_folder(root)
    assert listing.classes == ("ak47", "american-flag", "backpack")
    assert listing.labels.bincount().tolist() == [10, 10, 10]
    assert [path.parent.name for path in listing.paths[::10]] == ["001.ak47", "002.american-flag", "003.backpack"]
    base = "256_ObjectCategories"
    assert listing.ignored == (f"{base}/002.american-flag/greg", f"{base}/003.backpack/RENAME2")


def test_the_folder_of_categories_itself_is_known_with_and_without_clutter(tmp_path):
    base = caltech256(tmp_path) / "256_ObjectCategories"
    assert list_folder(base).classes == ("ak47", "american-flag", "backpack")
    shutil.rmtree(base / "257.clutter")
    assert list_folder(base).classes == ("ak47", "american-flag", "backpack")


def test_as_in_table_5_of_wang_a_number_of_each_class_is_drawn(tmp_path):
    data = load(str(caltech256(tmp_path)), seed=1, train_per_class=5, test_per_class=3)
    assert [split.labels.bincount().tolist() for split in (data.train, data.val, data.test)] == [
        [5] * 3,
        [1] * 3,
        [3] * 3,
    ]


def test_a_damaged_copy_is_refused(tmp_path):
    base = caltech256(tmp_path) / "256_ObjectCategories"
    for path in (base / "001.ak47").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"class folder .*001.ak47 holds no images"):
        list_folder(tmp_path)
    for name in ("001.ak47", "002.american-flag"):
        shutil.rmtree(base / name)
    with pytest.raises(InputError, match=r"holds 1 class folders such as 001.ak47/: unpack the data set again"):
        list_folder(tmp_path)
