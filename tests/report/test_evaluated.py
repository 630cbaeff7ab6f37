"""Curves and pictures of evaluations on the page."""

import base64
import re
import struct

import numpy as np
import pytest
from made_up import made_up_curves, recipe_row, run_folder, write_evaluation, write_recipe, write_run
from test_page import Page

from heedful import report
from heedful.report.evaluated import described, evaluations, lines
from heedful.report.figures import looks, png
from heedful.report.found import evaluated
from heedful.report.grid import Grid
from heedful.report.results import read

VALUES = {"none": [(10.0, 20.0, 90.0), (12.0, 24.0, 92.0)], "se": [(11.0, 15.0, 70.0), (10.0, 16.0, 60.0)]}
LOOK = looks(["none", "se"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two variants with two seeds: curves of all, pictures of all but none's seed 0, and a significant headline."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    rows = [recipe_row("none"), recipe_row("se")]
    write_recipe(out, rows, [0, 1])
    for row in rows:
        for seed, values in enumerate(VALUES[row["variant"]]):
            write_run(out, row, seed, 5.0, pictures=False)
            has_picture = (row["variant"], seed) != ("none", 0)
            headline = ("PGD <8/255> error", values[2] + (50 if row["variant"] == "none" else seed), "%", "lower")
            write_evaluation(
                out, row, seed, [headline], curves=made_up_curves(*values),
                pictures={"robustness": "robustness.png"} if has_picture else {},
            )  # fmt: skip
            if has_picture:
                grid = Grid(["a"] * (1 + seed), 1, 1.0)
                (run_folder(out, row, seed) / "robustness.png").write_bytes(png(grid.figure, 100))
    report.write(out)
    return out


@pytest.fixture(scope="module")
def group(folder):
    return read(folder).groups[0]


@pytest.fixture(scope="module")
def curves(group):
    everything = evaluated(group)
    (question,) = everything.questions
    return {
        label: [curves for each in seeds.values() for curves in each.curves]
        for label, seeds in everything.of(question).items()
    }


def test_a_panel_for_each_line_with_means_and_bands(curves):
    figure = lines(curves, LOOK)
    panels = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["FGSM", "PGD-20"]
    assert panels[0].get_ylabel() == "error, %"
    for axes, factor in zip(panels, (1, 2), strict=True):
        drawn = {line.get_label(): line for line in axes.lines}
        assert list(drawn) == ["none", "se"]
        for (label, line), band in zip(drawn.items(), axes.collections, strict=True):
            values = factor * np.array(VALUES[label])
            assert line.get_ydata() == pytest.approx(values.mean(0))
            assert list(line.get_xdata()) == [0, 1, 2]
            assert line.get_color() == LOOK[label][0]
            corners = band.get_paths()[0].vertices
            assert {tuple(corner) for corner in corners} >= {(2.0, values[:, 2].min()), (2.0, values[:, 2].max())}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["none", "se"]


def test_four_lines_take_two_rows_and_the_empty_panels_are_blank(curves):
    from dataclasses import replace

    wide = {
        label: [replace(each, lines=dict.fromkeys("abcd", each.lines["FGSM"])) for each in seeds]
        for label, seeds in curves.items()
    }
    figure = lines(wide, LOOK)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c", "d", "", ""]
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


def test_the_curves_in_words(curves):
    assert described(curves) == (
        "Error under attack: error, % by ε, in 255ths. At 2, mean of the seeds: "
        "FGSM: none 91.00 and se 65.00; PGD-20: none 182.00 and se 130.00."
    )


def test_pictures_are_of_the_first_seed_that_most_have_and_are_folded(group, folder):
    chart, shown = evaluations(group, LOOK)
    assert chart.title == "Error under attack: robustness on digits"
    assert (shown.title, shown.caption, shown.folded) == ("Robustness on digits", "Seed 1, variant by variant.", True)
    assert [picture.label for picture in shown.pictures] == ["none", "se"]
    for row, picture in zip(group.rows, shown.pictures, strict=True):
        content = (run_folder(folder, {"name": row.name}, 1) / "robustness.png").read_bytes()
        assert base64.b64decode(picture.source.split(",")[1]) == content
        assert picture.width == round(struct.unpack(">I", content[16:20])[0] / 1.5)
        assert row.label in picture.alternative


def test_the_page_has_the_table_the_curves_and_the_pictures(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert "PGD <8/255> error % ↓ , lower is better robustness on digits" in page.text.replace("\xa0", " ")
    (bold,) = re.findall("<strong>(.*?)</strong>", text)
    assert bold == "65.50 ± 6.36"
    assert len(page.all("details")) == 2 + 1  # and the classes
    assert text.index("Evaluations</h3>") < text.index("Every seed")
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    images = page.all("img")
    assert len({image["alt"] for image in images}) == len(images) == 2 + 1 + 2
    assert {path.name for path in folder.iterdir()} >= {"evaluations.csv", "evaluations.md"}
