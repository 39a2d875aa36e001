"""Headline cards: a few values with their intervals, and their difference from a reference value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from csm.report.numbers import Format, Interval, interval, number, percent, points, signed


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One value of a headline card.

    Attributes:
        label: Name of what was measured, such as the condition.
        value: The value; None where there is none, with the reason in `missing`.
        interval: Ends of the 95 % interval.
        tone: Class of the bar's colour: recording, resynthesis, generated or reference.
        missing: Reason for a value that is None.
    """

    label: str
    value: float | None
    interval: Interval | None = None
    tone: str = "generated"
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A value from elsewhere that the last figure of a card is compared with.

    Attributes:
        label: Name of the reference, such as `packaged voice` or `before training`.
        value: The reference value.
        interval: Ends of its 95 % interval.
        difference: Ends of the 95 % interval of the difference (figure minus reference); None if unknown.
    """

    label: str
    value: float
    interval: Interval | None = None
    difference: Interval | None = None


def headlines(cards: Sequence[str]) -> str:
    """Returns the grid of headline cards; empty cards are left out."""
    shown = "".join(cards)
    return f'<div class="cards">{shown}</div>' if shown else ""


def headline(
    title: str,
    figures: Sequence[Figure],
    *,
    form: Format = number,
    full: float | None = None,
    better: str = "",
    reference: Reference | None = None,
    note: str = "",
) -> str:
    """Returns a card with a row per figure, or with one large figure; empty without figures.

    Args:
        title: Heading of the card.
        figures: Values from top to bottom.
        form: Writes a value as text; differences of percentages are written in points.
        full: Value of a full bar; None draws no bars.
        better: `higher`, `lower` or empty; also names the sign of the difference.
        reference: Value that the last figure is compared with.
        note: Unit, number of items, failures.
    """
    if not figures:
        return ""
    if len(figures) == 1 and full is None:
        body = _large(figures[0], form)
    else:
        body = "".join(_row(figure, form, full) for figure in figures)
    compared = _compared(figures[-1], reference, form, better) if reference else ""
    foot = "; ".join(part for part in (note, f"{better} is better" if better else "") if part)
    foot = f'<p class="foot">{escape(foot)}</p>' if foot else ""
    return f'<article class="card"><h3>{escape(title)}</h3>{body}{compared}{foot}</article>'


def _large(figure: Figure, form: Format) -> str:
    label = f'<p class="foot">{escape(figure.label)}</p>' if figure.label else ""
    return f'<div class="big {figure.tone}">{_value(figure, form, "95 % interval ")}</div>{label}'


def _row(figure: Figure, form: Format, full: float | None) -> str:
    return (
        f'<div class="row {figure.tone}"><span>{escape(figure.label)}</span>'
        f'{_track(figure, full)}<div class="value">{_value(figure, form)}</div></div>'
    )


def _value(figure: Figure, form: Format, before: str = "") -> str:
    if figure.value is None:
        return f"<small>{escape(figure.missing or 'no value')}</small>"
    ends = f'<small class="interval">{before}{interval(figure.interval, form)}</small>'
    return f"<strong>{escape(form(figure.value))}</strong>{ends if figure.interval else ''}"


def _track(figure: Figure, full: float | None) -> str:
    """The bar of the value with a line over it from one end of the interval to the other."""
    if full is None:
        return "<span></span>"
    bar = f'<b style="width:{_share(figure.value or 0.0, full):.1f}%"></b>'
    if figure.interval:
        low, high = (_share(end, full) for end in figure.interval)
        bar += f'<s style="left:{low:.1f}%;width:{high - low:.1f}%"></s>'
    return f'<span class="track" aria-hidden="true">{bar}</span>'


def _share(value: float, full: float) -> float:
    return 100 * min(max(value / full, 0.0), 1.0)


def _compared(figure: Figure, reference: Reference, form: Format, better: str) -> str:
    change_form = points if form is percent else form
    ends = f" ({interval(reference.interval, form)})" if reference.interval else ""
    text = escape(f"{reference.label} {form(reference.value)}{ends}")
    if figure.value is not None:
        change = figure.value - reference.value
        verdict = _verdict(change, reference.difference, better)
        text += (
            f'<br><span class="{verdict.partition(" ")[0]}">difference {escape(signed(change, change_form))}'
        )
        if reference.difference:
            text += f" ({escape(' to '.join(signed(end, change_form) for end in reference.difference))})"
        text += f": {verdict}</span>" if verdict else "</span>"
    return f'<p class="reference">{text}</p>'


def _verdict(change: float, ends: Interval | None, better: str) -> str:
    """Better or worse, which needs an interval of the difference that excludes 0."""
    if ends is None:
        return ""
    if ends[0] <= 0 <= ends[1]:
        return "not significant"
    if not better:
        return ""
    return "better" if (change > 0) == (better == "higher") else "worse"
