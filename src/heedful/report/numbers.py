"""How the tables and sentences write numbers: the same digits and signs in the terminal, the page and the paper."""

import math

from heedful.statistics import Paired, Summary

NOTHING = "—"
MINUS = "−"


def signed(value: float, digits: int = 2) -> str:
    """Return a difference with its sign, "+0.90" or "−0.90"; zero has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def mean_and_deviation(summary: Summary | None, digits: int = 2) -> str:
    """Return "5.12 ± 0.21"; a single seed has no deviation."""
    if summary is None:
        return NOTHING
    deviation = "" if math.isnan(summary.deviation) else f" ± {summary.deviation:.{digits}f}"
    return f"{summary.mean:.{digits}f}".replace("-", MINUS) + deviation


def interval(summary: Summary | None) -> str:
    """Return "4.60 to 5.64", the interval of the mean."""
    if summary is None or math.isnan(summary.low):
        return NOTHING
    return f"{signed(summary.low).lstrip('+')} to {signed(summary.high).lstrip('+')}"


def difference(paired: Paired | None) -> str:
    """Return "−0.90 [−1.50, −0.30]", the paired difference and its interval."""
    if paired is None:
        return NOTHING
    bounds = "" if math.isnan(paired.low) else f" [{signed(paired.low)}, {signed(paired.high)}]"
    return signed(paired.difference) + bounds


def p_value(value: float) -> str:
    """Return "0.012", "0.34" or "< 0.001"; never 0."""
    if math.isnan(value):
        return NOTHING
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def count(number: int | None) -> str:
    """Return three significant digits and a unit: 759_000 is "759 k", 1_234_000_000 is "1.23 G"."""
    if number is None:
        return NOTHING
    rounded = float(f"{number:.3g}")  # before the unit is chosen: 999_600 is 1 M
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rounded >= size:
            return f"{rounded / size:#.3g}".rstrip(".") + unit
    return str(number)


def ratio(value: float) -> str:
    """Return "1.07"."""
    return NOTHING if math.isnan(value) else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Return "42 s", "3 min 20 s" or "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def points(value: float, scale: float) -> str:
    """Return percentage points with as many digits as something of size `scale` needs: "0.9", "0.04".

    Args:
        value: in points, written without its sign.
        scale: in points, above 0: what must not be rounded away, e.g. half an interval's width.
    """
    digits = next((digits for digits in (1, 2) if scale >= 2.5 * 10.0**-digits), 3)
    return f"{abs(value):.{digits}f}"


def listed(words: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(number: int, noun: str) -> str:
    """Return "1 seed" or "3 seeds"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
