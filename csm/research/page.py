"""The page of a question: verdict and rule, the claims, the figures, and what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from csm.evaluation.core.evaluators import hardware
from csm.evaluation.core.report import Cell, Entry, Table
from csm.evaluation.page.figures import FAIR, table_html, table_text
from csm.report.numbers import number
from csm.report.page import page_text, save_page
from csm.research.answer import RESULTS_FILE, Answer
from csm.research.verdict import RULE, Verdict

PLACES = 3


def claims_table(found: Answer) -> Table:
    """Makes the table of claims, with the verdict on each."""
    header = ("claim", "verdict", "better by", "smallest that counts", "p", "seeds, conversations, clips")
    rows: list[tuple[Cell, ...]] = [_claim_row(verdict) for verdict in found.verdicts]
    return Table("Claims", header, rows, "Positive: the arm that is claimed to be better is.", words=2)


def _claim_row(verdict: Verdict) -> tuple[Cell, ...]:
    claim = verdict.claim
    arms = f"{claim.metric}: {claim.arm} against {claim.against}"
    ends = "" if verdict.interval is None else " to ".join(f"{end:+.{PLACES}f}" for end in verdict.interval)
    difference = "-" if verdict.difference is None else f"{verdict.difference:+.{PLACES}f}"
    return (
        Cell(claim.text, arms),
        Cell(verdict.decision, verdict.reason),
        Cell(difference, ends),
        Cell(f"{claim.least:g}"),
        Cell("-" if verdict.p is None else f"{verdict.p:.3f}"),
        Cell(f"{verdict.seeds}, {verdict.conversations}, {verdict.clips}"),
    )


def figures_table(found: Answer) -> Table:
    """Makes the table of all metrics, one row an arm, one column a metric."""
    names = list(dict.fromkeys(entry.name for entry in found.entries))
    arms = list(dict.fromkeys(entry.group for entry in found.entries))
    cells = {(entry.group, entry.name): _figure(entry) for entry in found.entries}
    rows = [(Cell(arm), *(cells.get((arm, name), Cell("-")) for name in names)) for arm in arms]
    return Table("Figures", ("arm", *names), rows, FAIR)


def _figure(entry: Entry) -> Cell:
    ends = "" if entry.ci95 is None else " to ".join(f"{end:.{PLACES}f}" for end in entry.ci95)
    return Cell("-" if entry.mean is None else f"{entry.mean:.{PLACES}f}", ends)


def trained_table(found: Answer) -> Table:
    """Makes the table of trained models."""
    rows: list[tuple[Cell, ...]] = [
        (Cell(arm.arm), Cell(number(arm.parameters)), Cell(str(arm.steps)), Cell(str(found.seeds)))
        for arm in found.trained
    ]
    note = f"Variants of the recipe {found.base.recipe} on {found.base.corpus}."
    return Table("Trained models", ("arm", "parameters", "steps", "seeds"), rows, note)


def metrics_table(entries: Sequence[Entry]) -> Table:
    """Makes the table of what the metrics mean."""
    known = {entry.name: entry for entry in entries}
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(name),
            Cell(f"{entry.title} ({entry.unit}, {entry.direction} is better)"),
            Cell(entry.definition),
        )
        for name, entry in known.items()
    ]
    return Table("Metrics", ("name", "title", "definition"), rows, words=3)


def answer_text(found: Answer) -> str:
    """Writes claims, figures, what is missing and the verdict in ASCII."""
    parts = [table_text(claims_table(found)), table_text(figures_table(found))]
    parts += [f"missing: {one.section}: {one.reason}" for one in found.missing]
    parts.append(f"{found.question.title} {found.decision.capitalize()}.")
    return "\n\n".join(parts).encode("ascii", "replace").decode()


def write_research_page(folder: Path, found: Answer) -> Path:
    """Writes report.html and returns its path."""
    verdict = f"<p><strong>{escape(found.decision.capitalize())}.</strong></p><p>{escape(RULE)}</p>"
    missing = "".join(f"<li>{escape(one.section)}: {escape(one.reason)}</li>" for one in found.missing)
    parts = [
        ("verdict", "Verdict", verdict),
        ("claims", "Claims", table_html(claims_table(found))),
        ("figures", "Figures", table_html(figures_table(found))),
        ("trained", "Trained models", table_html(trained_table(found)) if found.trained else ""),
        ("metrics", "Metrics", table_html(metrics_table(found.entries))),
        ("missing", "Missing", f'<ul class="plain">{missing}</ul>' if missing else ""),
    ]
    foot = (
        f"Measured on {escape(hardware())}. The figures are in {RESULTS_FILE}, those of clips in measured/."
    )
    page = page_text(escape(found.question.title), escape(found.question.summary), parts, foot)
    return save_page(folder, page)
