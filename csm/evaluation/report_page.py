"""The frame of a page: one file with style, navigation and script inside, that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csm.evaluation.report_style import SCRIPT, STYLE
from csm.system.files import write_atomically


def page_text(title: str, summary: str, parts: Sequence[tuple[str, str, str]], footer: str) -> str:
    """The whole page.

    Args:
        title, summary, footer: HTML, escaped already.
        parts: (anchor, heading, HTML) of the sections; those without a body are left out.
    """
    shown = [(anchor, heading, body) for anchor, heading, body in parts if body]
    links = "".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _ in shown)
    sections = "".join(
        f'<section id="{anchor}"><h2>{heading}</h2>{body}</section>' for anchor, heading, body in shown
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f'<header><h1>{title}</h1><p class="note">{summary}</p></header>'
        f"<nav><div>{links}</div></nav><main>{sections}</main>"
        f"<footer>{footer}</footer>"
        f"<script>{SCRIPT}</script></body></html>"
    )


def save_page(folder: Path, page: str) -> Path:
    """Writes ``report.html`` into the folder, whole or not at all, and returns its path."""
    target = folder / "report.html"
    write_atomically(target, page)
    return target
