"""Reading image files: the pixels that a viewer shows, whatever the format."""

import numpy as np
import pytest
import torch
from PIL import Image

from heedful.data.images import moments, read_rgb, read_square, resize, to_channels_first
from heedful.errors import InputError
from tests.data_made import save_huge


def test_rgb_comes_back_as_it_was_saved(tmp_path, picture):
    Image.fromarray(picture(0, 9, 14)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png", 9)), picture(0, 9, 14))


def test_grey_becomes_three_equal_channels(tmp_path, picture):
    grey = picture(0)[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png", 9)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 257, 25700], [40000, 65000, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    read = np.asarray(read_rgb(tmp_path / f"a.{suffix}", 2))
    np.testing.assert_array_equal(read[..., 0], [[0, 1, 100], [156, 253, 255]])
    assert (read == read[..., :1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped(tmp_path, mode, picture):
    image = Image.fromarray(picture(0)).convert(mode.removesuffix("A"))
    expected = np.asarray(image.convert("RGB"))
    image.putalpha(128)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png", 9)), expected)


@pytest.mark.parametrize("transparency", [None, b"\x00\x80\xff"])
def test_palette_colours_are_looked_up(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode="P")
    image.putpalette([250, 0, 0, 0, 240, 0, 0, 0, 230])
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    red, green, blue = [250, 0, 0], [0, 240, 0], [0, 0, 230]
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png", 2)), [[red, green], [blue, green]])


def test_exif_orientation_is_honoured(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90° clockwise to view
    Image.fromarray(picture(0, 8, 12)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png", 8)), np.rot90(picture(0, 8, 12), k=-1))


def test_the_middle_square_is_taken(tmp_path, picture):
    for shape in ((6, 10), (10, 6)):
        Image.fromarray(picture(0, *shape)).save(tmp_path / "a.png")
        top, left = (shape[0] - 6) // 2, (shape[1] - 6) // 2
        expected = picture(0, *shape)[top : top + 6, left : left + 6]
        np.testing.assert_array_equal(read_square(tmp_path / "a.png", 6), expected)


def test_shrinking_averages(tmp_path):
    fine = np.zeros((64, 64, 3), dtype=np.uint8)
    fine[:, ::2] = 200
    Image.fromarray(fine).save(tmp_path / "a.png")
    assert abs(read_square(tmp_path / "a.png", 8).astype(int) - 100).max() <= 5


def test_a_large_jpeg_read_quickly_looks_as_read_in_full(tmp_path, picture):
    blocks = np.kron(picture(0, 32, 32), np.ones((16, 16, 1), dtype=np.uint8))
    Image.fromarray(blocks).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as image:
        full = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert read_rgb(tmp_path / "a.jpg", 128).size == (128, 128)
    assert abs(read_square(tmp_path / "a.jpg", 64) - full).mean() < 5


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_file_raises(tmp_path, suffix, picture):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(0, 64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(OSError, match="truncated"):
        read_square(path, 8)


def test_channels_first(picture):
    rgb = np.stack([picture(0, 4, 5), picture(1, 4, 5)])
    tensor = to_channels_first(rgb)
    assert tensor.is_contiguous()
    for index in np.ndindex(2, 4, 5, 3):
        assert tensor[index[0], index[3], index[1], index[2]] == rgb[index]
    grey = to_channels_first(rgb[..., 0])
    assert (grey == torch.from_numpy(rgb[..., 0])[:, None]).all()
    assert grey.shape == (2, 3, 4, 5)


def test_resize_agrees_with_pillow_on_the_middle_square(picture):
    images = np.stack([picture(seed, 20, 28) for seed in range(3)])
    for size in (8, 20, 33):
        resized = resize(to_channels_first(images), size).permute(0, 2, 3, 1).numpy()
        for image, ours in zip(images, resized, strict=True):
            square = Image.fromarray(image[:, 4:24])
            theirs = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
            assert abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_resize_of_many_keeps_their_order():
    shades = (torch.arange(2100) % 251).to(torch.uint8)
    resized = resize(shades.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), 6)
    assert (resized == shades.view(-1, 1, 1, 1)).all()


def test_moments(picture):
    image = picture(0, 3, 4)
    expected = [
        [sum(int(v) / 255 for v in image[..., c].flat) / 12 for c in range(3)],
        [sum((int(v) / 255) ** 2 for v in image[..., c].flat) / 12 for c in range(3)],
    ]
    np.testing.assert_allclose(moments(image), expected, rtol=1e-12)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_huge_png_is_refused_before_it_is_decoded(tmp_path, side):
    path = save_huge(tmp_path / "a.png", side=side)
    with pytest.raises(InputError, match=r"a.png has more than the 89 million pixels that are decoded: save it sma"):
        read_square(path, 32)


def test_a_huge_progressive_jpeg_is_refused_since_all_of_it_would_be_held(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("L", (10_000, 9_000), 40).save(path, progressive=True)
    with pytest.raises(InputError, match=r"a.jpg has more than .* a JPEG that is not progressive"):
        read_rgb(path, 32)
    Image.new("L", (1_000, 900), 40).save(path, progressive=True)
    assert read_rgb(path, 32).size == (125, 113)


def test_a_huge_jpeg_is_read_at_a_fraction_of_its_size(tmp_path):
    path = tmp_path / "a.jpg"
    image = Image.new("L", (20_000, 9_000), 40)
    image.paste(200, (0, 0, 10_000, 9_000))
    image.save(path)
    assert read_rgb(path, 32).size == (2_500, 1_125)
    square = read_square(path, 8).astype(int)
    assert abs(square[:, :3] - 200).max() <= 3
    assert abs(square[:, 5:] - 40).max() <= 3
    with pytest.raises(InputError, match=r"a.jpg has more than"):
        read_rgb(path, 9_000)
