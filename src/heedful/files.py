"""Files that are replaced in one step: whoever reads sees the old content or the new, also after a kill."""

import os
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Write the content (text as UTF-8) beside the path, then move it there; what fails leaves nothing behind."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
