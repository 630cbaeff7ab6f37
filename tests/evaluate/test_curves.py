"""The curves of one run, drawn."""

import matplotlib.figure
import numpy as np

from heedful.evaluate.curves import drawn
from heedful.evaluate.found import Curves


def test_every_curve_has_a_panel_with_all_its_lines(monkeypatch):
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
    )
    first = Curves("Error", "ε", "error, %", (0.0, 0.1, 0.2), {"fgsm": (1.0, 5.0, 9.0), "pgd": (1.0, 6.0, 10.0)})
    second = Curves("Fooled", "ε", "fooled, %", (0.0, 0.1), {"fgsm": (0.0, 4.0)})
    assert drawn([first, second]).startswith(b"\x89PNG")
    panels = figures[0].axes
    assert [(axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) for axes in panels] == [
        ("Error", "ε", "error, %"),
        ("Fooled", "ε", "fooled, %"),
    ]
    lines = panels[0].get_lines()
    assert [line.get_label() for line in lines] == ["fgsm", "pgd"]
    np.testing.assert_array_equal(lines[1].get_xydata(), [(0, 1), (0.1, 6), (0.2, 10)])
    assert len(panels[1].get_lines()) == 1
