"""The tables of a voice's report, for terminals and for the page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from csm.evaluation.codec_tables import Column, Entry, extra_text
from csm.evaluation.voice_changes import AGAINST
from csm.evaluation.voice_lines import CONVERSATION, MAIN, OTHERS, UNSEEN
from csm.evaluation.voice_material import RECORDING, RESYNTHESIS
from csm.evaluation.voice_speech import CROSS_OFF, GENERATED, IN_CONTEXT, INT8, MEMORY_OFF, SEMANTIC
from csm.report.numbers import number

COLUMNS = (
    Column("wer", "WER", "lower", 3),
    Column("speaker_similarity", "voice", "higher", 3),
    Column("speaker_nearest_is_own", "nearest", "higher", 2),
    Column("distillmos", "distillMOS", "higher", 2),
    Column("length_median", "length", "nearer 1", 2),
    Column("length_near", "within 20 %", "higher", 2),
    Column("ended_wrong", "cut, ran on", "lower", 2),
)
CHANGED = (COLUMNS[0], COLUMNS[1], COLUMNS[3])
WAITS = (("first_chunk", "first chunk, s"), ("first_sound", "first sound, s"), ("rtf", "real-time factor"))
WIDTH = 110  # of a terminal's line of words; figures take what they need
TITLES = {
    IN_CONTEXT: "in context",
    MEMORY_OFF: "in context, memory off",
    CROSS_OFF: "cross-attention off",
    SEMANTIC: "semantic codebooks only",
    INT8: "int8 weights",
}


class Cell(NamedTuple):
    """A value and what stands below it, its interval."""

    text: str
    below: str = ""


class Table(NamedTuple):
    """A table with finished cells, as many a row as `header` has.

    Attributes:
        title: What it shows. header: One name a column. rows: Top to bottom.
        words: Columns from the left that hold words and no figures.
        note: How it was measured, and what it does not show.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    words: int
    note: str


Found = dict[tuple[str, str, str], Entry]


def voice_tables(report: Mapping[str, Any]) -> list[Table]:
    """The groups, the other versions of the main voice's lines, the conversation, and the waits."""
    found: Found = {(one["subset"], one["condition"], one["name"]): one for one in report["metrics"]}
    tables = [_groups(report, found), _versions(report, found), _conversation(report, found), _waits(found)]
    return [table for table in tables if table.rows]


def _groups(report: Mapping[str, Any], found: Found) -> Table:
    rows = []
    for group in (MAIN, OTHERS, UNSEEN):
        for version in (RECORDING, RESYNTHESIS, GENERATED):
            if row := _row(found, group, version, COLUMNS):
                rows.append((Cell(group if version == RECORDING else ""), Cell(version), *row))
    voice = report["details"]["voice"]
    note = (
        f"Below each figure its 95 % bootstrap interval over conversations. The main voice is "
        f"{voice['main']}; other voices are those of its {voice['voices'] - 1} others that have test lines; "
        f"unseen speakers lend theirs by a prompt of up to 10 s. Resynthesis is from the codes alone, of "
        f"{voice['codebooks']} codebooks. voice: cosine to the mean of the speaker's train recordings (for "
        f"unseen speakers of the prompt). length: median of the generated over the recorded."
    )
    header = ("group", "version", *(column.head for column in COLUMNS), "N", "failed")
    return Table("The voice", header, rows, 2, note)


def _versions(report: Mapping[str, Any], found: Found) -> Table:
    rows = []
    for version in (GENERATED, *AGAINST):
        row = _row(found, MAIN, version, (*CHANGED, COLUMNS[-1]))
        if not row:
            continue
        cells = []
        for column, figure in zip(CHANGED, row, strict=False):
            change = found.get((MAIN, version, f"{column.name}_change"))
            cells += [figure, _figure(column, change, signed=True)]
        against = AGAINST.get(version, "-")
        named = Cell(TITLES.get(version, version)), Cell(TITLES.get(against, against))
        rows.append((*named, *cells, *row[len(CHANGED) :]))
    voice = report["details"]["voice"]
    note = report["details"]["ablations"]
    if voice["lines_in_context"]:
        note += (
            f" In context, a line is spoken after the turns that precede it in its conversation. What fits "
            f"into {voice['max_context']} rows is heard exactly and only older turns are in the memory: in "
            f"{voice['lines_with_memory']} of {voice['lines_in_context']} lines it held any."
        )
    heads = [name for column in CHANGED for name in (column.head, "change")]
    header = ("version", "against", *heads, COLUMNS[-1].head, "N", "failed")
    shown = rows if len(rows) > 1 else []
    return Table("Other versions of the main voice's lines", header, shown, 2, note.strip())


def _conversation(report: Mapping[str, Any], found: Found) -> Table:
    slope = Column("character_drift", "slope a turn", "nearer 0", 4)
    rows = []
    for version in (RECORDING, RESYNTHESIS, GENERATED):
        if row := _row(found, CONVERSATION, version, COLUMNS):
            entry = found.get((CONVERSATION, version, slope.name))
            turns = "-" if entry is None else str(entry["n_ok"])
            rows.append((Cell(version), _figure(slope, entry, signed=True), Cell(turns), *row))
    note = (
        f"The test conversation with most turns in a row between known voices; its first turns, spoken in "
        f"one session. Slope: of the similarity of {report['details']['voice']['main']} over that many "
        f"turns. One conversation says nothing about how conversations differ: the other figures have no "
        f"interval."
    )
    header = ("version", slope.head, "turns", *(column.head for column in COLUMNS), "N", "failed")
    return Table("A conversation", header, rows, 1, note)


def _waits(found: Found) -> Table:
    rows = []
    evaluator = ""
    for version in (GENERATED, INT8):
        for name, title in WAITS:
            entry = found.get((MAIN, version, name))
            if entry is None:
                continue
            evaluator = entry["evaluator"]
            quantiles = entry.get("quantiles") or {}
            shown = [Cell(number(quantiles.get(key))) for key in ("p50", "p90", "p99")]
            counts = Cell(str(entry["n_ok"])), Cell(str(entry["n_failed"]))
            rows.append((Cell(TITLES.get(version, version)), Cell(title), *shown, *counts))
    note = (
        f"Lines of the main voice, {evaluator}. First sound: the chunk with the first sample above -40 dB of "
        f"the line's peak has come; first chunk: it may be silent."
    )
    return Table("The wait", ("version", "time", "p50", "p90", "p99", "N", "failed"), rows, 2, note)


def _row(found: Found, group: str, version: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
    """The figures of a set, the number of its lines and of those that failed; () without any figure."""
    entries = [found.get((group, version, column.name)) for column in columns]
    known = [entry for entry in entries if entry is not None]
    if not known:
        return ()
    figures = [_figure(column, entry) for column, entry in zip(columns, entries, strict=True)]
    size = max(entry["n_in"] for entry in known)
    return (*figures, Cell(str(size)), Cell(str(max(entry["n_failed"] for entry in known))))


def _figure(column: Column, entry: Entry | None, *, signed: bool = False) -> Cell:
    if entry is None:
        return Cell("-")
    form = f"{'+' if signed else ''}.{column.places}f"
    below = "" if entry["ci95"] is None else " to ".join(format(value, form) for value in entry["ci95"])
    if entry["mean"] is None:
        judged = entry["mean_of_judged"]
        return Cell("-" if judged is None else format(judged, form) + "*", below)
    return Cell(format(entry["mean"], form), below)


def failures(report: Mapping[str, Any]) -> list[str]:
    """Why lines failed, each reason once for a group and version, with the number of lines."""
    counts: dict[tuple[str, str, str], int] = {}
    for entry in report["metrics"]:
        for reason, count in entry["failures"].items():
            key = (entry["subset"], entry["condition"], reason)
            counts[key] = max(counts.get(key, 0), count)
    return [
        f"{group}, {TITLES.get(version, version)}: {reason} ({count})"
        for (group, version, reason), count in counts.items()
    ]


def tables_text(report: Mapping[str, Any]) -> str:
    """All tables in ASCII, then what failed and what is missing."""
    blocks = []
    for table in voice_tables(report):
        rows = []
        for row in table.rows:
            rows.append(tuple(cell.text for cell in row))
            if any(cell.below for cell in row):
                rows.append(tuple(cell.below for cell in row))
        note = textwrap.fill(table.note, WIDTH)
        shown = {"title": table.title, "header": table.header, "rows": rows, "note": note}
        blocks.append(extra_text([shown]))
    lines = [f"failed: {reason}" for reason in failures(report)]
    lines += [f"missing: {missing['reason']}" for missing in report["missing"]]
    text = "\n\n".join([*blocks, "\n".join(lines)]).rstrip()
    if "*" in text:
        text += "\n* of the lines that were judged; no fair mean exists, because others failed"
    return text.encode("ascii", "replace").decode()


def tables_html(tables: Sequence[Table]) -> str:
    """Tables for the page, without their titles."""
    blocks = []
    for table in tables:
        head = "".join(
            f"<th{_kind(place, table)}>{escape(name)}</th>" for place, name in enumerate(table.header)
        )
        body = "".join(
            "<tr>" + "".join(_cell(cell, place, table) for place, cell in enumerate(row)) + "</tr>"
            for row in table.rows
        )
        note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
        blocks.append(f'{note}<div class="scroll"><table><tr>{head}</tr>{body}</table></div>')
    return "".join(blocks)


def _cell(cell: Cell, place: int, table: Table) -> str:
    below = f"<small>{escape(cell.below)}</small>" if cell.below else ""
    return f"<td{_kind(place, table)}>{escape(cell.text)}{below}</td>"


def _kind(place: int, table: Table) -> str:
    return "" if place < table.words else ' class="n"'
