"""The frame of a page: one file with style, list of contents and script inside, which fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from csm.report.players import PAUSE, PLAY
from csm.system.files import write_atomically

STYLES = ("page.css", "tables.css", "charts.css", "players.css")
SCRIPTS = ("page.js", "players.js")
SPEEDS = (0.5, 0.75, 1, 1.25, 1.5, 2)


def page_text(title: str, summary: str, parts: Sequence[tuple[str, str, str]], footer: str) -> str:
    """Returns the whole page.

    Args:
        title, summary, footer: HTML, escaped already.
        parts: (anchor, heading, HTML) of each section, the summary first; those without HTML are left out.
    """
    shown = [(anchor, heading, body) for anchor, heading, body in parts if body]
    links = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading, _ in shown)
    sections = "".join(
        f'<section id="{anchor}"><h2>{heading}</h2>{body}</section>' for anchor, heading, body in shown
    )
    bar = _player_bar() if 'class="player ' in sections else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_assets(STYLES)}</style>"
        "<noscript><style>.player audio{display:block}.player>:not(audio){display:none}</style></noscript>"
        '</head><body id="top"><a class="skip" href="#content">Skip to the content</a>'
        f'<header><h1>{title}</h1><p class="note">{summary}</p></header>'
        f'<div class="layout"><nav aria-label="Contents"><ol>{links}</ol></nav>'
        f'<main id="content">{sections}</main></div><footer>{footer}</footer>'
        '<a class="up" href="#top" aria-label="Back to top" title="Back to top">&uarr;</a>'
        f"{bar}<script>{_assets(SCRIPTS)}</script></body></html>"
    )


def folded(summary: str, body: str, *, opened: bool = False) -> str:
    """Returns HTML under a line that folds and unfolds it; empty without HTML."""
    if not body:
        return ""
    return f"<details{' open' if opened else ''}><summary>{summary}</summary>{body}</details>"


def save_page(folder: Path, page: str) -> Path:
    """Writes `report.html` into the folder, whole or not at all, and returns its path."""
    target = folder / "report.html"
    write_atomically(target, page)
    return target


def _assets(names: Sequence[str]) -> str:
    return "".join(files("csm.report").joinpath(name).read_text(encoding="utf-8") for name in names)


def _player_bar() -> str:
    """The bar at the lower edge, hidden until a clip plays."""
    speeds = "".join(
        f'<option value="{speed}"{" selected" if speed == 1 else ""}>{speed} x</option>' for speed in SPEEDS
    )
    return (
        '<div class="transport" role="region" aria-label="Player" hidden>'
        f'<button type="button" class="toggle" aria-label="Play">{PLAY}{PAUSE}</button>'
        '<p class="now"></p><div class="switch" role="group" aria-label="Version, keys 1 to 9"></div>'
        f'<label>Speed <select class="speed">{speeds}</select></label>'
        '<label>Volume <input class="volume" type="range" min="0" max="1" step="0.05" value="1"></label>'
        '<button type="button" class="loop" aria-pressed="false">Loop</button>'
        '<button type="button" class="close" aria-label="Close the player">&times;</button></div>'
    )
