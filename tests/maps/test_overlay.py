"""Overlays against the blend written out pixel by pixel."""

import numpy as np
import pytest
from matplotlib import colormaps

from heedful.errors import InputError
from heedful.maps.overlay import COLOUR_MAP, overlay, upsample

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
MAP = np.random.default_rng(1).normal(0, 3, (6, 4)).astype(np.float32)


def bilinear(values, height, width):
    """Every pixel's centre, looked up between the four nearest centres of `values`; the edge continues outwards."""
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = np.clip((i + 0.5) * values.shape[0] / height - 0.5, 0, values.shape[0] - 1)
            x = np.clip((j + 0.5) * values.shape[1] / width - 0.5, 0, values.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
            for row, row_weight in ((top, 1 - (y - top)), (bottom, y - top)):
                for column, weight in ((left, 1 - (x - left)), (right, x - left)):
                    result[i, j] += row_weight * weight * values[row, column]
    return result


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [(6, 4), (12, 4), (17, 9)])
def test_upsampling_is_bilinear(size, dtype):
    values = MAP.astype(dtype)
    np.testing.assert_allclose(upsample(values, *size), bilinear(values.astype(np.float64), *size), atol=1e-5)


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_every_pixel_is_the_blend(opacity):
    result = overlay(IMAGE, MAP, opacity)
    for i in range(6):
        for j in range(4):
            colour = 255 * np.array(colormaps[COLOUR_MAP](float(max(MAP[i, j], 0) / MAP.max()))[:3])
            expected = (1 - opacity) * IMAGE[i, j] + opacity * colour
            np.testing.assert_allclose(result[i, j], expected, atol=0.51 + 255 / 256)


def test_small_maps_are_enlarged_to_the_image():
    image = np.zeros((16, 16, 3), np.uint8)
    small = np.zeros((4, 4), np.float32)
    small[3, 0] = 5
    brightness = overlay(image, small).sum(-1).astype(int)
    assert brightness[15, 0] == brightness.max()
    assert brightness[:8].max() == brightness[:, 8:].max() == brightness.min()


def test_only_where_counts_and_not_how_much():
    np.testing.assert_array_equal(overlay(IMAGE, MAP), overlay(IMAGE, np.maximum(MAP, 0) * np.float32(8)))


@pytest.mark.parametrize("nothing", [np.zeros((3, 3), np.float32), np.full((3, 3), -2, np.float32)])
def test_a_map_without_a_positive_value_is_dark_everywhere(nothing):
    darkest = 255 * np.array(colormaps[COLOUR_MAP](0.0)[:3])
    np.testing.assert_allclose(overlay(IMAGE, nothing), 0.5 * IMAGE + 0.5 * darkest, atol=0.51)


def test_the_image_is_left_alone():
    before = IMAGE.copy()
    overlay(IMAGE, MAP)
    np.testing.assert_array_equal(IMAGE, before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_must_be_finite(value):
    with pytest.raises(InputError, match="NaN or infinite"):
        overlay(IMAGE, np.full((2, 2), value, np.float32))


@pytest.mark.parametrize("opacity", [-0.1, 1.5])
def test_opacity_is_a_fraction(opacity):
    with pytest.raises(InputError, match=r"opacity is .* \[0, 1\]"):
        overlay(IMAGE, MAP, opacity)
