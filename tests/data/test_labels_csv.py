"""A folder with labels.csv: what is read, and what is said about wrong ones."""

import pytest
import torch

from heedful.data import ImageFiles, batches, load
from heedful.data.folder import list_folder, read_folder
from heedful.data.images import read_square
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError
from tests.data_made import labels_csv, save_image


def bits(number):
    return [number & 1, number >> 1 & 1, number >> 2 & 1]


def rewrite(root, change):
    """Change the lines of labels.csv."""
    path = root / "labels.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n", encoding="utf-8")


def test_labels_and_images_are_those_of_the_lines(tmp_path):
    root = labels_csv(tmp_path)
    pool = read_folder(root, image_size=16, skip_bad_images=False)
    assert pool.classes == ("class 0", "class 1", "class 2")
    assert pool.labels.tolist() == [bits(number) for number in range(24)]
    assert (pool.given == TRAIN).all()
    for number in (0, 5, 23):
        expected = torch.from_numpy(read_square(root / f"photos/{number:03d}.png", 16).copy()).permute(2, 0, 1)
        assert torch.equal(pool.images[number], expected)


def test_a_split_column_is_kept_wherever_it_stands(tmp_path):
    root = labels_csv(tmp_path, with_split=True)
    expected = [(TRAIN, VAL, TEST)[number // 8] for number in range(24)]
    assert list_folder(root).given.tolist() == expected

    def turned(lines):
        cells = [line.split(",") for line in lines]
        return [",".join([path, part.upper() if part != "split" else part, *rest]) for path, *rest, part in cells]

    rewrite(root, turned)
    listing = list_folder(root)
    assert listing.given.tolist() == expected
    assert listing.classes == ("class 0", "class 1", "class 2")
    assert listing.labels.tolist() == [bits(number) for number in range(24)]


def test_val_is_the_test_split_where_there_is_no_test(tmp_path):
    root = labels_csv(tmp_path, with_split=True)
    rewrite(root, lambda lines: [line.replace(",test", ",train") for line in lines])
    given = list_folder(root).given
    assert set(given.tolist()) == {TRAIN, TEST}
    assert (given == TEST).sum() == 8


def test_spaces_quotes_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path):
    save_image(tmp_path / "a, b.png")
    save_image(tmp_path / "ü.png")
    text = '\ufeffpath, cat ,dog\n\n"a, b.png", 1,0\nü.png,0 ,1\n,,\n'
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    listing = list_folder(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert [path.name for path in listing.paths] == ["a, b.png", "ü.png"]
    assert listing.labels.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_with_several_labels_come_in_batches(tmp_path, num_workers):
    data = load(str(labels_csv(tmp_path, with_split=True)), seed=0, image_size=72)
    assert isinstance(data.train, ImageFiles)
    assert data.multi_label
    assert data.num_unlabelled == 3
    by_path = {f"{number:03d}.png": bits(number) for number in range(24)}
    assert [by_path[path.name] for path in data.train.paths] == data.train.labels.tolist()
    loader = batches(data.test, data, 4, num_workers=num_workers)
    labels = torch.cat([labels for _, labels in loader])
    assert labels.dtype == torch.int64
    assert torch.equal(labels, data.test.labels)
    shuffled = torch.cat([labels for _, labels in batches(data.train, data, 4, augment=("flip",), seed=1)])
    assert sorted(shuffled.tolist()) == sorted(data.train.labels.tolist())


def test_the_fingerprint_is_of_labels_splits_and_classes_too(tmp_path):
    root = labels_csv(tmp_path, with_split=True)
    seen = {read_folder(root, image_size=16, skip_bad_images=False).fingerprint}
    for old, new in (("001.png,1", "001.png,0"), ("000.png,0,0,0,train", "000.png,0,0,0,val"), ("class 1", "bee")):
        rewrite(root, lambda lines, old=old, new=new: [line.replace(old, new) for line in lines])
        seen.add(read_folder(root, image_size=16, skip_bad_images=False).fingerprint)
    assert len(seen) == 4


def test_a_bad_image_is_left_out_with_its_labels(tmp_path):
    root = labels_csv(tmp_path)
    (root / "photos/005.png").write_text("not an image")
    with pytest.raises(InputError, match=r"1 of 24 images in .*photos/005.png \(not an image\)"):
        read_folder(root, image_size=16, skip_bad_images=False)
    pool = read_folder(root, image_size=16, skip_bad_images=True)
    assert pool.labels.tolist() == [bits(number) for number in range(24) if number != 5]


def swapped(old, new):
    return lambda lines: [line.replace(old, new) for line in lines]


RENAME = "; or rename the file, if the class folders hold the labels"

WRONG = {
    "missing file": (swapped("003.png", "nine.png"), "1 of 24 files that .*labels.csv lists do not exist: .*nine.png"),
    "twice": (swapped("photos/003.png", "photos/./004.png"), r"labels.csv lists photos/004.png twice: keep one"),
    "outside": (swapped("photos/003", "../photos/003"), r"lists \.\./photos/003.png, but paths must be relative to"),
    "absolute": (swapped("photos/003", "/photos/003"), r"lists /photos/003.png, but paths must be relative to"),
    "two": (swapped("003.png,1", "003.png,2"), "line 5: '2' for class 'class 0', but it must be 1 .* or 0" + RENAME),
    "blank": (swapped("003.png,1", "003.png,"), "line 5: '' for class 'class 0', but it must be 1"),
    "a word": (swapped("003.png,1,1", "003.png,1,yes"), "line 5: 'yes' for class 'class 1'"),
    "short line": (swapped("003.png,1,1,0", "003.png,1,1"), "line 5: 3 cells, but the first line names 4 columns"),
    "same class": (swapped("class 1", "class 0"), "has 'class 0' twice or blank in its first line: .*" + RENAME),
    "class without a name": (swapped("class 1", ""), "has '' twice or blank in its first line"),
    "one class": (lambda lines: [",".join(line.split(",")[:2]) for line in lines], "names 1 classes .*" + RENAME),
    "semicolons": (
        swapped(",", ";"),
        "names 0 classes in its first line, but must name two or more, ",
    ),
    "no image": (lambda lines: lines[:1], "lists no image: below the first line"),
    "empty": (lambda lines: [], "lists no image"),
    "an open quote": (swapped("photos/003", '"photos/003'), "is not a table in UTF-8 separated by commas"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_is_refused(tmp_path, case):
    change, message = WRONG[case]
    root = labels_csv(tmp_path)
    rewrite(root, change)
    with pytest.raises(InputError, match=message):
        list_folder(root)


def test_an_unknown_split_is_refused(tmp_path):
    root = labels_csv(tmp_path, with_split=True)
    rewrite(root, swapped("003.png,1,1,0,train", "003.png,1,1,0,trian"))
    with pytest.raises(InputError, match=r"labels.csv, line 5: unknown split 'trian': did you mean train\?"):
        list_folder(root)


def test_a_table_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"path,cat,dog\n\xff\xfe,1,0\n")
    with pytest.raises(InputError, match="is not a table in UTF-8"):
        list_folder(tmp_path)


def test_a_class_that_no_image_shows_is_named(tmp_path):
    root = labels_csv(tmp_path)
    rewrite(root, lambda lines: [lines[0] + ",unicorn", *(line + ",0" for line in lines[1:])])
    with pytest.raises(InputError, match="class 'unicorn' has 0 images in the train split"):
        load(str(root), seed=0)
