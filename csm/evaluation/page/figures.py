"""Tables of figures: entries of a report as cells, tables as ASCII for terminals and as HTML for the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from csm.evaluation.core.report import Cell, Entry, Report, Table
from csm.report.numbers import number
from csm.report.tables import Cell as PageCell
from csm.report.tables import Column as PageColumn
from csm.report.tables import table

WIDTH = 110  # characters of a terminal's line of words; figures take what they need
WITHHELD = "* mean of the clips with a score; no fair mean exists, because others failed"
FAIR = (
    "Mean and 95 % bootstrap interval over conversations. A failed clip counts at the worst end of the "
    "scale; where a scale has no end, the mean is withheld, so that a missing clip improves nothing."
)


class Column(NamedTuple):
    """A metric as a column of a table.

    Attributes:
        name: Name of the metric. head: Heading of the column.
        better: "lower", "higher", "nearer 1" or "nearer 0".
        places: Decimals; the same in a whole column, so that its rows compare at a glance.
    """

    name: str
    head: str
    better: str
    places: int


def figure(column: Column, entry: Entry | None, *, signed: bool = False) -> Cell:
    """Makes the cell of an entry: its mean, and below it its interval."""
    if entry is None:
        return Cell("-")
    form = f"{'+' if signed else ''}.{column.places}f"
    below = "" if entry.ci95 is None else " to ".join(format(value, form) for value in entry.ci95)
    if entry.mean is None:
        some = entry.mean_of_scored
        return Cell("-" if some is None else format(some, form) + "*", below)
    return Cell(format(entry.mean, form), below)


def figures(entries: dict[str, Entry], columns: Sequence[Column]) -> tuple[Cell, ...]:
    """Makes the cells of a row: a figure for each column, the number of clips and of failures.

    Args:
        entries: Entries of one set by the name of their metric.
        columns: Columns.

    Returns:
        () where the set has no entry in any column.
    """
    known = [entries[column.name] for column in columns if column.name in entries]
    if not known:
        return ()
    cells = [figure(column, entries.get(column.name)) for column in columns]
    size, lost = max(entry.n_in for entry in known), max(entry.n_failed for entry in known)
    return (*cells, Cell(str(size)), Cell(str(lost)))


def entries_of(report: Report, group: str, condition: str) -> dict[str, Entry]:
    """Returns the entries of one set by the name of their metric."""
    return {e.name: e for e in report.metrics if (e.group, e.condition) == (group, condition)}


def failures(report: Report, titles: dict[str, str]) -> list[str]:
    """Lists why clips failed, each reason once for a group and condition, with the number of clips.

    Args:
        report: Report.
        titles: Names of conditions for readers.
    """
    counts: dict[tuple[str, str, str], int] = {}
    for entry in report.metrics:
        for reason, count in entry.failures.items():
            key = (entry.group, entry.condition, reason)
            counts[key] = max(counts.get(key, 0), count)
    return [
        f"{group}, {titles.get(condition, condition)}: {reason} ({count})"
        for (group, condition, reason), count in counts.items()
    ]


def report_text(tables: Sequence[Table], report: Report, titles: dict[str, str] | None = None) -> str:
    """Writes tables in ASCII, then what failed and what is missing."""
    lines = [f"failed: {reason}" for reason in failures(report, titles or {})]
    lines += [f"missing: {missing.reason}" for missing in report.missing]
    text = "\n\n".join([*map(table_text, tables), "\n".join(lines)]).rstrip()
    if "*" in text:
        text += f"\n{WITHHELD}"
    return text.encode("ascii", "replace").decode()


def table_text(shown: Table) -> str:
    """Writes a table in ASCII, with its title above and its note below."""
    rows = [shown.header]
    for row in shown.rows:
        rows.append(tuple(cell.text for cell in row))
        if any(cell.below for cell in row):
            rows.append(tuple(cell.below for cell in row))
    widths = [max(len(row[place]) for row in rows) for place in range(len(shown.header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    note = textwrap.fill(shown.note, WIDTH)
    text = "\n".join([shown.title, *(line.rstrip() for line in lines), *([note] if note else [])])
    return text.encode("ascii", "replace").decode()


def table_html(shown: Table) -> str:
    """Writes a table for the page, without its title; empty without rows."""
    note = f'<p class="note">{escape(shown.note)}</p>' if shown.note else ""
    if not shown.rows:
        return note
    columns = [PageColumn(head=head, numeric=place >= shown.words) for place, head in enumerate(shown.header)]
    rows = [[PageCell(text=cell.text, interval=cell.below) for cell in row] for row in shown.rows]
    return note + table(columns, rows, caption=shown.title)


def quantile_cells(entry: Entry) -> tuple[Cell, ...]:
    """Makes the cells of an entry's median with its interval, 90th and 99th percentile."""
    found = entry.quantiles or {}
    below = "" if entry.median_ci95 is None else " to ".join(map(number, entry.median_ci95))
    return (
        Cell(number(found.get("p50")), below),
        Cell(number(found.get("p90"))),
        Cell(number(found.get("p99"))),
    )
