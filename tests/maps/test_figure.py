"""Figures of class maps: what stands where, that nothing is clipped, and the probabilities against exp / Σ exp."""

import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba

from heedful.errors import InputError
from heedful.maps.attention import Explained
from heedful.maps.figure import figure, percent, probabilities
from heedful.maps.overlay import overlay
from heedful.maps.sheet import TRUE

NAMES = ["cat", "dog", "an American Staffordshire terrier of considerable size", "$x_1$", "WWWWWWWWWWWWWWWWWWWWWWWW"]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 160, 200, 3), dtype=np.uint8)


def made(num_classes=3, layers=("layer3", "layer4")):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, generator=generator)
    classes = scores.topk(num_classes).indices
    maps = {layer: torch.rand(2, num_classes, 4 + i, 5, generator=generator) for i, layer in enumerate(layers)}
    return Explained(maps, classes, scores)


def pictures(drawn):
    """Return {(row, column): image} by the places where the pictures lie."""
    shown = drawn.axes[0].get_images()
    tops = sorted({round(each.get_extent()[3], 6) for each in shown})
    lefts = sorted({round(each.get_extent()[0], 6) for each in shown})
    return {
        (tops.index(round(each.get_extent()[3], 6)), lefts.index(round(each.get_extent()[0], 6))): each
        for each in shown
    }


def lines(drawn, row, column):
    """Return the texts below a picture, from top to bottom."""
    left, right, bottom, _ = pictures(drawn)[row, column].get_extent()
    below = [
        t for t in drawn.axes[0].texts if left <= t.get_position()[0] < right and 0 < t.get_position()[1] - bottom < 0.4
    ]
    return [text.get_text() for text in sorted(below, key=lambda text: text.get_position()[1])]


def test_every_image_and_layer_has_a_row_of_the_image_and_its_overlays():
    given = made()
    drawn = pictures(figure(IMAGES, given, NAMES))
    assert set(drawn) == {(row, column) for row in range(4) for column in range(4)}
    for n in range(2):
        for i, maps in enumerate(given.maps.values()):
            np.testing.assert_array_equal(drawn[2 * n + i, 0].get_array(), IMAGES[n])
            for k in range(3):
                expected = overlay(IMAGES[n], maps[n, k].numpy())
                np.testing.assert_array_equal(drawn[2 * n + i, 1 + k].get_array(), expected)


def test_pictures_keep_their_shape_and_do_not_overlap():
    extents = [each.get_extent() for each in pictures(figure(IMAGES, made(), NAMES)).values()]
    for left, right, bottom, top in extents:
        assert (bottom - top) / (right - left) == pytest.approx(160 / 200)
    for i, one in enumerate(extents):
        for other in extents[:i]:
            assert one[0] >= other[1] or other[0] >= one[1] or one[3] >= other[2] or other[3] >= one[2]


def test_probabilities_are_the_softmax_of_the_classes():
    given = made()
    for n in range(2):
        exponentials = [math.exp(score) for score in given.scores[n].tolist()]
        for k in range(3):
            expected = exponentials[given.classes[n, k]] / sum(exponentials)
            assert probabilities(given)[n, k] == pytest.approx(expected, rel=1e-12)


def test_where_an_image_can_be_of_several_classes_each_has_its_own_probability():
    given = made()
    drawn = figure(IMAGES, given, NAMES, multi_label=True)
    for n in range(2):
        for k in range(3):
            expected = 1 / (1 + math.exp(-given.scores[n, given.classes[n, k]].item()))
            assert probabilities(given, multi_label=True)[n, k] == pytest.approx(expected, rel=1e-6)
            assert lines(drawn, 2 * n, 1 + k)[1] == percent(expected)


def test_below_each_picture_stand_class_and_probability_and_below_the_image_truth_and_layer():
    given = made()
    drawn = figure(IMAGES, given, NAMES[:2], labels=[1, None])
    for n, truth in enumerate(("dog", "image")):
        for i, layer in enumerate(("layer3", "layer4")):
            assert lines(drawn, 2 * n + i, 0) == [truth, layer]
            for k in range(3):
                number = int(given.classes[n, k])
                name = NAMES[number] if number < 2 else str(number)
                name = f"✓ {name}" if n == 0 and number == 1 else name
                assert lines(drawn, 2 * n + i, 1 + k) == [name, percent(probabilities(given)[n, k])]


def test_the_true_class_is_framed_in_every_layer_and_nothing_else_is():
    given = made()
    label = int(given.classes[1, 2])
    drawn = figure(IMAGES, given, NAMES, labels=[None, label])
    frames = [(frame.get_x(), frame.get_y(), frame.get_edgecolor()) for frame in drawn.axes[0].patches]
    places = [pictures(drawn)[row, 3].get_extent() for row in (2, 3)]
    np.testing.assert_allclose([frame[:2] for frame in frames], [(left, top) for left, _, _, top in places])
    assert {frame[2] for frame in frames} == {to_rgba(TRUE)}
    absent = next(number for number in range(5) if number not in given.classes[0])
    assert not figure(IMAGES, given, NAMES, labels=[absent, None]).axes[0].patches


@pytest.mark.parametrize("num_classes", [1, 3, 5])
def test_no_text_is_wider_than_its_picture_or_leaves_the_figure(num_classes):
    drawn = figure(
        IMAGES, made(num_classes, ("a.very.long.name.of.a.layer.deep.within.the.network",)), NAMES, labels=[2, 4]
    )
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    width, height = (side * drawn.dpi for side in drawn.get_size_inches())
    widest = max(each.get_window_extent().width for each in drawn.axes[0].get_images())
    assert len(drawn.axes[0].texts) == 2 * 2 * (1 + num_classes)
    for text in drawn.axes[0].texts:
        box = text.get_window_extent(canvas.get_renderer())
        assert box.width <= widest + 2, text.get_text()
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height


def test_only_long_names_are_shortened_and_dollars_are_no_formulas():
    drawn = figure(IMAGES, made(5), NAMES)
    texts = {text.get_text() for text in drawn.axes[0].texts}
    assert {"cat", "dog", "$x_1$"} <= texts
    assert not any(text.get_parse_math() for text in drawn.axes[0].texts)
    assert sum(text.endswith("…") and text.startswith("an American") for text in texts) == 1


def test_small_images_are_enlarged_by_whole_pixels():
    small = IMAGES[:, :32, :40]
    shown = pictures(figure(small, made(), NAMES))[0, 0].get_array()
    assert shown.shape == (128, 160, 3)
    np.testing.assert_array_equal(shown[::4, ::4], small[0])
    np.testing.assert_array_equal(shown[3::4, 3::4], small[0])


def test_most_leaves_the_last_classes_out():
    few = figure(IMAGES, made(5, ("a",)), NAMES, most=2)
    assert len(pictures(few)) == 2 * 3
    assert few.get_figwidth() == figure(IMAGES, made(2, ("a",)), NAMES).get_figwidth()
    assert len(pictures(figure(IMAGES, made(5, ("a",)), NAMES))) == 2 * 6


def test_a_map_without_anything_positive_says_so():
    given = made(1, ("a",))
    given.maps["a"][0] = -1
    drawn = figure(IMAGES, given, NAMES)
    assert lines(drawn, 0, 1)[1].endswith(" %, empty map")
    assert lines(drawn, 1, 1)[1].endswith(" %")


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "0.0 %"), (0.0123, "1.2 %"), (0.0949, "9.5 %"), (0.095, "10 %"), (0.834, "83 %"), (1.0, "100 %")],
)
def test_percent_has_two_digits_where_it_can(probability, text):
    assert percent(probability) == text


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES[:1], {}, "1 images, but maps of 2"),
        (IMAGES, {"labels": [0]}, "2 images, but labels of 1"),
        (IMAGES, {"most": 0}, "most is 0"),
        (IMAGES[:0], {}, "0 images, but maps of 2"),
    ],
)
def test_what_does_not_fit_together_is_named(images, options, message):
    with pytest.raises(InputError, match=message):
        figure(images, made(), NAMES, **options)


def test_half_precision_and_gradients_are_drawn_too():
    given = made(1, ("a",))
    half = Explained({"a": given.maps["a"].bfloat16().requires_grad_()}, given.classes, given.scores.requires_grad_())
    expected = overlay(IMAGES[0], given.maps["a"][0, 0].bfloat16().float().numpy())
    np.testing.assert_array_equal(pictures(figure(IMAGES, half, NAMES))[0, 1].get_array(), expected)


def test_the_networks_own_masks_stand_in_a_row_more_stretched_with_their_range():
    masks = [{"level 1": np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)}, {}]
    drawn = figure(IMAGES, made(layers=["layer4"]), NAMES, masks=masks)
    assert set(pictures(drawn)) == {(row, column) for row in (0, 2) for column in range(4)} | {(1, 0), (1, 1)}
    stretched = masks[0]["level 1"] - np.float32(0.1)
    np.testing.assert_array_equal(pictures(drawn)[1, 1].get_array(), overlay(IMAGES[0], stretched))
    assert lines(drawn, 1, 1) == ["level 1", "0.4 to 1.6"]
    assert lines(drawn, 1, 0) == ["image", "own attention"]


def test_masks_are_one_for_each_image():
    with pytest.raises(InputError, match="2 images, but masks of 1"):
        figure(IMAGES, made(), NAMES, masks=[{}])
