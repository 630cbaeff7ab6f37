"""ε, the greatest change of a pixel that an attack may make: read, checked and named in grey levels."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from heedful.errors import InputError


def parse_epsilons(text: str) -> tuple[float, ...]:
    """Return the numbers of a list such as `0,1/255,2/255` or `0,0.01`.

    Raises:
        InputError: if a part is no number, or the list is empty, does not rise or leaves [0, 1].
    """
    found = []
    for part in text.split(",") if text.strip() else []:
        try:
            found.append(float(Fraction(part)))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise InputError(f"epsilons: {part!r} is no number: write for example 0,1/255,2/255 or 0,0.01") from None
    check_epsilons(found)
    return tuple(found)


def check_epsilons(epsilons: Sequence[float]) -> None:
    """Raise an InputError if there is none, one is outside [0, 1], or they do not rise."""
    if not epsilons:
        raise InputError("epsilons is empty: give one or more, for example 0,1/255,2/255")
    for epsilon in epsilons:
        check_epsilon(epsilon)
    for lower, higher in pairwise(epsilons):
        if higher <= lower:
            raise InputError(
                f"epsilons: {named(higher)} stands after {named(lower)}, but they must rise: sort them, each once"
            )


def check_epsilon(epsilon: float) -> None:
    """Raise an InputError if epsilon is outside [0, 1]."""
    if not 0 <= epsilon <= 1:
        raise InputError(
            f"epsilon is {epsilon:g}, but it must be in [0, 1], as pixels are here: write eight grey levels as 8/255"
        )


def named(epsilon: float) -> str:
    """Return ε as people write it, whichever is shorter: in grey levels, 8/255, or 0.01."""
    levels, decimal = 255 * epsilon, f"{epsilon:g}"
    fraction = f"{round(levels)}/255"
    return fraction if abs(levels - round(levels)) < 1e-6 and len(fraction) < len(decimal) else decimal
