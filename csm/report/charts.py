"""Small charts as inline SVG and HTML: they take their colours from the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from csm.report.chart_frame import BOTTOM, TOP, Frame, axes, bounds, picture, tick_text, ticks
from csm.report.numbers import number

Point = tuple[float, float]
WIDTH, HEIGHT = 380, 210  # pixels at which tick labels stay legible on a phone


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart.

    Attributes:
        label: Name of the line.
        points: (x, y) in the order of x.
        style: Class of its colour: recording, resynthesis, generated or faint.
        dots: Whether the points are marked.
    """

    label: str
    points: Sequence[Point]
    style: str
    dots: bool = False


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Returns the legend of (style, label)."""
    spans = "".join(f'<span class="{style}"><i></i>{escape(label)}</span>' for style, label in entries)
    return f'<div class="legend">{spans}</div>'


def plot(title: str, chart: str, *, note: str = "") -> str:
    """Returns a chart in its frame under a heading; empty without a chart."""
    if not chart:
        return ""
    below = f'<p class="foot">{escape(note)}</p>' if note else ""
    return f'<div class="plot"><h4>{escape(title)}</h4>{chart}{below}</div>'


def plots(charts: Sequence[str]) -> str:
    """Returns charts side by side; empty without any."""
    shown = "".join(charts)
    return f'<div class="plots">{shown}</div>' if shown else ""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str = "",
    y_title: str = "",
    y: tuple[float, float] | None = None,
    whole_x: bool = False,
) -> str:
    """Returns lines, with dots where a series has them.

    Points at a single place on the x axis are written as values, and without any point the text is empty.

    Args:
        series: Lines, the last one on top.
        title: Accessible name of the chart.
        x_title, y_title: Axis titles with units.
        y: Range of the y axis; None follows the data. Points outside are drawn at its ends.
        whole_x: Whether only whole numbers are labelled on the x axis.
    """
    points = [point for one in series for point in one.points]
    if len({x for x, _ in points}) < 2:
        return _values(series, x_title, y_title)
    frame = Frame(
        width=WIDTH,
        height=HEIGHT,
        x=bounds([x for x, _ in points], margin=0.02),
        y=y or bounds([value for _, value in points]),
    )
    parts = axes(frame, whole_x=whole_x)
    for one in series:
        parts += _line(frame, one)
    return picture(frame, parts, title=title, x_title=x_title, y_title=y_title)


def _values(series: Sequence[Series], x_title: str, y_title: str) -> str:
    """Points of one place as text: a chart of one point shows nothing."""
    rows = [
        f'<li class="{one.style}"><i></i>{escape(one.label)}: <b>{number(value)}</b> {escape(y_title)}'
        f" <small>{escape(x_title)} {tick_text(x)}</small></li>"
        for one in series
        for x, value in one.points
    ]
    return f'<ul class="values">{"".join(rows)}</ul>' if rows else ""


def _line(frame: Frame, one: Series) -> list[str]:
    shown = [(frame.px(x), min(max(frame.py(y), TOP), frame.height - BOTTOM)) for x, y in one.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
    parts = [f'<polyline class="line {one.style}" points="{path}"/>'] if len(shown) > 1 else []
    if one.dots or len(shown) == 1:
        parts += [
            f'<circle class="dot {one.style}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
            f"<title>{escape(one.label)}: {number(value)}</title></circle>"
            for (x, y), (_, value) in zip(shown, one.points, strict=True)
        ]
    return parts


def histogram(
    groups: Sequence[tuple[str, Sequence[float]]],
    *,
    title: str,
    low: float,
    high: float,
    width_of_bin: float,
    x_title: str,
) -> str:
    """Returns the shares per bin of several groups, side by side in each bin; empty without values.

    Args:
        groups: (style, values) of each group.
        title: Accessible name of the chart.
        low, high: Widest range of the x axis, which follows the values within it; values outside are counted
            in the first and last bin.
        width_of_bin: Width of a bin in the unit of the values.
        x_title: Title of the x axis with its unit.
    """
    values = [min(max(value, low), high) for _, group in groups for value in group]
    if not values:
        return ""
    first = math.floor((min(values) - low) / width_of_bin + 1e-9)
    last = max(math.ceil((max(values) - low) / width_of_bin - 1e-9), first + 1)
    start, end = low + first * width_of_bin, low + last * width_of_bin
    shares = [(style, _shares(group, start, width_of_bin, last - first)) for style, group in groups]
    top = max(share for _, bins in shares for share in bins)
    frame = Frame(width=WIDTH, height=HEIGHT, x=(start, end), y=(0.0, top * 1.08))
    parts = axes(frame)
    step = (frame.px(start + width_of_bin) - frame.px(start)) / len(shares)
    for place, (style, bins) in enumerate(shares):
        for index, share in enumerate(bins):
            if share:
                x = frame.px(start + index * width_of_bin) + place * step
                parts.append(_bar(frame, style, x + 0.5, max(step - 1, 1), share, f"{100 * share:.0f} %"))
    if start < 0 < end:
        zero = frame.px(0.0)
        parts.append(
            f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
    return picture(frame, parts, title=title, x_title=x_title, y_title="share")


def _shares(values: Sequence[float], start: float, width: float, count: int) -> list[float]:
    bins = [0.0] * count
    for value in values:
        bins[min(max(int((value - start) // width), 0), count - 1)] += 1.0 / len(values)
    return bins


def _bar(frame: Frame, style: str, x: float, width: float, value: float, label: str) -> str:
    y = frame.py(value)
    return (
        f'<rect class="bar {style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{frame.py(0) - y:.1f}"><title>{escape(label)}</title></rect>'
    )


def bar_chart(
    values: Sequence[float],
    *,
    title: str,
    styles: Sequence[str],
    labels: Sequence[str],
    top: float,
    x_title: str,
    y_title: str,
) -> str:
    """Returns one bar per value, with its label as a tooltip; the x axis counts the bars from 0."""
    frame = Frame(width=WIDTH, height=HEIGHT, x=(-0.6, len(values) - 0.4), y=(0.0, top))
    parts = axes(frame, whole_x=True)
    size = (frame.px(1) - frame.px(0)) * 0.76
    parts += [
        _bar(frame, style, frame.px(place) - size / 2, size, min(value, top), label)
        for place, (value, style, label) in enumerate(zip(values, styles, labels, strict=True))
    ]
    return picture(frame, parts, title=title, x_title=x_title, y_title=y_title)


def timeline(
    lanes: Sequence[tuple[str, Sequence[tuple[float, float]], str]], duration: float, *, title: str
) -> str:
    """Returns the speech of each speaker as blocks in a lane of its own.

    Args:
        lanes: (name, (start, end) of each block in seconds, style).
        duration: End of the time axis in seconds.
        title: Heading and accessible name.
    """
    rows = "".join(_lane(name, units, style, duration) for name, units, style in lanes)
    marks = "".join(
        f'<span style="left:{100 * second / duration:.1f}%">{second:g} s</span>'
        for second in ticks(0.0, duration, 5)
    )
    return (
        f'<p class="axis-title">{escape(title)}</p>'
        f'<div class="timeline" role="img" aria-label="{escape(title, quote=True)}">{rows}'
        f'<div class="lane seconds"><span></span><div>{marks}</div></div></div>'
    )


def _lane(name: str, units: Sequence[tuple[float, float]], style: str, duration: float) -> str:
    blocks = "".join(
        f'<i style="left:{100 * start / duration:.2f}%;width:{100 * (end - start) / duration:.2f}%" '
        f'title="{start:.2f} to {end:.2f} s"></i>'
        for start, end in units
    )
    return f'<div class="lane {style}"><span>{escape(name)}</span><div>{blocks}</div></div>'
