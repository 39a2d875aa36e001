"""Tables of a run: every metric in the three conditions, for terminals and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from csm.evaluation.core.comparison import Comparison
from csm.evaluation.core.report import Entry, Reference, Report
from csm.evaluation.page.figures import FAIR, WITHHELD
from csm.evaluation.subjects.speech_folder import CONDITIONS
from csm.report.numbers import interval, number, signed
from csm.report.page import folded
from csm.report.tables import Cell, Column, table

LABELS = {"recording": "Recording", "resynthesis": "Resynthesis", "generated": "Generated"}
BETTER = {"higher": "higher is better", "lower": "lower is better", "none": ""}


def grouped(report: Report) -> dict[tuple[str, str, str], dict[str, Entry]]:
    """Groups entries of the same metric and group of clips: (area, group, name) -> condition -> entry."""
    rows: dict[tuple[str, str, str], dict[str, Entry]] = {}
    for entry in report.metrics:
        rows.setdefault((entry.area, entry.group, entry.name), {})[entry.condition] = entry
    return rows


def run_text(report: Report) -> str:
    """Writes one ASCII line for each metric: its means, the number of clips and of failures."""
    beside = "" if report.reference is None else f"{'reference':>11}{'difference':>12}"
    lines = [
        f"{'metric':<44}{'recording':>11}{'resynthesis':>13}{'generated':>11}{beside}{'N':>7}{'failed':>8}  "
        f"unit"
    ]
    area = ""
    for (this, group, _), entries in grouped(report).items():
        if this != area:
            area = this
            lines.append(f"-- {area} " + "-" * (100 - len(area)))
        last = list(entries.values())[-1]
        cells = [_mean(entries.get(condition)) for condition in CONDITIONS]
        shown = [entries[c] for c in CONDITIONS if c in entries]
        lost = sum(entry.n_failed for entry in shown)
        size = max((entry.n_in for entry in shown), default=0)
        title = f"{last.title} ({group})"
        title = title if len(title) <= 43 else title[:40] + "..."
        compared = _reference_text(report.reference, entries.get("generated"))
        lines.append(
            f"{title:<44}{cells[0]:>11}{cells[1]:>13}{cells[2]:>11}{compared}{size:>7}{lost:>8}  {last.unit}"
        )
    if any("*" in line for line in lines):
        lines.append(WITHHELD)
    lines += [f"missing: {missing.reason}" for missing in report.missing]
    return "\n".join(lines).encode("ascii", "replace").decode()


def _mean(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.mean is None and entry.mean_of_scored is not None:
        return number(entry.mean_of_scored) + "*"
    return number(entry.mean)


def _reference_text(reference: Reference | None, entry: Entry | None) -> str:
    if reference is None:
        return ""
    row = None if entry is None else reference.of(entry)
    return f"{'':>23}" if row is None else f"{number(row.mean):>11}{signed(row.difference):>12}"


def metric_tables(report: Report) -> str:
    """Writes a table for each area: the conditions with intervals, and the reference where there is one."""
    areas: dict[str, list[list[Cell | str]]] = {}
    for (area, group, _), entries in grouped(report).items():
        areas.setdefault(area, []).append(_row(report.reference, group, entries))
    columns = [Column(head="Metric", numeric=False), *(Column(head=LABELS[c]) for c in CONDITIONS)]
    if report.reference is not None:
        columns.append(Column(head=report.reference.name, note="reference, and the difference to it"))
    columns += [Column(head="N"), Column(head="Failed"), Column(head="Unit", numeric=False)]
    note = f'<p class="note">{FAIR}</p>'
    return note + "".join(
        folded(
            f"{escape(area.capitalize())}: {len(rows)} metrics",
            _own_evaluators(report, area) + table(columns, rows, caption=area.capitalize()),
            opened=place == 0,
        )
        for place, (area, rows) in enumerate(areas.items())
    )


def _own_evaluators(report: Report, area: str) -> str:
    """An evaluator of our own is named above its table, with its accuracy."""
    here = {entry.evaluator for entry in report.metrics if entry.area == area}
    own = sorted(evaluator for evaluator in here if "our own" in evaluator)
    return "".join(f'<p class="note">{escape(evaluator)}.</p>' for evaluator in own)


def _row(reference: Reference | None, group: str, entries: Mapping[str, Entry]) -> list[Cell | str]:
    first = next(iter(entries.values()))
    others = [f"{name}: {number(entry.mean)}" for name, entry in entries.items() if name not in CONDITIONS]
    row: list[Cell | str] = [Cell(text=first.title, notes=(group, *others))]
    row += [_cell(entries.get(condition)) for condition in CONDITIONS]
    if reference is not None:
        row.append(_reference_cell(reference, entries.get("generated")))
    reasons = tuple(
        f"{LABELS.get(condition, condition)}: {reason} ({count})"
        for condition, entry in entries.items()
        for reason, count in entry.failures.items()
    )
    lost = sum(entry.n_failed for entry in entries.values())
    size = max(entry.n_in for entry in entries.values())
    better = BETTER.get(first.direction, "nearer the recording")
    return [
        *row,
        str(size),
        Cell(text=str(lost), notes=reasons, bad=lost > 0),
        Cell(text=first.unit, notes=(better,)),
    ]


def _cell(entry: Entry | None) -> Cell | str:
    if entry is None:
        return ""
    notes: tuple[str, ...] = ()
    if entry.mean is None and entry.mean_of_scored is not None:
        notes = (f"{number(entry.mean_of_scored)} without the failed",)
    if entry.quantiles:
        shown = ", ".join(f"{name} {number(v)}" for name, v in entry.quantiles.items() if name != "n")
        notes = (*notes, shown)
    return Cell.of(entry.mean, ends(entry), notes=notes)


def _reference_cell(reference: Reference, entry: Entry | None) -> Cell | str:
    row = None if entry is None else reference.of(entry)
    if row is None:
        return ""
    within = "" if row.ci95 is None else f" ({signed(row.ci95[0])} to {signed(row.ci95[1])})"
    notes: tuple[str, ...] = (f"difference {signed(row.difference)}{within}",)
    if row.of_group != row.group:
        notes = (*notes, f"of {row.of_group}")
    return Cell(text=number(row.mean), notes=notes)


def ends(entry: Entry) -> tuple[float, float] | None:
    """Returns both ends of an entry's interval."""
    return None if entry.ci95 is None else (entry.ci95[0], entry.ci95[1])


def comparison_text(rows: list[Comparison], a: str, b: str) -> str:
    """Writes B minus A in ASCII, one line for each metric."""
    lines = [
        f"B ({b}) minus A ({a}), paired by clip, resampled by conversation; intervals are of a row alone,",
        "verdicts those of all rows together (Holm, 5 %), from 6 conversations on",
        f"{'metric':<46}{'condition':<13}{'pairs':>6}{'B - A':>10}  {'95 % interval':<22}verdict for B",
    ]
    for row in rows:
        within = "-" if row.ci95 is None else interval((row.ci95[0], row.ci95[1]))
        title = f"{row.entry.title} ({row.entry.group})"[:45]
        lines.append(
            f"{title:<46}{row.entry.condition[:12]:<13}{row.pairs:>6}{number(row.difference):>10}  "
            f"{within:<22}{row.verdict}" + (f" ({row.unpaired} unpaired)" if row.unpaired else "")
        )
    return "\n".join(lines).encode("ascii", "replace").decode()
