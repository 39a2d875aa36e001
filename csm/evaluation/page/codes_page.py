"""The page of an evaluation of codes: one table after the other."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from csm.evaluation.core.report import Report
from csm.evaluation.page.definitions import definitions, footer
from csm.evaluation.page.figures import table_html
from csm.report.page import page_text, save_page


def write_codes_page(folder: Path, report: Report) -> Path:
    """Writes report.html into the folder and returns its path."""
    parts = [
        (re.sub(r"[^a-z]+", "-", table.title.lower()).strip("-"), table.title, table_html(table))
        for table in report.tables
    ]
    if report.missing:
        parts.append(("missing", "Missing", definitions(report)))
    corpus = f" on {escape(report.corpus)}" if report.corpus else ""
    summary = (
        f"What probes of ours read from the codes of {escape(report.run)}{corpus}: phones, words and "
        f"speakers, each beside what guessing reaches, and where a recogniser is installed beside what its "
        f"unquantized features carry."
    )
    return save_page(folder, page_text(f"Codes report: {escape(report.run)}", summary, parts, footer(report)))
