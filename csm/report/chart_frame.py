"""Axes of charts: the plotting area, round ticks and axis titles, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 8, 20


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The plotting area and the mapping from values to pixels.

    Attributes:
        width, height: Size of the whole chart in pixels of its own.
        x, y: Lowest and highest value of each axis.
    """

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, value: float) -> float:
        """Returns the horizontal pixel of a value."""
        low, high = self.x
        return LEFT + (value - low) / ((high - low) or 1.0) * (self.width - LEFT - RIGHT)

    def py(self, value: float) -> float:
        """Returns the vertical pixel of a value."""
        low, high = self.y
        return self.height - BOTTOM - (value - low) / ((high - low) or 1.0) * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Returns about `count` round numbers inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def bounds(values: Sequence[float], *, margin: float = 0.06) -> tuple[float, float]:
    """Returns the range of the values with a margin; equal values get 10 % of their size on each side."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    return low - room, high + room


def axes(frame: Frame, *, whole_x: bool = False) -> list[str]:
    """Returns grid lines and tick labels; `whole_x` labels whole numbers only on the x axis."""
    parts = [_y_tick(frame, value) for value in ticks(*frame.y)]
    bottom = frame.height - BOTTOM
    for value in ticks(*frame.x, 5):
        if not whole_x or value == round(value):
            parts.append(_text(frame.px(value), bottom + 14, tick_text(value), "middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{frame.width - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    return parts


def tick_text(value: float) -> str:
    """Returns the label of a tick: 0.25, 1,500, 20k."""
    if abs(value) >= 10_000 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def picture(frame: Frame, parts: Sequence[str], *, title: str, x_title: str = "", y_title: str = "") -> str:
    """Returns the whole chart.

    Args:
        frame: The plotting area.
        parts: SVG elements.
        title: Accessible name.
        x_title, y_title: Axis titles with units; they stand outside the picture, where long ones wrap.
    """
    return (
        (f'<p class="axis-title">{escape(y_title)}</p>' if y_title else "")
        + f'<svg class="chart" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'
        + (f'<p class="axis-title x">{escape(x_title)}</p>' if x_title else "")
    )


def _y_tick(frame: Frame, value: float) -> str:
    y = frame.py(value)
    line = f'<line class="grid" x1="{LEFT}" x2="{frame.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 6, y + 4, tick_text(value), "end")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
