"""The figures of the page: headline cards, tables of every metric, and who judged."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from csm.evaluation.report_clips import LABELS
from csm.evaluation.speech_folder import CONDITIONS
from csm.evaluation.table import grouped
from csm.report.numbers import number
from csm.system.extras import install_command

Entry = Mapping[str, Any]
# name, title, full scale of the bar, how the value is written
COMPARED: tuple[tuple[str, str, float, str], ...] = (
    ("wer", "Word error rate", 1.0, "percent"),
    ("speaker_similarity", "Speaker similarity", 1.0, "plain"),
    ("distillmos", "distillMOS", 5.0, "plain"),
    ("dnsmos", "DNSMOS", 5.0, "plain"),
    ("f0_median", "Median pitch", 300.0, "plain"),
)


def found(report: Mapping[str, Any], name: str, subset: str, condition: str) -> Entry | None:
    """One entry of the report."""
    for entry in report["metrics"]:
        if (entry["name"], entry["subset"], entry["condition"]) == (name, subset, condition):
            return entry
    return None


def cards(report: Mapping[str, Any]) -> str:
    """Headline figures: three versions side by side, then the waiting times."""
    subset = next((s for s in ("lines", "dialogue turns") if found(report, "wer", s, "recording")), "lines")
    parts = [_compared_card(report, subset, *row) for row in COMPARED]
    parts += [_nearest_card(report, subset), _time_card(report, subset, "ttfa", "Time to first sound", "s")]
    parts += [_time_card(report, subset, "rtf", "Real-time factor", ""), _offset_card(report)]
    note = f'<p class="note">Over the {escape(subset)}. A bar is the mean; hover for its 95 % interval.</p>'
    return note + f'<div class="cards">{"".join(parts)}</div>'


def _written(value: float | None, kind: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if kind == "percent" else number(value)


def _compared_card(
    report: Mapping[str, Any], subset: str, name: str, title: str, full: float, kind: str
) -> str:
    rows = []
    failed = 0
    unit = limited = ""
    for condition in CONDITIONS:
        entry = found(report, name, subset, condition)
        if entry is None:
            continue
        value = entry["mean"]
        if value is None and name == "wer":  # a failed clip has no limit there: show what has one
            capped = found(report, "wer_capped", subset, condition)
            value = None if capped is None else capped["mean"]
            limited = "; at most 1 a clip"
        failed += entry["n_failed"]
        unit = entry["unit"]
        share = 0.0 if value is None else min(max(value / full, 0.0), 1.0)
        rows.append(
            f'<div class="row {condition}" title="{_interval(entry)}"><span>{LABELS[condition]}</span>'
            f'<span class="track"><b style="width:{100 * share:.0f}%"></b></span>'
            f'<span class="value">{_written(value, kind)}</span></div>'
        )
    if not rows:
        return ""
    foot = f'<div class="foot">{unit if kind == "plain" else "lower is better"}'
    foot += (f"; {failed} failed" if failed else "") + limited
    return f'<div class="card"><h3>{escape(title)}</h3>{"".join(rows)}{foot}</div></div>'


def _interval(entry: Entry) -> str:
    if entry["ci95"] is None:
        return "no interval"
    low, high = entry["ci95"]
    return f"95 % interval {number(low)} to {number(high)}, N {entry['n_in']}"


def _nearest_card(report: Mapping[str, Any], subset: str) -> str:
    entry = found(report, "speaker_nearest_is_own", subset, "generated")
    real = found(report, "speaker_nearest_is_own", subset, "recording")
    if entry is None or entry["mean"] is None:
        return ""
    beside = f"; of recordings {100 * real['mean']:.0f} %" if real and real["mean"] is not None else ""
    return (
        '<div class="card generated"><h3>Generated speech nearest to its own speaker</h3>'
        f'<div class="big">{100 * entry["mean"]:.0f} %</div>'
        f'<div class="foot">{escape(entry["definition"])}{beside}</div></div>'
    )


def _time_card(report: Mapping[str, Any], subset: str, name: str, title: str, unit: str) -> str:
    entry = found(report, name, subset, "generated")
    if entry is None or "quantiles" not in entry:
        return ""
    q = entry["quantiles"]
    tail = f"p90 {number(q['p90'])}, p99 {number(q['p99'])}, N {q['n']:.0f}"
    tail += f" ({entry['n_failed']} failed)" if entry["n_failed"] else ""
    tail += "" if unit else f"; {escape(entry['unit'])}"
    return (
        f'<div class="card"><h3>{title}</h3><div class="big">{number(q["p50"])} {unit}</div>'
        f'<div class="foot">median; {tail}</div></div>'
    )


def _offset_card(report: Mapping[str, Any]) -> str:
    entry = found(report, "fto_wasserstein_1", "dialogues", "generated")
    if entry is None or entry["mean"] is None:
        return ""
    return (
        '<div class="card"><h3>Turn taking, distance from real</h3>'
        f'<div class="big">{number(entry["mean"])} ms</div>'
        f'<div class="foot">Wasserstein-1 of floor-transfer offsets, {entry["n_in"]} dialogues</div></div>'
    )


def metric_tables(report: Mapping[str, Any]) -> str:
    """A table for each area: the three versions with intervals, N, failures, unit and direction."""
    areas: dict[str, list[str]] = {}
    for (area, subset, _), entries in grouped(report).items():
        areas.setdefault(area, []).append(_row(subset, entries))
    head = "".join(f'<th class="n">{LABELS[c]}</th>' for c in CONDITIONS)
    tables = "".join(
        f'<h3>{escape(area.capitalize())}</h3>{_own_probe(report, area)}<div class="scroll">'
        f'<table class="figures"><tr><th>Metric</th>{head}<th class="n">N</th>'
        f'<th class="n">Failed</th><th>Unit</th></tr>{"".join(rows)}</table></div>'
        for area, rows in areas.items()
    )
    note = (
        '<p class="note">Mean and 95 % bootstrap interval over conversations. A failed clip counts at the '
        "worst end of the scale; where a scale has no end the mean is withheld, so that nothing is gained by "
        "a clip that is missing.</p>"
    )
    return note + tables


def _own_probe(report: Mapping[str, Any], area: str) -> str:
    """A judge of our own says so above its table, with its accuracy."""
    judges_here = {entry["evaluator"] for entry in report["metrics"] if entry["area"] == area}
    own = sorted(judge for judge in judges_here if "our own" in judge)
    return "".join(f'<p class="note">{escape(judge)}.</p>' for judge in own)


def _row(subset: str, entries: Mapping[str, Entry]) -> str:
    any_entry = next(iter(entries.values()))
    cells = []
    for condition in CONDITIONS:
        entry = entries.get(condition)
        if entry is None:
            cells.append('<td class="n"></td>')
            continue
        ci95 = "" if entry["ci95"] is None else "<small>{} to {}</small>".format(*map(number, entry["ci95"]))
        judged = entry["mean_of_judged"]
        if entry["mean"] is None and judged is not None:
            ci95 = f"<small>{number(judged)} without the failed</small>"
        cells.append(f'<td class="n">{number(entry["mean"])}{ci95}</td>')
        if quantiles := entry.get("quantiles"):
            shown = ", ".join(f"{name} {number(value)}" for name, value in quantiles.items() if name != "n")
            cells[-1] = cells[-1].replace("</td>", f"<small>{shown}</small></td>")
    others = [name for name in entries if name not in CONDITIONS]
    extra = "".join(f"<small>{escape(name)}: {number(entries[name]['mean'])}</small>" for name in others)
    reasons = [
        f"{LABELS.get(condition, condition)}: {reason} ({count})"
        for condition, entry in entries.items()
        for reason, count in entry["failures"].items()
    ]
    failed = sum(entry["n_failed"] for entry in entries.values())
    why = "".join(f"<small>{escape(reason)}</small>" for reason in reasons)
    arrow = {"higher": "higher is better", "lower": "lower is better", "none": ""}.get(
        any_entry["direction"], "nearer the recording"
    )
    size = max(entry["n_in"] for entry in entries.values())
    return (
        f'<tr><td title="{escape(any_entry["definition"], quote=True)}">{escape(any_entry["title"])}'
        f"<small>{escape(subset)}</small>{extra}</td>{''.join(cells)}"
        f'<td class="n">{size}</td><td class="n{" bad" if failed else ""}">{failed}{why}</td>'
        f"<td>{escape(any_entry['unit'])}<small>{arrow}</small></td></tr>"
    )


def judges(report: Mapping[str, Any], *, pictures: bool) -> str:
    """What each metric means and who judged it, and what is missing and why."""
    missing = [entry["reason"] for entry in report["missing"]]
    if not pictures:
        missing.append(f"spectrogram pictures need matplotlib: {install_command('matplotlib')}")
    parts = []
    if missing:
        items = "".join(f"<li>{escape(reason)}</li>" for reason in missing)
        parts.append(f'<h3>Missing</h3><ul class="plain">{items}</ul>')
    rows: dict[str, Entry] = {entry["name"]: entry for entry in report["metrics"]}
    body = "".join(
        f"<tr><td>{escape(entry['title'])}</td><td>{escape(entry['definition'])}</td>"
        f"<td>{escape(entry['evaluator'])}"
        + (f"<small>{entry['sample_rate']} Hz</small>" if entry["sample_rate"] else "")
        + "</td></tr>"
        for entry in rows.values()
    )
    parts.append(
        '<div class="scroll"><table><tr><th>Metric</th><th>Definition</th><th>Evaluator</th></tr>'
        f"{body}</table></div>"
    )
    return "".join(parts)
