"""Numbers as text: a few significant digits, percent and intervals."""

from __future__ import annotations

from collections.abc import Callable

Interval = tuple[float, float]
Format = Callable[[float], str]


def number(value: float | None, digits: int = 3) -> str:
    """Returns a value with `digits` significant digits and no exponent; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    places = max(0, digits - 1 - int(f"{abs(value):e}".rpartition("e")[2]))
    return f"{value:.{min(places, 4)}f}"


def percent(value: float) -> str:
    """Returns a share as percent with one decimal."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Returns a difference of two shares in percentage points with one decimal."""
    return f"{100 * value:.1f} points"


def seconds(value: float) -> str:
    """Returns a time with its unit."""
    return f"{number(value)} s"


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun, `1 dialogue` or `2 dialogues`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def interval(ends: Interval | None, form: Format = number) -> str:
    """Returns both ends of an interval, `0.81 to 0.88`; empty for None."""
    return "" if ends is None else f"{form(ends[0])} to {form(ends[1])}"


def signed(value: float, form: Format = number) -> str:
    """Returns a value with its sign, also where it is positive."""
    return form(value) if value < 0 else f"+{form(value)}"
