"""What a user got wrong, said so that it can be mended: the argument, the value, what is allowed, the repair."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used. The command line prints the message and exits with code 2."""


def unknown(kind: str, value: str, allowed: Iterable[str], *, where: str = "") -> InputError:
    """Return the error for a name that is not among `allowed`: it names the nearest ones.

    Args:
        kind: what is named, in words, e.g. "model".
        value: the name that was given.
        allowed: the names that exist.
        where: what stands before the message, e.g. the text in which the name was found.
    """
    names = list(allowed)
    near = difflib.get_close_matches(value.lower(), names, n=3, cutoff=0.5)
    if near:
        return InputError(f"{where}unknown {kind} {value!r}: did you mean {' or '.join(near)}?")
    listed = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return InputError(f"{where}unknown {kind} {value!r}: choose one of {listed}")
