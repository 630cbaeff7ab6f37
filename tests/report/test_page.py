"""The page: complete, self-contained, accessible, and safe whatever the names hold; all files written in one step."""

import base64
import html.parser
import itertools
import os
import re
import stat

import pytest
from made_up import recipe_row, write_recipe, write_run

from heedful import report
from heedful.errors import InputError
from heedful.report.formats import as_markdown
from heedful.report.numbers import mean_and_deviation
from heedful.report.sentences import answer, notes, sentence
from heedful.report.tables import as_csv, compare

VOID = {"meta", "link", "img", "br"}
NASTY = "<script>alert(1)</script> & \"q\" 'a' 50 % $x$ ünï 日本"


class Page(html.parser.HTMLParser):
    """A page taken apart: elements with their attributes, the text, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        """The attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        """The words, spaces made one."""
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def page(out):
    """The made-up experiment's page."""
    return Page((out / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The folder of an odd experiment: one seed, two classes, scaled, names full of specials, a very long variant."""
    folder = tmp_path_factory.mktemp("odd") / "out"
    variants = ["none", "cbam-ign2", "a-very-long-name-" * 6 + "+se"]
    rows = [recipe_row(variant, data=NASTY, name=f"row {i}", epochs=1) for i, variant in enumerate(variants)]
    rows[1]["learning_rate"] = 0.05
    write_recipe(folder, rows, [0], scale=0.1, title=NASTY, paper=NASTY)
    for row in rows:
        write_run(folder, row, 0, 12.0, classes=[NASTY, "$"], pictures=row is not rows[2])
    report.write(folder)
    return folder


def test_the_page_is_well_formed_and_asks_nobody_for_anything(page, out):
    assert page.open == []
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert len(addresses) > 10
    assert all(address.startswith(("data:", "#")) for address in addresses)
    text = (out / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|<script|javascript:", text)
    (policy,) = [each["content"] for each in page.all("meta") if "http-equiv" in each]
    assert policy.startswith("default-src 'none'")


def test_no_path_of_the_machine_is_in_the_page(page, out):
    text = (out / "index.html").read_text(encoding="utf-8")
    assert str(out.parent) not in text
    assert f"heedful report {out.name}" in page.text


def test_everything_the_results_say_is_on_the_page(page, experiment):
    assert experiment.title in page.text
    for group in experiment.groups:
        comparisons = compare(group)
        assert answer(comparisons) in page.text
        assert all(note in page.text for note in notes(group, comparisons))
        for comparison in comparisons:
            assert sentence(comparison, comparisons[0]) in page.text
            assert mean_and_deviation(comparison.error) in page.text
    assert "seeds 0, 1, 2, 3 and 4 · 32 of 35 runs finished, 1 failed" in page.text


def test_the_answer_comes_before_the_table(page):
    assert page.text.index("se-ign3 lowers the error of none") < page.text.index("top-1 error")


def test_failed_and_unfinished_runs_are_listed(page):
    assert "cifar_resnet8/digits/cbam 3 failed: the loss became nan at epoch 3, step 41" in page.text
    assert "cifar_resnet8/digits/se 4 not finished" in page.text
    assert "4 of 5 seeds, 1 failed" in page.text


def test_how_it_was_made(page):
    for words in ("batch size 128", "weight decay 0.0001", "augment shift-zero", "limit default", "torch 2.9.1"):
        assert words in page.text
    assert "1437 training, 180 validation and 180 test images of 6 classes" in page.text


def test_settings_that_differ_are_told_row_by_row(odd):
    text = Page((odd / "index.html").read_text(encoding="utf-8")).text
    assert "Settings that differ between rows row learning rate row 0 0.1 row 1 0.05 row 2 0.1" in text


def test_pictures_have_real_alternatives(page):
    images = page.all("img")
    # Per group: seeds, curves, maps and channel weights; cbam's two variants have spatial masks.
    assert len(images) == 2 * 4 + 2
    assert all(len(image["alt"]) > 60 for image in images)
    assert len({image["alt"] for image in images}) == len(images)
    kinds = [image["src"].split(";")[0] for image in images]
    assert (kinds.count("data:image/svg+xml"), kinds.count("data:image/png")) == (6, 4)
    for image in images:
        content = base64.b64decode(image["src"].split(",")[1], validate=True)
        assert content.startswith((b"<?xml", b"\x89PNG"))


def test_headings_and_tables_can_be_followed_without_seeing_them(page):
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.all("html") == [{"lang": "en"}]
    assert "lower error:" in page.text  # the arrow's meaning, in words
    anchors = {f"#{attributes['id']}" for _, attributes in page.elements if "id" in attributes}
    assert {each["href"] for each in page.all("a")} == {"#group-1", "#group-2"} <= anchors


def test_one_group_needs_no_contents(odd):
    odd_page = Page((odd / "index.html").read_text(encoding="utf-8"))
    assert odd_page.all("nav") == []
    assert "1 seed cannot tell any variant from none." in odd_page.text


def test_names_cannot_become_elements(odd):
    odd_page = Page((odd / "index.html").read_text(encoding="utf-8"))
    assert odd_page.open == []
    assert odd_page.all("script") == []
    assert odd_page.text.startswith(f"{NASTY} · heedful")
    assert any(NASTY in image["alt"] for image in odd_page.all("img"))


def test_a_scaled_experiment_says_so_everywhere(odd):
    words = "scaled to 0.1 of the epochs and images"
    odd_page = Page((odd / "index.html").read_text(encoding="utf-8"))
    assert odd_page.text.count(words) >= 2
    assert words in (odd / "table.md").read_text(encoding="utf-8")
    assert words in (odd / "table.tex").read_text(encoding="utf-8")


def test_two_classes_have_no_top5_error(odd):
    assert "top-5" not in (odd / "index.html").read_text(encoding="utf-8")


def test_all_four_files_are_written(out, experiment):
    assert (out / "results.csv").read_text(encoding="utf-8") == as_csv(experiment)
    markdown = (out / "table.md").read_text(encoding="utf-8")
    latex = (out / "table.tex").read_text(encoding="utf-8")
    for group in experiment.groups:
        assert f"### {group.title}\n\n{as_markdown(compare(group))}" in markdown
    assert latex.count(r"\begin{table*}") == latex.count(r"\end{table*}") == 2
    assert sorted(path.name for path in out.iterdir()) == [
        *("index.html", "recipe.yaml", "results.csv", "runs", "table.md", "table.tex")
    ]
    assert all(stat.S_IMODE((out / name).stat().st_mode) == 0o644 for name in ("index.html", "results.csv"))


@pytest.fixture
def bare(tmp_path):
    """An experiment of one run without pictures."""
    row = recipe_row("none", epochs=1)
    write_recipe(tmp_path, [row], [0], command="heedful compare none --out here")
    write_run(tmp_path, row, 0, 5.0, pictures=False)
    return tmp_path


def test_a_report_without_pictures(bare):
    report.write(bare)
    bare_page = Page((bare / "index.html").read_text(encoding="utf-8"))
    assert len(bare_page.all("img")) == 2
    assert "What the networks heed" not in bare_page.text
    assert "heedful compare none --out here" in bare_page.text


def test_the_same_results_make_the_same_files_and_a_failed_write_leaves_them_whole(bare, monkeypatch):
    def files():
        return {path.name: path.read_bytes() for path in bare.iterdir() if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    report.write(bare)
    before = files()
    report.write(bare)
    assert files() == before
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write .*results\.csv.*No space left on device"):
        report.write(bare)
    assert files() == before
