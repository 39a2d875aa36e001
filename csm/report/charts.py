"""Small charts as inline SVG: they take their colours from the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 30


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one line; ``style`` is a class of the page's style sheet."""

    label: str
    points: Sequence[Point]
    style: str
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The plotting area and the mapping from values to pixels."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, value: float) -> float:
        """Horizontal pixel of a value."""
        low, high = self.x
        return LEFT + (value - low) / ((high - low) or 1.0) * (self.width - LEFT - RIGHT)

    def py(self, value: float) -> float:
        """Vertical pixel of a value."""
        low, high = self.y
        return self.height - BOTTOM - (value - low) / ((high - low) or 1.0) * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(frame: Frame, x_title: str, y_title: str, *, whole_x: bool = False) -> list[str]:
    bottom = frame.height - BOTTOM
    parts = []
    for value in ticks(*frame.y):
        y = frame.py(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{frame.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    for value in ticks(*frame.x, 5):
        if whole_x and value != round(value):
            continue  # there is no turn 2.5
        x = frame.px(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_short(value)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{frame.width - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle = (LEFT + frame.width - RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle:.0f}" y="{frame.height - 3}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
    )
    if y_title:
        parts.append(f'<text class="tick" x="{LEFT}" y="{TOP - 1}">{escape(y_title)}</text>')
    return parts


def _short(value: float) -> str:
    if abs(value) >= 1000 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _svg(frame: Frame, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'
    )


def bounds(values: Sequence[float], *, margin: float = 0.06) -> tuple[float, float]:
    """Range of the values with a margin; one value gets a range of its own."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    return low - room, high + room


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str = "",
    y_title: str = "",
    width: int = 360,
    height: int = 200,
    y: tuple[float, float] | None = None,
    whole_x: bool = False,
) -> str:
    """Lines, with dots where a series asks for them; empty text without any point."""
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    frame = Frame(
        width=width,
        height=height,
        x=bounds([x for x, _ in points], margin=0.02),
        y=y or bounds([value for _, value in points]),
    )
    parts = _axes(frame, x_title, y_title, whole_x=whole_x)
    for one in series:
        shown = [(frame.px(a), min(max(frame.py(b), TOP), height - BOTTOM)) for a, b in one.points]
        path = " ".join(f"{x:.1f},{v:.1f}" for x, v in shown)
        parts.append(f'<polyline class="line {one.style}" points="{path}"/>')
        if one.dots:
            parts += [f'<circle class="dot {one.style}" cx="{x:.1f}" cy="{v:.1f}" r="3"/>' for x, v in shown]
    return _svg(frame, parts, title)


def histogram(
    groups: Sequence[tuple[str, Sequence[float]]],
    *,
    title: str,
    low: float,
    high: float,
    width_of_bin: float,
    x_title: str,
    width: int = 720,
    height: int = 240,
) -> str:
    """Shares per bin of several sets side by side in each bin; values outside fall into the end bins."""
    count = round((high - low) / width_of_bin)
    shares = []
    for style, values in groups:
        bins = [0.0] * count
        for value in values:
            place = int((min(max(value, low), high - 1e-9) - low) // width_of_bin)
            bins[place] += 1.0 / len(values)
        shares.append((style, bins))
    top = max((share for _, bins in shares for share in bins), default=1.0) or 1.0
    frame = Frame(width=width, height=height, x=(low, high), y=(0.0, top * 1.08))
    parts = _axes(frame, x_title, "share")
    step = (frame.px(low + width_of_bin) - frame.px(low)) / (len(shares) or 1)
    for place, (style, bins) in enumerate(shares):
        for number_of_bin, share in enumerate(bins):
            if share:
                x = frame.px(low + number_of_bin * width_of_bin) + place * step
                y = frame.py(share)
                parts.append(
                    f'<rect class="bar {style}" x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(step - 1, 1):.1f}" '
                    f'height="{frame.py(0) - y:.1f}"/>'
                )
    zero = frame.px(0.0)
    parts.append(f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    return _svg(frame, parts, title)


def bar_chart(
    values: Sequence[float],
    *,
    title: str,
    styles: Sequence[str],
    labels: Sequence[str],
    top: float,
    x_title: str,
    y_title: str,
    width: int = 720,
    height: int = 220,
) -> str:
    """One bar a value, with its label as a tooltip."""
    frame = Frame(width=width, height=height, x=(-0.6, len(values) - 0.4), y=(0.0, top))
    parts = _axes(frame, x_title, y_title)
    size = (frame.px(1) - frame.px(0)) * 0.76
    for place, (value, style, label) in enumerate(zip(values, styles, labels, strict=True)):
        y = frame.py(min(value, top))
        parts.append(
            f'<rect class="bar {style}" x="{frame.px(place) - size / 2:.1f}" y="{y:.1f}" width="{size:.1f}" '
            f'height="{frame.py(0) - y:.1f}"><title>{escape(label)}</title></rect>'
        )
    return _svg(frame, parts, title)


def timeline(
    lanes: Sequence[tuple[str, Sequence[tuple[float, float]], str]], duration: float, *, title: str
) -> str:
    """Speech of each speaker as blocks on a lane of its own: (name, (start, end) in seconds, style)."""
    width, lane = 980, 22
    height = lane * len(lanes) + 18
    left = 90

    def place(second: float) -> float:
        return left + second / duration * (width - left - 8)

    parts = []
    for second in ticks(0.0, duration, 8):
        x = place(second)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 16}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 4}" text-anchor="middle">{second:g} s</text>'
        )
    for row, (name, units, style) in enumerate(lanes):
        y = row * lane + 3
        parts.append(f'<text class="tick name" x="0" y="{y + 12}">{escape(name[:12])}</text>')
        for start, end in units:
            parts.append(
                f'<rect class="bar {style}" x="{place(start):.1f}" y="{y}" rx="2" height="{lane - 6}" '
                f'width="{max(place(end) - place(start), 1):.1f}">'
                f"<title>{start:.2f} to {end:.2f} s</title></rect>"
            )
    return (
        f'<svg class="chart timeline" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'
    )
