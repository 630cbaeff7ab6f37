"""Markdown, LaTeX and the terminal: the same numbers, whatever the names hold."""

import dataclasses
import io
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from heedful.report.formats import as_latex, as_markdown, as_rich, variant
from heedful.report.tables import compare

NASTY = 'a|b <b> & 50 % _x_ $y$ #1 {z} ~ ^ \\ [q] "ü" ±'


@pytest.fixture(scope="module")
def comparisons(experiment):
    """Of the first group: five rows, with top-5 error and the paper's value."""
    return compare(experiment.groups[0])


def terminal(table, width=100):
    """What a terminal of so many columns shows, line by line."""
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


def test_markdown_cells(comparisons):
    lines = as_markdown(comparisons).splitlines()
    assert lines[0] == (
        "| variant | top-1 error % | 95 % interval | difference to none | p (t) | p (Holm) | p (perm.) "
        "| top-5 error % | paper % | parameters | FLOPs | train × | infer × |"
    )
    assert lines[1].startswith("| :-- | --: |")
    assert len(lines) == 2 + 5
    assert {line.count(" | ") for line in lines} == {12}
    assert lines[2].startswith("| none | 6.01 ± 0.26 | 5.69 to 6.33 | — | — | — | — | ")
    assert lines[5].startswith("| cbam (4 of 5 seeds, 1 failed) | ")


def test_columns_without_any_value_are_left_out(experiment, comparisons):
    bare = [dataclasses.replace(c, top5=None, expected=None) for c in comparisons]
    assert "top-5" not in as_markdown(bare)
    assert "paper" not in as_markdown(bare)
    assert "paper" not in "".join(terminal(as_rich(bare, "title")))


def test_markdown_keeps_names_in_their_cell(comparisons):
    nasty = [dataclasses.replace(c, label="a|b <b>\n*c*") for c in comparisons]
    assert "| a\\|b \\<b\\> \\*c\\* (4 of 5 seeds) |" in as_markdown(nasty)


def test_latex_is_a_booktabs_table(comparisons):
    text = as_latex(comparisons, "5 % of cases")
    assert r"\caption{5 \% of cases}" in text
    assert r"none & 6.01 $\pm$ 0.26 & 5.69 to 6.33 & --- & ---" in text
    assert r"$-$1.05 {[}$-$1.10, $-$0.99{]} & $<$ 0.001" in text
    rows = re.search(r"\\midrule\n(.*)\\bottomrule", text, re.DOTALL)[1].splitlines()
    assert [row.count(" & ") for row in rows] == [11] * 5
    assert all(row.endswith(r" \\") for row in rows)


def test_latex_escapes_every_special(comparisons):
    text = as_latex([dataclasses.replace(comparisons[0], label=NASTY)], NASTY)
    assert (
        r"a$|$b $<$b$>$ \& 50 \% \_x\_ \$y\$ \#1 \{z\} \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} {[}q{]} " + '"ü" $\\pm$'
    ) in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(comparisons, tmp_path):
    nasty = [dataclasses.replace(c, label=NASTY) for c in comparisons]
    document = (
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
        + as_latex(nasty, NASTY)
        + r"\end{document}"
    )
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "table.tex"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert log.returncode == 0, log.stdout[-1000:]
    assert b"Overfull" not in log.stdout


def test_the_terminal_table_fits_100_columns(comparisons):
    lines = terminal(as_rich(comparisons, "cifar_resnet8 on digits"))
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "…" not in "".join(lines)
    assert lines[0].startswith("cifar_resnet8 on digits")
    (none,) = [line for line in lines if line.startswith("none")]
    assert none.split() == ["none", "6.01", "±", "0.26", "5.69–6.33", *"————"[:3], "75.3k", "24.6M", "1.00×", "1.00×"]


def test_long_names_are_folded_and_the_numbers_stay_whole(comparisons):
    wide = dataclasses.replace(
        comparisons[2],
        label="a-long-model-name/data-set/cbam-ign1(0.123456)",
        error=dataclasses.replace(comparisons[2].error, mean=88.88, deviation=10.11, low=66.66, high=99.99),
        paired=dataclasses.replace(comparisons[2].paired, difference=-12.34, low=-23.45, high=-11.22),
    )
    lines = terminal(as_rich([comparisons[0], wide], "title"))
    text = "\n".join(lines)
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "88.88 ± 10.11" in text
    assert "−12.34 [−23.45, −11.22]" in text
    assert "".join(line[:12].strip() for line in lines if line[:12].strip()).endswith("0.123456)")


def test_names_are_no_markup_in_the_terminal(comparisons):
    lines = terminal(as_rich([dataclasses.replace(comparisons[0], label="[red]x[/red]")], "[b]t[/b]"))
    assert lines[0].startswith("[b]t[/b]")
    assert any("[red]x[/red]" in line for line in lines)


def test_the_papers_value_stands_below_ours(comparisons):
    lines = terminal(as_rich(comparisons, "title"))
    assert sum("paper 6.10" in line for line in lines) == 5


def test_a_row_says_how_many_seeds_it_has(comparisons):
    assert [variant(c) for c in comparisons] == [
        *("none", "se (4 of 5 seeds)", "se-ign3", "cbam (4 of 5 seeds, 1 failed)", "cbam-ign1(0.5)")
    ]
    nothing = dataclasses.replace(comparisons[1], error=None, failed=(0, 1), unfinished=(2,))
    assert variant(nothing) == "se (0 of 3 seeds, 2 failed)"
