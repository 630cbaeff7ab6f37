"""Images explained batch by batch, with a page of all of them that is there from the start, whatever happens."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from heedful import files
from heedful.errors import InputError
from heedful.explain.folder import is_ours, make
from heedful.explain.images import image_files, shown_names, stems
from heedful.explain.page import Entry, Failure, Outcome, page

Task = tuple[Path, str, str]
"""A file, the name that it is shown under, and that of what is made of it, without an ending."""

Report = Callable[[int, int], None]
"""Called with the number of images done and of all."""


def tasks_of(paths: Sequence[str | Path], out: Path) -> list[Task]:
    """Return what is to be explained.

    Raises:
        InputError: if a path is wrong, or the folder `out` holds something else, or images to explain.
    """
    found = image_files(paths, without=out if is_ours(out) else None)
    if any(path.resolve().parent == out.resolve() for path in found):
        raise InputError(f"{out} holds images to explain, which pictures may overwrite: choose another folder (--out)")
    names = shown_names(found)
    return list(zip(found, names, stems(names), strict=True))


def check_batch_size(batch_size: int) -> None:
    """Raise an InputError if there are no such batches."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, but it must be at least 1")


def carry_out(
    outcome: Outcome,
    tasks: Sequence[Task],
    explained: Callable[[Sequence[Task]], Iterable[Entry | Failure]],
    out: Path,
    *,
    batch_size: int,
    report: Report,
) -> Outcome:
    """Explain all images, and write the page of what was done, after an interruption too.

    Args:
        outcome: without entries or failures; they are added.
        tasks: the images.
        explained: from a batch of them to what the page says of each, once its files are written.
        out: the folder.
        batch_size: images at a time.
        report: called before each batch, and at the end.
    """
    make(out)
    files.write(out / "index.html", page(outcome))
    try:
        for start in range(0, len(tasks), batch_size):
            report(start, len(tasks))
            for each in explained(tasks[start : start + batch_size]):
                if isinstance(each, Failure):
                    outcome.failures.append(each)
                else:
                    outcome.entries.append(each)
    finally:  # what was done before an interruption is shown too
        files.write(out / "index.html", page(outcome))
    report(len(tasks), len(tasks))
    return outcome
