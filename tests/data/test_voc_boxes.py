"""Boxes of PASCAL VOC's XML, made up."""

from xml.etree import ElementTree

import pytest

from heedful.data.pool import TEST, TRAIN, VAL
from heedful.data.voc_boxes import list_voc_boxes
from heedful.errors import InputError
from tests.data_made import save_image, voc2012

SETS = {
    "train": {"a": ["dog", "cat", "dog"], "b": ["person", "cat?"]},
    "val": {"c": [], "d": ["cat"]},
    "test": {"e": ["dog"]},
}


def write_object(root, name, text, size=""):
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{size}\n<object>\n{text}\n</object>\n</annotation>")


def corners(*values):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True)
    return "<bndbox>" + "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags) + "</bndbox>"


def test_boxes_labels_and_sets(tmp_path):
    listing = list_voc_boxes(voc2012(tmp_path, sets=SETS))
    assert listing.classes == ("cat", "dog", "person")
    assert [image.path.name for image in listing.images] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert [image.part for image in listing.images] == [TRAIN, TRAIN, VAL, VAL, TEST]
    assert [image.labels for image in listing.images] == [(1, 0, 1), (2, 0), (), (0,), (1,)]
    assert [image.crowd for image in listing.images] == [(False,) * 3, (False, True), (), (False,), (False,)]
    assert listing.images[0].boxes == ((0, 1, 9, 10),) * 3  # of 1, 2 to 9, 10, counted from 1, both inside


def test_a_box_is_as_wide_as_voc_counts_its_pixels(tmp_path):
    root = voc2012(tmp_path, sets=SETS)
    for left, top, right, bottom in ((1, 1, 16, 16), (3, 5, 3, 5), (2, 4, 7, 4), (1.5, 2.25, 4.5, 8)):
        write_object(root, "c", "<name>cat</name>" + corners(left, top, right, bottom))
        (x1, y1, x2, y2) = list_voc_boxes(root).images[2].boxes[0]
        assert (x1, y1) == (left - 1, top - 1)
        assert (x2 - x1, y2 - y1) == (right - left + 1, bottom - top + 1)


def test_what_is_read_is_what_elementtree_reads(tmp_path):
    root = voc2012(tmp_path)
    listing = list_voc_boxes(root)
    assert len(listing.images) == 24
    for image in listing.images:
        objects = ElementTree.parse(image.where).getroot().findall("object")
        assert [listing.classes[label] for label in image.labels] == [item.findtext("name") for item in objects]
        assert list(image.crowd) == [item.findtext("difficult") == "1" for item in objects]
        assert len(image.boxes) == len(objects)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("<size><width>30</width><height>20</height><depth>3</depth></size>", (20, 30)),
        ("<size><width>0</width><height>0</height></size>", None),
        ("", None),
    ],
)
def test_the_size_is_the_one_written_if_any_is(tmp_path, size, expected):
    root = voc2012(tmp_path, sets=SETS)
    write_object(root, "a", "<name>cat</name>" + corners(1, 1, 2, 2), size=size)
    assert list_voc_boxes(root).images[0].size == expected


@pytest.mark.parametrize(("text", "crowd"), [("1", True), ("0", False), ("Unspecified", False), (None, False)])
def test_a_difficult_box_says_so(tmp_path, text, crowd):
    root = voc2012(tmp_path, sets=SETS)
    said = "" if text is None else f"<difficult>{text}</difficult>"
    write_object(root, "a", "<name>cat</name>" + said + corners(1, 1, 2, 2))
    assert list_voc_boxes(root).images[0].crowd == (crowd,)


def test_entities_and_other_encodings_are_read(tmp_path):
    root = voc2012(tmp_path, sets=SETS)
    text = '<?xml version="1.0" encoding="latin-1"?><a><object><name>Bär &amp; Hund</name>{}</object></a>'
    (root / "Annotations/e.xml").write_bytes(text.format(corners(1, 1, 2, 2)).encode("latin-1"))
    assert "Bär & Hund" in list_voc_boxes(root).classes


def test_without_sets_every_annotation_is_for_training(tmp_path):
    root = voc2012(tmp_path, sets=SETS)
    for path in (root / "ImageSets/Main").iterdir():
        path.unlink()
    (root / "ImageSets/Main").rmdir()
    save_image(root / "JPEGImages/not_annotated.jpg")
    listing = list_voc_boxes(root)
    assert [image.path.stem for image in listing.images] == ["a", "b", "c", "d", "e"]
    assert {image.part for image in listing.images} == {TRAIN}


def test_trainval_serves_where_there_is_no_train(tmp_path):
    root = voc2012(tmp_path, sets=SETS)
    sets = root / "ImageSets/Main"
    (sets / "trainval.txt").write_text("a\nb\nc\nd\n")
    assert [image.part for image in list_voc_boxes(root).images] == [TRAIN, TRAIN, VAL, VAL, TEST]
    (sets / "train.txt").unlink()
    assert [image.part for image in list_voc_boxes(root).images] == [TRAIN] * 4 + [TEST]
    (sets / "trainval.txt").unlink()
    with pytest.raises(InputError, match=r"trainval.txt cannot be read"):
        list_voc_boxes(root)


def test_a_test_set_counts_only_where_it_has_annotations(tmp_path):
    root = voc2012(tmp_path, sets=SETS)
    (root / "Annotations/e.xml").unlink()
    assert [image.part for image in list_voc_boxes(root).images] == [TRAIN, TRAIN, VAL, VAL]


def test_images_may_be_other_than_jpegs_but_not_two_of_a_name(tmp_path):
    root = voc2012(tmp_path, sets=SETS)
    (root / "JPEGImages/a.jpg").unlink()
    save_image(root / "JPEGImages/a.PNG")
    assert list_voc_boxes(root).images[0].path.name == "a.PNG"
    save_image(root / "JPEGImages/b.png")
    with pytest.raises(InputError, match=r"b.png and b.jpg have one annotation"):
        list_voc_boxes(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<name>cat</name>\n" + corners(1, 2, "x", 4), r", line 4: xmax is 'x', but must be a number"),
        ("<name>cat</name>\n\n" + corners(1, "inf", 3, 4), r", line 5: ymin is 'inf', but must be a number"),
        ("<name>cat</name>", r", line 2: xmin is '', but must be a number"),
        ("<name>cat</name>" + corners(3, 2, 2, 4), r", line 2: a cat from \(3, 2\) to \(2, 4\), but xmax must be at"),
        ("<name>cat</name>" + corners(3, 2, 3, 1), r", line 2: a cat from \(3, 2\) to \(3, 1\), but xmax must be at"),
        ("<name> </name>" + corners(1, 2, 3, 4), r", line 2: an object without a name"),
        ("<part><name>head</name></part>" + corners(1, 2, 3, 4), r", line 2: an object without a name"),
        ("\n</name>", r", line 4: no XML \(mismatched tag\)"),
    ],
)
def test_a_wrong_object_is_named_with_its_line(tmp_path, text, message):
    root = voc2012(tmp_path, sets=SETS)
    write_object(root, "d", text)
    with pytest.raises(InputError, match=f"d.xml{message}"):
        list_voc_boxes(root)


@pytest.mark.parametrize(("content", "message"), [(b"", "line 1: no XML"), (b"<a>\n\xff</a>", "line 2: no XML")])
def test_what_is_no_xml_is_named_with_its_line(tmp_path, content, message):
    root = voc2012(tmp_path, sets=SETS)
    (root / "Annotations/b.xml").write_bytes(content)
    with pytest.raises(InputError, match=rf"b.xml, {message}"):
        list_voc_boxes(root)
    (root / "Annotations/b.xml").write_bytes(b'<?xml version="1.0" encoding="gb2312"?><annotation></annotation>')
    with pytest.raises(InputError, match=r"b.xml cannot be read .*encoding.*: save it as UTF-8"):
        list_voc_boxes(root)
    (root / "Annotations/b.xml").unlink()
    with pytest.raises(InputError, match=r"b.xml does not exist: add it, or take the image out of ImageSets"):
        list_voc_boxes(root)


@pytest.mark.parametrize(("name", "file"), [("a", "train.txt"), ("d", "val.txt")])
def test_an_image_in_two_sets_is_named(tmp_path, name, file):
    root = voc2012(tmp_path, sets=SETS)
    with (root / "ImageSets/Main/val.txt").open("a") as listed:
        listed.write(f"{name}\n")
    with pytest.raises(InputError, match=rf"val.txt lists {name}, which {file} lists already"):
        list_voc_boxes(root)


def test_no_object_at_all_is_nothing_to_detect(tmp_path):
    root = voc2012(tmp_path, sets={"train": {"a": [], "b": []}})
    with pytest.raises(InputError, match=r"Annotations has no object, so there is nothing to detect"):
        list_voc_boxes(root)
