"""Result files -> tables, figures and one page; no model is run, and an unfinished experiment has a report too."""

import os
import tempfile
from pathlib import Path

from heedful.errors import InputError
from heedful.report.results import Experiment, read

__all__ = ["Experiment", "read", "write"]


def write(out: Path) -> Experiment:
    """Write `index.html`, `results.csv`, `table.md` and `table.tex` from an experiment's results, and return these.

    Each file is replaced in one step: whoever reads it meanwhile sees the old one or the new one, whole.

    Args:
        out: the experiment's folder.

    Raises:
        InputError: if the folder holds no finished run, a file in it is damaged, or it is not writable.
    """
    from heedful.report.formats import as_latex, as_markdown
    from heedful.report.page import page
    from heedful.report.tables import as_csv, compare

    experiment = read(out)
    tables = [(group, compare(group)) for group in experiment.groups]
    contents = {
        "results.csv": as_csv(experiment),
        "table.md": "\n".join(f"### {group.title}\n\n{as_markdown(rows)}" for group, rows in tables),
        "table.tex": "\n".join(as_latex(rows, f"{experiment.title}: {group.title}") for group, rows in tables),
        "index.html": page(experiment),
    }
    for name, text in contents.items():
        _replace(out / name, text)
    return experiment


def _replace(path: Path, text: str) -> None:
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8", newline="\n") as file:
            temporary = file.name
            file.write(text)
        os.chmod(temporary, 0o644)  # a temporary file is its owner's alone, a report is for whoever may see the folder
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}: make room or give write permission") from error
