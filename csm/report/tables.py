"""Tables with intervals under the values, which fold to one card per row on screens under 600 px."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from csm.report.numbers import Format, Interval, interval, number


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        head: Name of the column; the label of its cells on cards.
        note: Small text below the name, such as the unit or the better direction.
        numeric: Whether the cells are aligned right.
    """

    head: str
    note: str = ""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table; all fields are plain text.

    Attributes:
        text: Main text; an empty cell, and one of a dash alone, are left out on cards.
        interval: Both ends of the value's interval, shown below it.
        notes: Further small lines.
        bad: Whether the text takes the colour of errors.
    """

    text: str
    interval: str = ""
    notes: tuple[str, ...] = ()
    bad: bool = False

    @classmethod
    def of(
        cls,
        value: float | None,
        ends: Interval | None = None,
        *,
        form: Format = number,
        notes: tuple[str, ...] = (),
    ) -> Cell:
        """Returns the cell of a value with its interval; a dash for None."""
        return cls(text="-" if value is None else form(value), interval=interval(ends, form), notes=notes)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], *, caption: str) -> str:
    """Returns a table whose first column names the rows.

    Args:
        columns: Columns from left to right.
        rows: One cell a column; plain text is a cell without notes.
        caption: Name of the table for screen readers.

    Raises:
        ValueError: A row has more or fewer cells than there are columns.
    """
    head = "".join(_head(column) for column in columns)
    body = "".join(_row(columns, row) for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption, quote=True)}">'
        f'<table class="fold" role="table"><caption>{escape(caption)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _head(column: Column) -> str:
    note = f"<small>{escape(column.note)}</small>" if column.note else ""
    return f'<th scope="col" role="columnheader"{_aligned(column)}>{escape(column.head)}{note}</th>'


def _row(columns: Sequence[Column], row: Sequence[Cell | str]) -> str:
    if len(row) != len(columns):
        raise ValueError(f"row has {len(row)} cells: expected {len(columns)}, one a column")
    cells = [Cell(text=cell) if isinstance(cell, str) else cell for cell in row]
    first = f'<th scope="row" role="rowheader">{_content(cells[0])}</th>'
    rest = (_cell(column, cell) for column, cell in zip(columns[1:], cells[1:], strict=True))
    return f'<tr role="row">{first}{"".join(rest)}</tr>'


def _cell(column: Column, cell: Cell) -> str:
    content = _content(cell)
    content = f"<div>{content}</div>" if content else ""
    label = f' data-label="{escape(column.head, quote=True)}"'
    none = cell == Cell(text="-")
    return f'<td role="cell"{_aligned(column, bad=cell.bad, none=none)}{label}>{content}</td>'


def _content(cell: Cell) -> str:
    parts = [f"<span>{escape(cell.text)}</span>"] if cell.text else []
    parts += [f'<small class="interval">{escape(cell.interval)}</small>'] if cell.interval else []
    parts += [f"<small>{escape(note)}</small>" for note in cell.notes if note]
    return "".join(parts)


def _aligned(column: Column, *, bad: bool = False, none: bool = False) -> str:
    names = ["n"] * column.numeric + ["bad"] * bad + ["none"] * none
    return f' class="{" ".join(names)}"' if names else ""
