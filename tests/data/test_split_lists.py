"""Class folders with train.txt and test.txt."""

import subprocess
import sys
from pathlib import Path

import pytest

from heedful.data import load
from heedful.data.folder import list_folder, read_folder
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError
from tests.data_made import save_image

SHARED = Path(__file__).parents[3] / "shared"
UNPACK = SHARED / "tools" / "unpack.py"

TRAINED = ["cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png", "dog/3.png"]
TESTED = ["dog/4.png", "cat/4.png"]


def lists(root, *, below="", **names):
    """Write the images under a folder of class folders, and the lists of them beside it."""
    for part, images in names.items():
        for image in images:
            save_image(root / below / image)
        (root / f"{part}.txt").write_text("".join(f"{image}\n" for image in images))
    return root


@pytest.mark.parametrize("below", ["", "101_ObjectCategories", "256_ObjectCategories"])
def test_the_lists_say_which_images_are_for_what(tmp_path, below):
    root = lists(tmp_path, below=below, train=TRAINED, test=TESTED)
    save_image(root / below / "cat" / "unlisted.png")
    (root / "SOURCE.txt").write_text("where from\n")
    listing = list_folder(root)
    assert listing.classes == ("cat", "dog")
    assert listing.paths == tuple(root / below / image for image in [*TRAINED, *TESTED])
    assert listing.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 0]
    assert listing.given.tolist() == [TRAIN] * 6 + [TEST] * 2
    data = load(str(root), seed=0, image_size=16)
    assert [len(split) for split in (data.train, data.val, data.test)] == [4, 2, 2]


def test_a_validation_list_is_kept_and_stands_in_for_a_test_list(tmp_path):
    root = lists(tmp_path, train=TRAINED, val=["cat/5.png", "dog/5.png"], test=TESTED)
    assert list_folder(root).given.tolist() == [TRAIN] * 6 + [VAL] * 2 + [TEST] * 2
    (root / "test.txt").unlink()
    assert list_folder(root).given.tolist() == [TRAIN] * 6 + [TEST] * 2


def test_blank_lines_marks_of_byte_order_and_windows_ends_do_no_harm(tmp_path):
    root = lists(tmp_path, train=TRAINED, test=TESTED)
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(TRAINED).encode())
    assert len(list_folder(root).paths) == 8


def test_a_path_may_go_deeper_than_its_class(tmp_path):
    root = lists(tmp_path, train=[*TRAINED, "cat/black/1.png"], test=TESTED)
    assert list_folder(root).labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 0]


def test_folders_of_splits_go_before_lists(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            save_image(tmp_path / part / name / "1.png")
    lists(tmp_path, train=[], test=[])
    listing = list_folder(tmp_path)
    parts = [path.relative_to(tmp_path).parts[0] for path in listing.paths]
    assert sorted(zip(parts, listing.given.tolist(), strict=True)) == [("test", TEST)] * 2 + [("train", TRAIN)] * 2


def test_one_list_alone_is_no_split(tmp_path):
    root = lists(tmp_path, train=TRAINED)
    listing = list_folder(root)
    assert listing.given.tolist() == [TRAIN] * 6
    assert listing.ignored == ("train.txt",)


def test_the_fingerprint_follows_the_lists(tmp_path):
    root = lists(tmp_path, train=TRAINED, test=TESTED)
    before = read_folder(root, image_size=8, skip_bad_images=False).fingerprint
    (root / "train.txt").write_text("\n".join([*TRAINED[:-1], TESTED[0]]))
    (root / "test.txt").write_text("\n".join([TRAINED[-1], TESTED[1]]))
    assert read_folder(root, image_size=8, skip_bad_images=False).fingerprint != before


WRONG = {
    "missing": ("train.txt", "cat/2.png", "cat/92.png", r"train.txt, line 2: cat/92.png does not exist in "),
    "outside": ("train.txt", "cat/2.png", "cat/../../2.png", r"train.txt, line 2: .* must be CLASS/file, relative to"),
    "absolute": ("test.txt", "dog/4.png", "/dog/4.png", r"test.txt, line 1: .* must be CLASS/file"),
    "no class": ("test.txt", "dog/4.png", "4.png", r"test.txt, line 1: 4.png must be CLASS/file"),
    "twice": ("train.txt", "cat/3.png", "cat/1.png", r"train.txt, line 3: cat/1.png is in line 1 of train.txt already"),
    "in both": ("test.txt", "cat/4.png", "dog/1.png", r"test.txt, line 2: dog/1.png is in line 4 of train.txt already"),
    "in other words": ("test.txt", "cat/4.png", "dog/./1.png", r"test.txt, line 2: dog/1.png is in line 4 of train"),
    "a label too": ("train.txt", "cat/2.png", "cat/2.png 0", r"train.txt, line 2: cat/2.png 0 does not exist"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_line_is_named(tmp_path, case):
    file, old, new, message = WRONG[case]
    root = lists(tmp_path, train=TRAINED, test=TESTED)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        list_folder(root)


def test_an_empty_list_one_that_is_no_text_and_a_single_class_are_refused(tmp_path):
    root = lists(tmp_path, train=TRAINED, test=TESTED)
    (root / "test.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"test.txt is empty: list images in it"):
        list_folder(root)
    (root / "test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"test.txt cannot be read .* UTF-8"):
        list_folder(root)
    (root / "train.txt").write_text("cat/1.png\n")
    (root / "test.txt").write_text("cat/2.png\n")
    with pytest.raises(InputError, match=r"have one class, 'cat', but there must be two or more"):
        list_folder(root)


@pytest.mark.skipif(not UNPACK.is_file(), reason="needs the sets in shared/, which are not in the project")
def test_caltech101_as_it_unpacks(tmp_path):
    subprocess.run([sys.executable, UNPACK, "caltech101_subset", tmp_path], check=True, capture_output=True)
    listing = list_folder(tmp_path)
    assert len(listing.classes) == 101
    assert listing.labels[listing.given == TRAIN].bincount().unique().tolist() == [25]
    assert listing.given.bincount().tolist() == [2525, 0, 1088]
