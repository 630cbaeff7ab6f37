"""The folder that pictures are written into: new, or of an earlier call, so that nothing of the user's is lost."""

from pathlib import Path

from heedful.errors import InputError
from heedful.explain.page import MARK


def is_ours(out: Path) -> bool:
    """Return whether the folder holds the page of an earlier call, rather than nothing.

    Raises:
        InputError: if it holds something else, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: choose a folder (--out)")
    if not out.exists() or not any(out.iterdir()):
        return False
    page = out / "index.html"
    if not page.is_file() or MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{out} holds other files, which pictures may overwrite: choose a new folder (--out)")
    return True


def make(out: Path) -> None:
    """Make the folder if it is not there.

    Raises:
        InputError: if it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made ({error.strerror}): choose another folder (--out)") from None
