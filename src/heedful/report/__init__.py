"""Result files -> tables, figures and one page; no model is run, and an unfinished experiment has a report too."""

from pathlib import Path

from heedful import files
from heedful.errors import InputError
from heedful.report.results import Experiment, read

__all__ = ["Experiment", "read", "write"]


def write(out: Path) -> Experiment:
    """Write `index.html`, `results.csv`, `table.md` and `table.tex` from an experiment's results, and return these.

    Where runs were evaluated, `evaluations.csv` and `evaluations.md` too.

    Each file is replaced in one step: whoever reads it meanwhile sees the old one or the new one, whole.

    Args:
        out: the experiment's folder.

    Raises:
        InputError: if the folder holds no finished run, a file in it is damaged, or it is not writable.
    """
    from heedful.report import summary
    from heedful.report.formats import as_latex, as_markdown
    from heedful.report.page import page
    from heedful.report.tables import as_csv, compare

    experiment = read(out)
    tables = [(group, compare(group)) for group in experiment.groups]
    contents = {
        "results.csv": as_csv(experiment),
        "table.md": "\n".join(f"### {group.title}\n\n{as_markdown(rows)}" for group, rows in tables),
        "table.tex": "\n".join(as_latex(rows, f"{experiment.title}: {group.title}") for group, rows in tables),
        **summary.files(experiment),
        "index.html": page(experiment),
    }
    for name, text in contents.items():
        try:
            files.write(out / name, text)
        except OSError as error:
            raise InputError(
                f"cannot write {str(out / name)!r}: {error.strerror}: make room or give write permission"
            ) from error
    return experiment
