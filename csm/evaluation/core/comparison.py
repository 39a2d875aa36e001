"""Two reports against each other: a paired bootstrap over the conversations of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from csm.evaluation.core.report import Entry, Reference, ReferenceRow, Report, load_report
from csm.evaluation.core.statistics import bootstrap_repeats, interval, seed_for

Pair = tuple[float, float, float]  # value of A, value of B, weight


class Comparison(NamedTuple):
    """A metric of report B against the same metric of report A.

    Attributes:
        entry: The metric in A.
        pairs: Number of clips in both. unpaired: Number of clips that are in one only or have no value.
        difference: B minus A, None where it is not comparable. ci95: Its 95 % interval.
        verdict: "better" or "worse" for B where the interval excludes 0, otherwise why not.
    """

    entry: Entry
    pairs: int
    unpaired: int
    difference: float | None
    ci95: list[float] | None
    verdict: str


def compare_reports(a: Report, b: Report, *, repeats: int = 2000, seed: int = 0) -> list[Comparison]:
    """Compares every metric that has a value for each clip, on the clips of the same id.

    A clip that failed in one of them counts at the worst end of the scale; where the scale has none, the
    metric is not compared.
    """
    others = {(entry.name, entry.group, entry.condition): entry for entry in b.metrics}
    rows = []
    for entry in a.metrics:
        other = others.get((entry.name, entry.group, entry.condition))
        if other is not None and entry.values and other.values:
            rows.append(compare_entries(entry, other, repeats=repeats, seed=seed))
    return rows


def compare_entries(a: Entry, b: Entry, *, repeats: int = 2000, seed: int = 0) -> Comparison:
    """Compares one metric, clip by clip."""
    groups, unpaired = _paired(a, b)
    pairs = sum(map(len, groups))
    if unpaired or not groups or a.evaluator != b.evaluator:
        return Comparison(a, pairs, unpaired, None, None, "not comparable")
    ci95 = None
    if len(groups) > 1:
        name = f"compare/{a.name}"
        draws = bootstrap_repeats(groups, _difference, repeats=repeats, seed=seed_for(seed, name))
        ci95 = interval(draws)
    return Comparison(a, pairs, 0, _difference(groups), ci95, _verdict(ci95, a.direction))


def _paired(a: Entry, b: Entry) -> tuple[list[list[Pair]], int]:
    others = {value.clip: value for value in b.values}
    groups: dict[str, list[Pair]] = {}
    unpaired = 0
    for value in a.values:
        other = others.pop(value.clip, None)
        left = a.worst if value.value is None else value.value
        right = a.worst if other is None or other.value is None else other.value
        if other is None or left is None or right is None:
            unpaired += 1
        else:
            groups.setdefault(value.conversation, []).append((left, right, value.weight))
    return list(groups.values()), unpaired + len(others)


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


def beside(report: Report, path: Path, *, seed: int = 0) -> Reference:
    """Puts a finished report beside this one.

    A metric is taken from the same group and condition, otherwise from the finished report's first group that
    has it: a voice's report calls its lines "main voice" where a run's calls them "lines".

    Raises:
        ValueError: There is no report at `path`.
    """
    before = load_report(path)
    rows = []
    for entry in report.metrics:
        found = before.find(entry.name, entry.group, entry.condition) or next(
            (e for e in before.metrics if (e.name, e.condition) == (entry.name, entry.condition)), None
        )
        if found is None or found.mean is None or entry.mean is None:
            continue
        ci95 = compare_entries(found, entry, seed=seed).ci95
        rows.append(
            ReferenceRow(
                name=entry.name,
                group=entry.group,
                condition=entry.condition,
                of_group=found.group,
                mean=found.mean,
                difference=entry.mean - found.mean,
                ci95=ci95,
            )
        )
    return Reference(name=before.run, rows=tuple(rows))
