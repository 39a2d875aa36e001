"""The tables and the page of a voice's evaluation on texts without recordings."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from csm.evaluation.core.report import Cell, Report, Table
from csm.evaluation.page.definitions import definitions, footer
from csm.evaluation.page.figures import Column, entries_of, failures, figures, quantile_cells, table_html
from csm.evaluation.page.gallery import CHIPS, NOTE, ConditionLook, Gallery, first_clips
from csm.evaluation.subjects.texts import EvaluatedTexts
from csm.evaluation.subjects.voice_speech import GENERATED
from csm.report.page import page_text, save_page

COLUMNS = (
    Column("wer", "WER", "lower", 3),
    Column("distillmos", "distillMOS", "higher", 2),
    Column("cut_off", "cut off", "lower", 2),
)
TIMES = (("first_sound", "first sound, s"), ("rtf", "real-time factor"))
LOOKS = {GENERATED: ConditionLook(title="Generated", tone="generated")}


def texts_tables(report: Report) -> list[Table]:
    """Makes the tables: words and sound of each voice, and times; those without rows are left out."""
    speakers = report.details["texts"]["speakers"]
    rows, times, evaluator = [], [], ""
    for name in speakers:
        entries = entries_of(report, name, GENERATED)
        if row := figures(entries, COLUMNS):
            rows.append((Cell(name), *row))
        for metric, title in TIMES:
            if (entry := entries.get(metric)) is not None:
                evaluator = entry.evaluator
                counts = Cell(str(entry.n_ok)), Cell(str(entry.n_failed))
                times.append((Cell(name), Cell(title), *quantile_cells(entry), *counts))
    note = "Below each figure its 95 % bootstrap interval over lines; there are no recordings of them."
    header = ("voice", *(column.head for column in COLUMNS), "N", "failed")
    said = Table("Lines without recordings", header, rows, note, 1)
    heads = ("voice", "time", "p50", "p90", "p99", "N", "failed")
    waited = Table("Latency", heads, times, f"{evaluator[:1].upper()}{evaluator[1:]}.", 2)
    return [table for table in (said, waited) if table.rows]


def write_texts_page(folder: Path, evaluated: EvaluatedTexts, players: int) -> Path:
    """Writes report.html into the folder and returns its path.

    Args:
        folder: Folder of the evaluation.
        evaluated: The report and its clips.
        players: Most lines of a voice with a player.
    """
    report, texts = evaluated.report, evaluated.report.details["texts"]
    shown = first_clips(list(evaluated.sets), players)
    gallery = Gallery.of(report, shown, LOOKS, CHIPS[1:2])
    parts = [
        (f"table_{place}", escape(table.title), table_html(table))
        for place, table in enumerate(texts_tables(report))
    ]
    for place, one in enumerate(shown):
        if one.clips:
            note = f'<p class="note">{len(one.clips)} of {texts["lines"]} lines. {NOTE}.</p>'
            cards = [gallery.card([one], number) for number in range(len(one.clips))]
            parts.append((f"voice_{place}", f"Listen: {escape(one.group)}", note + "".join(cards)))
    parts.append(("evaluators", "Evaluators", definitions(report, failures(report, {}))))
    summary = (
        f"{texts['lines']} lines of {escape(texts['file'])}, each spoken in a conversation of its own by "
        f"{escape(', '.join(texts['speakers']))}.{_how(texts)}"
    )
    title = f"Voice report: {escape(report.run)}"
    return save_page(folder, page_text(title, summary, parts, footer(report)))


def _how(texts: dict[str, Any]) -> str:
    """Says with which settings the lines were spoken."""
    sampling = texts["sampling"]
    said = f" Temperature {sampling['temperature']:g}, guidance {sampling['guidance']:g}."
    if texts["candidates"] > 1:
        said += f" The best of {texts['candidates']} renditions as read by the {texts['reader']}."
    return said
