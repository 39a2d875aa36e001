"""Two reports against each other: a paired bootstrap over the conversations that both judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csm.evaluation.statistics import bootstrap_repeats, interval, seed_for
from csm.report.numbers import number

Pair = tuple[float, float, float]  # value of A, value of B, weight


def load_report(path: Path) -> dict[str, Any]:
    """A ``report.json``, or the one of a run folder.

    Raises:
        ValueError: there is none, or it is of another schema version.
    """
    path = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}; run launch/evaluate_speech.py --run first") from error
    if not isinstance(report, dict) or report.get("schema_version") != 1:
        raise ValueError(f"{path} is no report of schema version 1; evaluate that run again")
    return report


def compare_reports(first: Path, second: Path, *, repeats: int = 2000, seed: int = 0) -> dict[str, Any]:
    """B minus A for every metric with values per clip, on the clips of the same id.

    A clip that failed in one of them counts at the worst end of the scale; where the scale has none
    the metric is not compared. The verdict is "better" or "worse" for B where the 95 % interval of
    the difference leaves out 0, "no difference shown" otherwise.

    Raises:
        ValueError: a report is missing or of another schema.
    """
    left, right = load_report(first), load_report(second)
    entries = {_key(entry): entry for entry in right["metrics"]}
    rows = []
    for entry in left["metrics"]:
        other = entries.get(_key(entry))
        if other is not None and entry["values"] and other["values"]:
            rows.append(_compared(entry, other, repeats, seed))
    return {"a": left["run"], "b": right["run"], "repeats": repeats, "seed": seed, "metrics": rows}


def _key(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["name"], entry["subset"], entry["condition"]


def _compared(first: Mapping[str, Any], second: Mapping[str, Any], repeats: int, seed: int) -> dict[str, Any]:
    others = {value["id"]: value for value in second["values"]}
    groups: dict[str, list[Pair]] = {}
    unjudged = 0
    worst = first["worst"]
    for value in first["values"]:
        other = others.pop(value["id"], None)
        if other is None:
            unjudged += 1
            continue
        pair = [worst if side["value"] is None else side["value"] for side in (value, other)]
        if None in pair:
            unjudged += 1
            continue
        groups.setdefault(value["conversation"], []).append((pair[0], pair[1], value["weight"]))
    unjudged += len(others)
    row = {
        "name": first["name"],
        "title": first["title"],
        "subset": first["subset"],
        "condition": first["condition"],
        "unit": first["unit"],
        "pairs": sum(len(group) for group in groups.values()),
        "unpaired": unjudged,
        "same_judge": first["evaluator"] == second["evaluator"],
        "difference": None,
        "ci95": None,
        "verdict": "not comparable",
    }
    if unjudged or not groups or not row["same_judge"]:
        return row
    difference = _difference(list(groups.values()))
    row["difference"] = difference
    if len(groups) > 1:
        draws = bootstrap_repeats(
            list(groups.values()),
            _difference,
            repeats=repeats,
            seed=seed_for(seed, f"compare/{first['name']}"),
        )
        row["ci95"] = interval(draws)
    row["verdict"] = _verdict(row["ci95"], first["direction"])
    return row


def _difference(groups: Sequence[Sequence[Pair]]) -> float:
    pairs = [pair for group in groups for pair in group]
    return sum((b - a) * w for a, b, w in pairs) / sum(w for _, _, w in pairs)


def _verdict(ci95: Sequence[float] | None, direction: str) -> str:
    if ci95 is None:
        return "one conversation only"
    low, high = ci95
    if low <= 0 <= high:
        return "no difference shown"
    if direction not in ("higher", "lower"):
        return "differs"
    return "better" if (low > 0) == (direction == "higher") else "worse"


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """B minus A as ASCII, one line a metric."""
    lines = [
        f"B ({comparison['b']}) minus A ({comparison['a']}), paired by clip, resampled by conversation",
        f"{'metric':<46}{'condition':<13}{'pairs':>6}{'B - A':>10}  {'95 % interval':<22}verdict for B",
    ]
    for row in comparison["metrics"]:
        ci95 = row["ci95"]
        shown = "-" if ci95 is None else f"{number(ci95[0])} .. {number(ci95[1])}"
        title = f"{row['title']} ({row['subset']})"[:45]
        lines.append(
            f"{title:<46}{row['condition'][:12]:<13}{row['pairs']:>6}{number(row['difference']):>10}  "
            f"{shown:<22}{row['verdict']}" + (f" ({row['unpaired']} unpaired)" if row["unpaired"] else "")
        )
    return "\n".join(lines).encode("ascii", "replace").decode()
