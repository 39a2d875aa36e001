"""The report as a compact ASCII table, for terminals of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csm.evaluation.speech_folder import CONDITIONS
from csm.report.numbers import number


def grouped(report: Mapping[str, Any]) -> dict[tuple[str, str, str], dict[str, Mapping[str, Any]]]:
    """Entries of the same metric and subset, by condition: (area, subset, name) -> condition -> entry."""
    rows: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for entry in report["metrics"]:
        key = (entry["area"], entry["subset"], entry["name"])
        rows.setdefault(key, {})[entry["condition"]] = entry
    return rows


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    if entry["mean"] is None and entry["mean_of_judged"] is not None:
        return number(entry["mean_of_judged"]) + "*"
    return number(entry["mean"])


def report_table(report: Mapping[str, Any]) -> str:
    """One line a metric: recording, resynthesis and generated side by side, N and failures of the last."""
    lines = [
        f"{'metric':<44}{'recording':>11}{'resynthesis':>13}{'generated':>11}{'N':>7}{'failed':>8}  unit"
    ]
    area = ""
    for (this, subset, _), entries in grouped(report).items():
        if this != area:
            area = this
            lines.append(f"-- {area} " + "-" * (100 - len(area)))
        last = list(entries.values())[-1]
        cells = [_cell(entries.get(condition)) for condition in CONDITIONS]
        counts = [entries[c] for c in CONDITIONS if c in entries]
        failed = sum(entry["n_failed"] for entry in counts)
        size = max((entry["n_in"] for entry in counts), default=0)
        title = f"{last['title']} ({subset})"
        title = title if len(title) <= 43 else title[:40] + "..."
        lines.append(
            f"{title:<44}{cells[0]:>11}{cells[1]:>13}{cells[2]:>11}{size:>7}{failed:>8}  {last['unit']}"
        )
    if any("*" in line for line in lines):
        lines.append("* of the clips that were judged; no fair mean exists, because others failed")
    for missing in report["missing"]:
        lines.append(f"missing: {missing['reason']}")
    return "\n".join(lines).encode("ascii", "replace").decode()
