"""Headline figures of a run, with their intervals and, where there is one, a reference beside them."""

from __future__ import annotations

from html import escape

from csm.evaluation.core.report import Entry, Report
from csm.evaluation.page.run_tables import LABELS, ends
from csm.evaluation.subjects.run import LINES, TURNS
from csm.evaluation.subjects.speech_folder import CONDITIONS
from csm.report.numbers import Format, number, percent, seconds
from csm.report.summary import Figure, Reference, headline, headlines

# Name, title, value of a full bar, how the value is written.
COMPARED: tuple[tuple[str, str, float, Format], ...] = (
    ("wer", "Word error rate", 1.0, percent),
    ("speaker_similarity", "Speaker similarity", 1.0, number),
    ("distillmos", "distillMOS", 5.0, number),
    ("dnsmos", "DNSMOS", 5.0, number),
    ("f0_median", "Median pitch", 300.0, number),
)


def run_cards(report: Report) -> str:
    """Writes the conditions side by side, then the nearest voice and the waiting times."""
    group = next((one for one in (LINES, TURNS) if report.find("wer", one, "recording")), LINES)
    cards = [_compared(report, group, *row) for row in COMPARED]
    cards.append(_nearest(report, group))
    cards.append(_time(report, group, "ttfa", "Time to first sound"))
    cards.append(_time(report, group, "rtf", "Real-time factor"))
    bars = "A bar is the mean, the thin line on it the 95 % interval."
    note = f'<p class="note">Over the {escape(group)}. {bars}</p>'
    return note + headlines(cards)


def _compared(report: Report, group: str, name: str, title: str, full: float, form: Format) -> str:
    shown, notes = [], []
    last: Entry | None = None
    for condition in CONDITIONS:
        entry = report.find(name, group, condition)
        if entry is None:
            continue
        if entry.mean is None and name == "wer":  # a failed clip has no worst value there; this rate has one
            entry = report.find("wer_capped", group, condition) or entry
            notes.append("at most 1 a clip where some failed")
        last = entry
        shown.append(Figure(label=LABELS[condition], value=entry.mean, interval=ends(entry), tone=condition))
    if last is None:
        return ""
    failed = sum(e.n_failed for c in CONDITIONS if (e := report.find(name, group, c)))
    notes = [last.unit, f"{failed} failed" if failed else "", *dict.fromkeys(notes)]
    better = last.direction if last.direction in ("higher", "lower") else ""
    return headline(
        title,
        shown,
        form=form,
        full=full,
        better=better,
        reference=_reference(report, last),
        note="; ".join(note for note in notes if note),
    )


def _reference(report: Report, entry: Entry) -> Reference | None:
    row = None if report.reference is None else report.reference.of(entry)
    if row is None or report.reference is None:
        return None
    within = None if row.ci95 is None else (row.ci95[0], row.ci95[1])
    return Reference(label=report.reference.name, value=row.mean, difference=within)


def _nearest(report: Report, group: str) -> str:
    entry = report.find("speaker_nearest_is_own", group, "generated")
    real = report.find("speaker_nearest_is_own", group, "recording")
    if entry is None or entry.mean is None:
        return ""
    beside = f"; recordings {percent(real.mean)}" if real and real.mean is not None else ""
    return headline(
        "Generated speech nearest to its own speaker",
        [Figure(label="", value=entry.mean, interval=ends(entry))],
        form=percent,
        reference=_reference(report, entry),
        note=entry.definition + beside,
    )


def _time(report: Report, group: str, name: str, title: str) -> str:
    entry = report.find(name, group, "generated")
    if entry is None or entry.quantiles is None:
        return ""
    found = entry.quantiles
    within = None if entry.median_ci95 is None else (entry.median_ci95[0], entry.median_ci95[1])
    failed = f"; {entry.n_failed} failed" if entry.n_failed else ""
    form, named = (seconds, "median") if entry.unit == "s" else (number, f"median, in {entry.unit}")
    return headline(
        title,
        [Figure(label="", value=found["p50"], interval=within)],
        form=form,
        note=f"{named}; p90 {number(found['p90'])}, p99 {number(found['p99'])}, N {found['n']:.0f}{failed}",
    )
