"""The tables and the page of an evaluation of pronunciation."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from csm.evaluation.core.metric import Score
from csm.evaluation.core.report import Cell, Entry, Report, Table
from csm.evaluation.core.statistics import by_conversation
from csm.evaluation.metrics.known_pronunciations import GROUP
from csm.evaluation.page.definitions import definitions, footer
from csm.evaluation.page.figures import Column, failures, figure, table_html
from csm.report.page import page_text, save_page

SHARE = Column("", "share right", "higher", 2)
SHARES, WORDS = "Pronunciation", "Word by word"


def pronunciation_tables(report: Report) -> list[Table]:
    """Makes the tables: the shares, and which words they are made of."""
    rows: list[tuple[Cell, ...]] = []
    for one in report.metrics:
        numbers = (Cell("0.50"), Cell(str(one.n_in)), Cell(str(one.n_failed)))
        rows.append((Cell(one.group), Cell(one.condition), figure(SHARE, one), *numbers))
    note = (
        "Below each share its 95 % bootstrap interval over words, of known speech over conversations. Known "
        "speech: recordings with one phone of a word exchanged, whose own phones must be the likelier ones; "
        "another recording with the same words shows what the phones alone decide. Chance: one pronunciation "
        "for both readings of a word. A word said before: both turns are the voice's own, in one "
        "conversation. A word given before: the first turn is spelled as each pronunciation sounds."
    )
    header = ("test", "condition", SHARE.head, "chance", "N", "failed")
    shares = Table(SHARES, header, rows, note, 2)
    words = [row for one in report.metrics if one.group != GROUP for row in _words(one)]
    listed = Table(WORDS, ("test", "word", "right", "of", "what was said"), words, "", 2)
    return [table for table in (shares, listed) if table.rows]


def _words(entry: Entry) -> list[tuple[Cell, ...]]:
    return [
        (
            Cell(entry.group),
            Cell(scores[0].conversation),
            Cell(str(sum(score.value == 1.0 for score in scores))),
            Cell(str(len(scores))),
            Cell(_said(scores)),
        )
        for scores in by_conversation(entry.values)
    ]


def _said(scores: Sequence[Score]) -> str:
    return "; ".join((score.detail or score.reason or "").partition(" as ")[2] or "-" for score in scores)


def write_pronunciation_page(folder: Path, report: Report) -> Path:
    """Writes report.html into the folder and returns its path."""
    parts = [
        (name, table.title, table_html(table))
        for name, table in zip(("shares", "words"), pronunciation_tables(report), strict=False)
    ]
    parts.append(("definitions", "Definitions", definitions(report, failures(report, {}))))
    summary = (
        f"How {escape(report.run)} reads homographs, which their sentence decides, and whether it says a "
        f"word with two common pronunciations as the conversation said it. The lines are in speech."
    )
    title = f"Pronunciation report: {escape(report.run)}"
    return save_page(folder, page_text(title, summary, parts, footer(report)))
