"""What the figures draw, read back from them: dots, intervals, lines, bands, pictures and ridges."""

import csv
import re

import numpy as np
import pytest
from made_up import recipe_row, run_folder, write_recipe, write_run
from matplotlib import colormaps
from matplotlib.colors import to_hex

from heedful.maps.overlay import overlay, upsample
from heedful.report import alternatives, figures, pictures, weights
from heedful.report.evidence import Evidence, of_one_seed
from heedful.report.evidence import pictures as group_pictures
from heedful.report.results import read
from heedful.report.tables import compare

CLASSES = ["aeroplane", "bird", "cat"]


@pytest.fixture(scope="module")
def look(experiment):
    """Of the experiment's rows."""
    return figures.looks([row.label for row in experiment.rows])


@pytest.fixture(scope="module")
def one_seed(experiment):
    """The first group's pictures of seed 0, by label."""
    return of_one_seed(group_pictures(experiment.groups[0]))[1]


def made_up_evidence(num_images=3, size=32, masks=None):
    """Evidence with random pictures, the first prediction wrong."""
    generator = np.random.default_rng(0)
    masks = masks or {}
    return Evidence(
        images=generator.integers(0, 256, (num_images, size, size, 3), dtype=np.uint8),
        labels=np.arange(num_images) % 3,
        predictions=np.array([1, *(np.arange(1, num_images) % 3)]),
        probabilities=np.linspace(0.1, 0.9, num_images),
        layer="layer3",
        maps=generator.random((num_images, 4, 4)).astype(np.float32),
        gates=tuple(masks),
        kinds=("spatial",) * len(masks),
        histograms=np.zeros((len(masks), 100), np.int64),
        spatial=masks,
    )


def lines_of(axes, colour):
    """The lines of one colour."""
    return [line for line in axes.get_lines() if to_hex(line.get_color()) == colour]


def texts_of(figure):
    """Every text of a figure's first axes."""
    return [text.get_text() for text in figure.axes[0].texts]


def test_looks_differ_for_32_variants_and_never_change():
    names = [f"variant {i}" for i in range(32)]
    assert len(set(figures.looks(names).values())) == 32
    assert figures.looks(["a", "b", "a", "c"]) == figures.looks(["a", "b", "c"])
    assert figures.looks(["none"])["none"][0] == "#4d4d4d"


def test_every_seed_is_a_dot_and_the_interval_a_bar(experiment, look):
    group = experiment.groups[0]
    comparisons = compare(group)
    left, right = figures.seeds(group, comparisons, look).axes
    for place, (row, comparison) in enumerate(zip(group.rows, comparisons, strict=True)):
        bar, mean, dots = lines_of(left, look[row.label][0])
        np.testing.assert_allclose(bar.get_xdata(), [comparison.error.low, comparison.error.high])
        np.testing.assert_allclose(mean.get_xdata(), [comparison.error.mean] * 2)
        assert list(dots.get_xdata()) == [run.metrics.test_error for run in row.runs]
        assert set(dots.get_ydata()) == {place}
    low, high = left.get_xlim()
    assert all(low < run.metrics.test_error < high for row in group.rows for run in row.runs)
    assert [label.get_text() for label in left.get_yticklabels()] == [row.label for row in group.rows]
    assert left.yaxis_inverted()
    for comparison in comparisons[1:]:
        interval, dots, mean = lines_of(right, look[comparison.label][0])
        np.testing.assert_allclose(interval.get_xdata(), [comparison.paired.low, comparison.paired.high])
        np.testing.assert_allclose(np.mean(dots.get_xdata()), mean.get_xdata()[0])
        assert (interval.get_alpha() == 1) == (comparison.holm_p < 0.05)


def test_the_interval_of_two_seeds_does_not_squeeze_the_dots(tmp_path):
    row = recipe_row("none")
    write_recipe(tmp_path, [row], [0, 1])
    for seed in (0, 1):
        write_run(tmp_path, row, seed, 5.0 + seed, pictures=False)
    (group,) = read(tmp_path).groups
    comparisons = compare(group)
    left = figures.seeds(group, comparisons, figures.looks(["none"])).axes[0]
    assert left.get_xlim() == pytest.approx((5 - 1.5, 6 + 1.5))
    assert comparisons[0].error.low < 5 - 1.5


def test_one_seed_has_a_dot_and_no_bar(tmp_path):
    row = recipe_row("none")
    write_recipe(tmp_path, [row, recipe_row("se")], [0])
    write_run(tmp_path, row, 0, 5.0, pictures=False)
    (group,) = read(tmp_path).groups
    look = figures.looks(["none", "se"])
    left, right = figures.seeds(group, compare(group), look).axes
    assert len(lines_of(left, look["none"][0])) == 2
    assert [text.get_text() for text in left.texts] == ["no finished run"]
    assert lines_of(right, look["se"][0]) == []


def stored_curves(out, row, column):
    """A column of every finished run's metrics.csv."""
    for run in row.runs:
        with (run_folder(out, {"name": row.name}, run.seed) / "metrics.csv").open() as file:
            yield [float(line[column]) for line in csv.DictReader(file)]


def test_curves_are_means_in_a_band_of_all_seeds(out, experiment, look):
    group = experiment.groups[0]
    panels = figures.training_curves(group, look).axes
    names = ["train_loss", "val_loss", "train_error", "val_error"]
    for axes, name in zip(panels, names, strict=True):
        for row, line, band in zip(group.rows, axes.get_lines(), axes.collections, strict=True):
            expected = np.array(list(stored_curves(out, row, name)))
            np.testing.assert_allclose(line.get_ydata(), expected.mean(0))
            corners = band.get_paths()[0].vertices
            assert corners[:, 1].max() == pytest.approx(expected.max())
            assert corners[:, 1].min() == pytest.approx(expected.min())
    assert [axes.get_title(loc="left") for axes in panels] == [
        *("training loss", "validation loss", "training error, %", "validation error, %")
    ]


@pytest.mark.parametrize(("last", "scale"), [(0.5, "log"), (30.0, "linear"), (0.0, "symlog")])
def test_curves_that_fall_far_get_a_logarithmic_scale(tmp_path, last, scale):
    row = recipe_row("none")
    write_recipe(tmp_path, [row], [0])
    write_run(tmp_path, row, 0, 5.0, pictures=False)
    text = f"train_loss,train_error,val_loss,val_error\n60,60,60,60\n{last},{last},{last},{last}\n"
    (run_folder(tmp_path, row, 0) / "metrics.csv").write_text(text)
    loss, _, error, _ = figures.training_curves(read(tmp_path).groups[0], figures.looks(["none"])).axes
    assert loss.get_yscale() == {"symlog": "linear"}.get(scale, scale)  # no logarithm of 0
    assert error.get_yscale() == {"log": "symlog"}.get(scale, scale)


def test_the_grid_holds_every_overlay_and_marks_wrong_predictions():
    evidence = {"none": made_up_evidence(size=130), "se": made_up_evidence(size=130)}
    figure = pictures.attention(evidence, CLASSES)
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    expected = []
    for i in range(3):
        expected.append(evidence["none"].images[i])
        expected += [overlay(each.images[i], each.maps[i]) for each in evidence.values()]
    for ours, theirs in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert texts_of(figure) == [
        *("image", "none", "se"),
        *("aeroplane", "✗ bird, 10 %", "✗ bird, 10 %"),
        *("bird", "50 %", "50 %", "cat", "90 %", "90 %"),
    ]
    assert len(figure.axes[0].patches) == 2
    left, right, bottom, top = figure.axes[0].images[1].get_extent()
    frame = figure.axes[0].patches[0].get_bbox()
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == pytest.approx((left, right, top, bottom))


def test_small_images_are_enlarged_by_whole_pixels():
    evidence = made_up_evidence(num_images=1, size=8)
    shown = np.asarray(pictures.attention({"se": evidence}, CLASSES).axes[0].images[0].get_array())
    assert shown.shape == (128, 128, 3)
    np.testing.assert_array_equal(shown[::16, ::16], evidence.images[0])
    np.testing.assert_array_equal(shown[15::16, 15::16], evidence.images[0])


def test_at_most_so_many_images():
    figure = pictures.attention({"se": made_up_evidence(num_images=5)}, CLASSES, num_images=2)
    assert len(figure.axes[0].images) == 4


def test_masks_are_drawn_on_the_scale_of_their_column():
    generator = np.random.default_rng(1)
    names = [f"layer{i}.0.attention.spatial" for i in range(1, 6)]
    masks = {name: generator.uniform(0.2, 0.9, (3, 7, 7)).astype(np.float32) for name in names}
    masks[names[4]] = np.float32(0.5) + masks[names[4]] * np.float32(0.001)
    evidence = made_up_evidence(size=130, masks=masks)
    figure = pictures.spatial_masks(evidence, CLASSES)
    assert texts_of(figure)[:4] == ["image", "layer1.0", "layer3.0", "layer5.0"]
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images][3:]
    for column, name in enumerate([names[0], names[2], names[4]]):
        low, high = masks[name].min(), masks[name].max()
        missing = max(0, 0.05 - (high - low)) / 2
        for i in range(3):
            scaled = (upsample(masks[name][i], 130, 130) - low + missing) / (high - low + 2 * missing)
            expected = 255 * colormaps["viridis"](scaled)[..., :3]
            np.testing.assert_allclose(shown[3 * column + i], expected, atol=3)
    flat = shown[-1]
    assert flat.std(axis=(0, 1)).max() < 2
    assert f"{masks[names[0]][1].min():.3f} to {masks[names[0]][1].max():.3f}" in texts_of(figure)
    assert len(figure.axes) == 1 + 3


def test_masks_relative_to_average_pooling_are_not_cut_off_at_1():
    gate = "attention.layer3"
    masks = {gate: np.linspace(0.2, 5, 3 * 16).reshape(3, 4, 4).astype(np.float16)}
    figure = pictures.spatial_masks(made_up_evidence(masks=masks), CLASSES)
    scale = figure.axes[1]
    assert scale.get_xlim() == pytest.approx((0.2, 5), abs=0.01)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        *[
            ("se", (0, 1)),
            ("se-attend", (0, 1)),
            ("cbam-ign3", (0, 1)),
            ("se-ign1(0.8)", (0.2, 1)),
            ("se-ign1(1)", (0, 1)),
        ],
        *[("eca-ign2", (0.7310586, 1)), ("aw+se", (0, 1)), ("aw-ign2+se", None), ("aw-ign2+se-ign2", (0.7310586, 1))],
        ("se-ign9", None),
    ],
)
def test_range_of_a_gate(variant, expected):
    assert weights.gate_range(variant) == (expected if expected is None else pytest.approx(expected))


def test_histograms_are_summed_over_seeds_and_channel_gates_only(experiment):
    cbam = list(group_pictures(experiment.groups[0])["cbam"].values())
    found = weights.channel_histograms(cbam)
    assert list(found) == [f"layer{i}.0.attention.channel" for i in (1, 2, 3)]
    np.testing.assert_array_equal(
        found["layer2.0.attention.channel"],
        sum(each.histograms[each.gates.index("layer2.0.attention.channel")] for each in cbam),
    )


def test_ridges_stand_at_their_depth_with_their_mean():
    counts = {"layer1.0.attention": np.zeros(100, np.int64), "layer2.0.attention": np.zeros(100, np.int64)}
    counts["layer1.0.attention"][[20, 80]] = 3, 1
    counts["layer2.0.attention"][90] = 5
    figure = weights.channel_weights({"se": counts}, {"se": "se-ign1(0.5)"}, figures.looks(["se"]))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer1.0", "layer2.0"]
    ridges = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == 100]
    for place, (ridge, each) in enumerate(zip(ridges, counts.values(), strict=True)):
        np.testing.assert_allclose(ridge, place - 1.5 * each / each.max())
    ticks = [line.get_xdata()[0] for line in axes.get_lines() if line.get_color() == "black"]
    assert ticks == pytest.approx([(3 * 0.205 + 0.805) / 4, 0.905])
    (hatched,) = [patch for patch in axes.patches if patch.get_hatch()]
    assert (hatched.get_x(), hatched.get_width()) == (0, 0.5)


def test_svg_is_the_same_twice_and_holds_no_address(experiment, look):
    group = experiment.groups[1]
    chart = figures.seeds(group, compare(group), look)
    first, second = figures.svg(chart), figures.svg(figures.seeds(group, compare(group), look))
    assert first == second
    fetched = re.findall(rb'(?:href|src|url)\s*[=(]\s*"?([^")\s]+)', first)
    assert fetched
    assert all(address.startswith(b"#") for address in fetched)


def test_names_are_drawn_as_they_are():
    # A dollar sign is no formula, and a letter that no font has is a box and no warning.
    figure = pictures.attention({"se-$x$": made_up_evidence()}, ["$\\alpha$ $", "日本", "_<b>"])
    assert "$\\alpha$ $" in texts_of(figure)
    assert not any(text.get_parse_math() for text in figure.axes[0].texts)
    assert figures.png(figure).startswith(b"\x89PNG")


def test_matplotlibs_settings_are_left_alone(experiment, look):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.svg(figures.training_curves(experiment.groups[1], look))
    assert dict(matplotlib.rcParams) == before


def test_alternative_texts_say_what_is_to_be_seen(experiment, one_seed):
    group = experiment.groups[0]
    assert "none 6.01 ± 0.26" in alternatives.of_seeds(compare(group))
    ends = [np.mean([lines[-1] for lines in stored_curves(experiment.folder, row, "val_error")]) for row in group.rows]
    assert f"none {ends[0]:.1f} %, se {ends[1]:.1f} %" in alternatives.of_curves(group)
    evidence = made_up_evidence()
    assert alternatives.of_attention({"none": evidence}, CLASSES, 6) == (
        "3 test images (aeroplane, bird and cat), each with the Grad-CAM maps of none. "
        "Wrong predictions: none takes aeroplane for bird."
    )
    mask = one_seed["cbam"].spatial["layer1.0.attention.spatial"]
    assert f"layer1.0 {mask.min():.3f} to {mask.max():.3f}" in alternatives.of_masks("cbam", one_seed["cbam"])
    bins = np.eye(100, dtype=np.int64)
    counts = {"a": bins[10] + bins[11], "b": bins[70] + 3 * bins[71]}
    assert "se from 0.11 at the first gate to 0.71 at the last" in alternatives.of_weights({"se": counts})
