"""Boxes and masks go the way of the images: white objects on black images, read by the data part, show where."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from heedful import InputError
from heedful.data.dataset import ImageFiles
from heedful.data.file_batches import file_batches
from heedful.data.images import read_square
from heedful.evaluate.objects import Objects, boxes_in_square, filled, from_boxes, read_boxes, window


def seen(path, size):
    """What the network sees of an image, as the data part reads it: 0 to 255, one channel."""
    if size <= 64:
        return read_square(path, size)[:, :, 0]
    images, _ = next(
        iter(file_batches(ImageFiles((path,), torch.zeros(1, dtype=torch.int64), size), (0.0,) * 3, (1.0,) * 3, 1))
    )
    return (images[0, 0] * 255).round().numpy()


def painted(path, height, width, box):
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    left, top, right, bottom = box
    pixels[top : bottom + 1, left : right + 1] = 255
    Image.fromarray(pixels).save(path)
    return path


SHAPES = [(120, 90, 32), (60, 200, 40), (64, 64, 64), (20, 30, 48), (300, 260, 112), (150, 400, 96), (80, 80, 100)]
"""Height, width, side of the square; over 64 as files."""


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_a_box_lies_where_the_network_sees_it(tmp_path, height, width, size):
    box = (width // 3, height // 4, width * 2 // 3, height * 7 // 8)
    path = painted(tmp_path / "a.png", height, width, box)
    mask, boxes = from_boxes(tmp_path, [("a.png", box)]).find(path, size)
    white = seen(path, size) >= 128
    # On the border a pixel may go either way: the centre is in the box, half of the colour is not.
    different = np.argwhere(mask != white)
    left, top, right, bottom = boxes[0]
    assert all(
        row in (top - 1, top, bottom, bottom + 1) or column in (left - 1, left, right, right + 1)
        for row, column in different
    )
    assert len(different) <= 0.06 * white.sum()
    assert (mask == filled(boxes, size)).all()


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_a_mask_lies_where_the_network_sees_it(tmp_path, height, width, size):
    rows, columns = np.mgrid[:height, :width]
    disk = (rows - height * 0.45) ** 2 + (columns - width * 0.55) ** 2 < (0.35 * min(height, width)) ** 2
    image = tmp_path / "images" / "cat" / "a.jpg"
    image.parent.mkdir(parents=True)
    (tmp_path / "masks" / "cat").mkdir(parents=True)
    Image.fromarray(disk.astype(np.uint8) * 255).convert("RGB").save(image.with_suffix(".png"))
    Image.fromarray(disk.astype(np.uint8)).save(tmp_path / "masks" / "cat" / "a.png")
    objects = Objects(tmp_path / "images", masks=tmp_path / "masks")
    mask, boxes = objects.find(image.with_suffix(".png"), size)
    white = seen(image.with_suffix(".png"), size) >= 128
    assert (mask != white).sum() <= (0 if size <= 64 else 0.01 * white.sum())
    assert boxes.shape == (0, 4)
    assert 0.1 < mask.mean() < 0.9


def test_an_unscaled_square_keeps_its_boxes():
    boxes = [(0.0, 10.0, 63.0, 58.0), (5.0, 5.0, 6.0, 6.0)]
    assert boxes_in_square(boxes, (64, 64), 64).tolist() == [[0, 10, 63, 58], [5, 5, 6, 6]]


def test_boxes_outside_the_square_are_left_out_and_others_cut():
    boxes = [(0.0, 0.0, 20.0, 20.0), (20.0, 0.0, 120.0, 20.0)]
    assert boxes_in_square(boxes, (200, 100), 50).tolist() == [[0, 0, 34, 9]]
    assert boxes_in_square([(0.0, 0.0, 9.0, 9.0)], (100, 100), 50).tolist() == [[0, 0, 4, 4]]
    assert boxes_in_square([(-5.0, -5.0, 500.0, 500.0)], (100, 100), 50).tolist() == [[0, 0, 49, 49]]


def test_the_window_is_in_the_middle():
    assert window(200, 100, 50) == (50, 0, 100, 100)
    left, top, width, height = window(224 * 2, 256, 224)
    assert (left, top) == ((448 - 224) / 2, 16)
    assert (width, height) == (224, 224)


def test_several_boxes_and_none(tmp_path):
    path = painted(tmp_path / "a.png", 10, 10, (0, 0, 1, 1))
    objects = from_boxes(
        tmp_path, [("a.png", (0, 0, 1, 1)), ("a.png", (5, 5, 9, 9)), ("b.png", (3, 3, 3, 9)), ("b.png", (4, 3, 2, 9))]
    )
    assert objects.without_area == 2
    assert objects.kind == "boxes"
    mask, boxes = objects.find(path, 10)
    assert boxes.tolist() == [[0, 0, 1, 1], [5, 5, 9, 9]]
    assert mask.sum() == 4 + 25
    mask, boxes = objects.find(painted(tmp_path / "b.png", 10, 10, (0, 0, 1, 1)), 10)
    assert not mask.any()
    assert boxes.shape == (0, 4)


def test_boxes_are_of_the_upright_image(tmp_path):
    upright = np.zeros((40, 20, 3), dtype=np.uint8)
    upright[30:40, 5:15] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.png", exif=exif)
    mask, _ = from_boxes(tmp_path, [("a.png", (5, 20, 14, 29))]).find(tmp_path / "a.png", 20)
    expected = np.zeros((20, 20), dtype=bool)
    expected[10:20, 5:15] = True
    assert (mask == expected).all()
    assert (read_square(tmp_path / "a.png", 20)[:, :, 0][:10] < 128).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_masks_of_any_kind(tmp_path, mode):
    shape = np.zeros((8, 8), dtype=np.uint8)
    shape[2:5, 3:7] = 1
    plain = Image.fromarray(shape * 255)
    if mode == "P":
        plain = Image.fromarray(shape)
        plain.putpalette([0, 0, 0, 0, 0, 0])  # both colours are black: the number counts
    (tmp_path / "masks").mkdir()
    plain.convert(mode).save(tmp_path / "masks" / "a.png")
    painted(tmp_path / "a.png", 8, 8, (0, 0, 1, 1))
    mask, _ = Objects(tmp_path, masks=tmp_path / "masks").find(tmp_path / "a.png", 8)
    assert (mask == shape.astype(bool)).all()


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_dark_colours_of_a_mask_are_object(tmp_path, colour):
    shape = np.zeros((8, 8), dtype=bool)
    shape[2:5, 3:7] = True
    (tmp_path / "masks").mkdir()
    Image.fromarray(shape[..., None] * np.array(colour, dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    painted(tmp_path / "a.png", 8, 8, (0, 0, 1, 1))
    mask, _ = Objects(tmp_path, masks=tmp_path / "masks").find(tmp_path / "a.png", 8)
    assert (mask == shape).all()


def test_boxes_of_a_jpeg_too_large_for_pillow(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("L", (20_000, 9_000)).save(tmp_path / "a.jpg", exif=exif)
    mask, boxes = from_boxes(tmp_path, [("a.jpg", (0, 5_500, 4_499, 9_999))]).find(tmp_path / "a.jpg", 32)
    assert boxes.tolist() == [[0, 0, 15, 15]]
    assert mask.sum() == 16 * 16


def test_masks_that_do_not_fit(tmp_path):
    objects = Objects(tmp_path, masks=tmp_path / "masks")
    path = painted(tmp_path / "a.png", 8, 8, (0, 0, 1, 1))
    assert not objects.find(path, 8)[0].any()
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.ones((8, 9), dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(InputError, match="has 9 x 8 pixels, but its image 8 x 8"):
        objects.find(path, 8)
    (tmp_path / "masks" / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"mask .*a\.png cannot be read"):
        objects.find(path, 8)


def test_boxes_csv(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("path, left,top,right,bottom\n\ncat/1.jpg,1,2,3.5,4\n")
    assert list(read_boxes(path)) == [("cat/1.jpg", (1, 2, 3.5, 4))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "first line must be path,left,top,right,bottom"),
        ("file,x,y,w,h\na,1,2,3,4\n", "begins with 'file,x,y,w,h'"),
        ("path,left,top,right,bottom\na,1,2,3\n", "line 2: 'a,1,2,3'"),
        ("path,left,top,right,bottom\na,1,2,3,4\na,1,2,3,wide\n", "line 3"),
        ("path,left,top,right,bottom\na,1,2,nan,4\n", "line 2"),
        ("path,left,top,right,bottom\na,1,2,3,4,5\n", "line 2"),
    ],
)
def test_what_is_no_boxes_csv(tmp_path, content, message):
    (tmp_path / "boxes.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        list(read_boxes(tmp_path / "boxes.csv"))


def test_boxes_csv_that_is_no_text(tmp_path):
    (tmp_path / "boxes.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not a table in UTF-8"):
        list(read_boxes(tmp_path / "boxes.csv"))
