"""One table, three ways to write it: Markdown, LaTeX and the terminal (the page has its own template)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from heedful.report import numbers
from heedful.report.results import Expected
from heedful.report.tables import Comparison
from heedful.statistics import Summary

SPECIALS = {special: f"\\{special}" for special in "#$%&_{}"}
WORDS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}"}
SIGNS = {"<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "—": "---", "α": r"$\alpha$"}
LATEX = str.maketrans(SPECIALS | WORDS | SIGNS)


@dataclass(frozen=True)
class Column:
    """A column of the written table: its heading, its cells in the order of the comparisons, and whether it is text."""

    heading: str
    cells: list[str]
    is_text: bool = False


def columns(comparisons: Sequence[Comparison]) -> list[Column]:
    """Return the columns of the written table; what some tasks have, and the paper's value, where there are any."""
    first = comparisons[0].label
    written = [
        Column("variant", [variant(c) for c in comparisons], is_text=True),
        Column(f"{comparisons[0].error_name} %", [numbers.mean_and_deviation(c.error) for c in comparisons]),
        Column("95 % interval", [numbers.interval(c.error) for c in comparisons]),
        Column(f"difference to {first}", [numbers.difference(c.paired) for c in comparisons]),
        Column("p (t)", [t_test(c) for c in comparisons]),
        Column("p (Holm)", [numbers.p_value(c.holm_p) for c in comparisons]),
        Column("p (perm.)", [permutation_test(c) for c in comparisons]),
    ]
    if any(c.top5 for c in comparisons):
        written.append(Column("top-5 error %", [numbers.mean_and_deviation(c.top5) for c in comparisons]))
    if any(c.map50 for c in comparisons):
        written.append(Column("mAP@0.5 %", [numbers.mean_and_deviation(c.map50) for c in comparisons]))
    if any(c.auc for c in comparisons):
        written.append(Column("AUC", [_auc(c.auc) for c in comparisons]))
    if any(c.expected for c in comparisons):
        written.append(Column("paper %", [expected(c.expected) for c in comparisons]))
    return [
        *written,
        Column("parameters", [numbers.count(c.parameters) for c in comparisons]),
        Column("FLOPs", [numbers.count(c.flops) for c in comparisons]),
        Column("train ×", [numbers.ratio(c.train_ratio) for c in comparisons]),
        Column("infer ×", [numbers.ratio(c.inference_ratio) for c in comparisons]),
    ]


def variant(comparison: Comparison) -> str:
    """Return the label, and how many seeds finished where not all did: "se (2 of 3 seeds, 1 failed)"."""
    missing = gaps(comparison)
    return f"{comparison.label} ({missing})" if missing else comparison.label


def gaps(comparison: Comparison) -> str:
    """Return "2 of 3 seeds, 1 failed", or nothing where all seeds finished."""
    missing = len(comparison.failed) + len(comparison.unfinished)
    finished = comparison.error.num_seeds if comparison.error else 0
    failed = f", {len(comparison.failed)} failed" if comparison.failed else ""
    return f"{finished} of {finished + missing} seeds{failed}" if missing else ""


def t_test(comparison: Comparison) -> str:
    """Return the p-value of the paired t-test, uncorrected."""
    return numbers.p_value(comparison.paired.p_value) if comparison.paired else numbers.NOTHING


def permutation_test(comparison: Comparison) -> str:
    """Return the p-value of the paired permutation test, uncorrected."""
    return numbers.p_value(comparison.paired.permutation_p_value) if comparison.paired else numbers.NOTHING


def expected(value: Expected | None) -> str:
    """Return the paper's value: "6.05 ± 0.20", "6.05" or a dash."""
    if value is None:
        return numbers.NOTHING
    return f"{value.mean:.2f}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return a GitHub-flavoured Markdown table, numbers right-aligned."""
    written = columns(comparisons)
    cells = [[column.heading for column in written], *zip(*(column.cells for column in written), strict=True)]
    lines = ["| " + " | ".join(markdown_cell(cell) for cell in line) + " |" for line in cells]
    rule = "|" + "|".join(" :-- " if column.is_text else " --: " for column in written) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def as_latex(comparisons: Sequence[Comparison], caption: str) -> str:
    r"""Return a LaTeX `table*` for `\usepackage{booktabs,graphicx}`, shrunk to the page's width where it must be.

    Scripts beyond Latin need XeLaTeX or LuaLaTeX and a font that has them. The permutation test is left out.

    Args:
        comparisons: of one group.
        caption: plain text; what LaTeX would take for commands is escaped, here and in the cells.
    """
    written = [column for column in columns(comparisons) if column.heading != "p (perm.)"]
    headings = " & ".join(column.heading.translate(LATEX) for column in written)
    lines = [
        " & ".join(" ".join(cell.split()).translate(LATEX) for cell in cells)
        for cells in zip(*(column.cells for column in written), strict=True)
    ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{caption.translate(LATEX)}}}",
            r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{''.join('l' if column.is_text else 'r' for column in written)}}}",
            r"\toprule",
            rf"{headings} \\",
            r"\midrule",
            *(rf"{line} \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )


def as_rich(comparisons: Sequence[Comparison], title: str) -> Table:
    """Return the table for a terminal of 100 columns; long names are folded, the paper's value stands below ours.

    Args:
        comparisons: of one group.
        title: plain text above the table.
    """
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", overflow="fold", max_width=18)
    error = comparisons[0].error_name.removeprefix("top-1 ")
    for heading in (f"{error} %", "interval", "difference", "p (t)", "Holm", "params", "FLOPs", "train", "infer"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in comparisons:
        paper = f"\npaper {c.expected.mean:.2f}" if c.expected else ""
        table.add_row(
            escape(variant(c)),
            numbers.mean_and_deviation(c.error) + paper,
            numbers.interval(c.error).replace(" to ", "–"),
            escape(numbers.difference(c.paired)),
            t_test(c).replace("< ", "<"),
            numbers.p_value(c.holm_p).replace("< ", "<"),
            numbers.count(c.parameters).replace(" ", ""),
            numbers.count(c.flops).replace(" ", ""),
            _times(c.train_ratio),
            _times(c.inference_ratio),
        )
    return table


def _auc(summary: Summary | None) -> str:
    return numbers.NOTHING if summary is None else f"{summary.mean:.3f}"


def _times(ratio: float) -> str:
    return numbers.NOTHING if math.isnan(ratio) else f"{ratio:.2f}×"


def markdown_cell(cell: str) -> str:
    """Return plain text as it stands in a cell of a Markdown table."""
    # Names may hold anything; a bar would end the cell, an angle bracket begin HTML.
    cell = " ".join(cell.split())
    for special in "\\|<>*_`":
        cell = cell.replace(special, "\\" + special)
    return cell
