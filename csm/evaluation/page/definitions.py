"""The last section of a page: what is missing, and definition and evaluator of each metric."""

from __future__ import annotations

from html import escape

from csm.evaluation.core.report import Entry, Report
from csm.report.tables import Cell, Column, table

COLUMNS = tuple(Column(head=head, numeric=False) for head in ("Metric", "Definition", "Evaluator"))


def definitions(report: Report, failures: list[str] | None = None) -> str:
    """Writes what failed, what is missing and why, and what each metric means."""
    entries: dict[str, Entry] = {entry.name: entry for entry in report.metrics}
    rows: list[list[Cell | str]] = [
        [
            entry.title,
            entry.definition,
            Cell(text=entry.evaluator, notes=(f"{entry.sample_rate} Hz",) if entry.sample_rate else ()),
        ]
        for entry in entries.values()
    ]
    lists = _listed("Failed", failures or []) + _listed("Missing", [one.reason for one in report.missing])
    return lists + table(COLUMNS, rows, caption="Metrics and evaluators")


def footer(report: Report) -> str:
    """Writes what the figures depend on."""
    return (
        f"Seed {report.seed}, {report.repeats} bootstrap repeats. The evaluators ran on "
        f"{escape(report.hardware)}. The figures are in report.json."
    )


def _listed(title: str, reasons: list[str]) -> str:
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return f'<h3>{title}</h3><ul class="plain">{items}</ul>' if items else ""
