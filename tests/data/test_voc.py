"""PASCAL VOC in the layout of its archive, made up."""

import pytest

from heedful.data import load
from heedful.data.folder import list_folder
from heedful.data.pool import TEST, TRAIN, VAL
from heedful.errors import InputError
from tests.data_made import voc2012

SETS = {
    "train": {"2008_000001": ["dog", "cat", "dog"], "2008_000002": ["person", "cat?"]},
    "val": {"2008_000003": [], "2008_000004": ["cat"]},
}


def test_labels_are_the_objects_difficult_ones_too_and_no_parts(tmp_path):
    listing = list_folder(voc2012(tmp_path / "VOC2012", sets=SETS))
    assert listing.classes == ("cat", "dog", "person")
    assert [path.name for path in listing.paths] == [f"2008_00000{number}.jpg" for number in range(1, 5)]
    assert listing.labels.tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_val_is_the_test_split(tmp_path):
    root = voc2012(tmp_path)
    listing = list_folder(root)
    assert listing.given.tolist() == [TRAIN] * 12 + [TEST] * 12
    data = load(str(root), seed=0)
    assert data.multi_label
    assert [len(split) for split in (data.train, data.val, data.test)] == [11, 1, 12]
    assert data.num_unlabelled == 4


@pytest.mark.parametrize("annotated", [True, False])
def test_a_test_set_counts_only_where_it_has_annotations(tmp_path, annotated):
    root = voc2012(tmp_path, sets=SETS | {"test": {"2008_000005": ["dog"]}})
    if not annotated:
        (root / "Annotations/2008_000005.xml").unlink()
    given = list_folder(root).given.tolist()
    assert given == ([TRAIN, TRAIN, VAL, VAL, TEST] if annotated else [TRAIN, TRAIN, TEST, TEST])


def test_without_val_the_test_split_is_left_to_be_drawn(tmp_path):
    assert list_folder(voc2012(tmp_path, sets={"train": SETS["train"]})).given.tolist() == [TRAIN, TRAIN]


def test_a_missing_annotation_or_image_is_named(tmp_path):
    root = voc2012(tmp_path)
    (root / "JPEGImages/train_000003.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 24 files that .*Main lists do not exist: .*train_000003.jpg"):
        list_folder(root)
    (root / "Annotations/val_000002.xml").unlink()
    with pytest.raises(InputError, match=r"annotation .*val_000002.xml does not exist: add it, or take the image"):
        list_folder(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "cannot be read"),
        ("", "cannot be read"),
        ("<annotation><object><part><name>head</name></part></object></annotation>", "has an object without a name"),
        ("<annotation><object><name> </name></object></annotation>", "has an object without a name"),
    ],
)
def test_a_broken_annotation_is_named(tmp_path, text, message):
    root = voc2012(tmp_path)
    (root / "Annotations/val_000002.xml").write_text(text)
    with pytest.raises(InputError, match=f"annotation .*val_000002.xml {message}"):
        list_folder(root)


def test_wrong_sets_are_refused(tmp_path):
    root = voc2012(tmp_path)
    sets = root / "ImageSets/Main"
    (sets / "val.txt").write_text("train_000001\n")
    with pytest.raises(InputError, match=r"Main lists train_000001.jpg twice"):
        list_folder(root)
    (sets / "val.txt").write_text("\n")
    with pytest.raises(InputError, match=r"val.txt lists no image"):
        list_folder(root)
    (sets / "train.txt").unlink()
    with pytest.raises(InputError, match=r"train.txt cannot be read"):
        list_folder(root)


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    root = voc2012(tmp_path, sets={"train": {"a": ["cat"], "b": ["cat"]}})
    with pytest.raises(InputError, match="names 1 classes, so there is nothing to tell apart"):
        list_folder(root)
