"""The curves of one run, drawn; those of all variants together are in the report."""

import io
from collections.abc import Sequence

from heedful.evaluate.found import Curves

PANEL = (4.6, 3.4)  # inches


def drawn(found: Sequence[Curves]) -> bytes:
    """Return a panel for each of the curves, with all its lines, as PNG.

    Args:
        found: one or more.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL[0] * len(found), PANEL[1]), layout="constrained")
    for axes, curves in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        for name, values in curves.lines.items():
            axes.plot(curves.x, values, marker="o", markersize=4, label=name)
        axes.set(title=curves.title, xlabel=curves.x_name, ylabel=curves.y_name)
        axes.grid(alpha=0.3)
        axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()
