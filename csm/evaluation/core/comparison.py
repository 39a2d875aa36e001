"""Two reports against each other: the differences of paired clips, by conversation.

A verdict needs 6 conversations, and holds for the whole table: probabilities are corrected by Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from csm.evaluation.core.intervals import FEWEST_CONVERSATIONS, holm, mean_interval
from csm.evaluation.core.report import Entry, Reference, ReferenceRow, Report, load_report
from csm.evaluation.core.statistics import seed_for

Difference = tuple[float, float]  # value of B minus value of A, weight
REPEATS = 9999  # the smallest probability of a bootstrap is 2 / (repeats + 1); Holm multiplies it by the rows
ERROR_RATE = 0.05


class Comparison(NamedTuple):
    """A metric of report B against the same metric of report A.

    Attributes:
        entry: The metric in A.
        pairs: Number of clips in both. unpaired: Number of clips that are in one only or have no value.
        conversations: Number of conversations of the pairs.
        difference: B minus A, None where it is not comparable. ci95: Its 95 % interval, of this row alone.
        p: Probability of such a difference where there is none, of this row alone.
        verdict: "better" or "worse" for B where the table as a whole allows it, otherwise why not.
    """

    entry: Entry
    pairs: int
    unpaired: int
    conversations: int
    difference: float | None
    ci95: list[float] | None
    p: float | None
    verdict: str


def compare_reports(a: Report, b: Report, *, repeats: int = REPEATS, seed: int = 0) -> list[Comparison]:
    """Compares every metric that has a value for each clip, on the clips of the same id.

    A clip that failed in one of them counts at the worst end of the scale; where the scale has none, the
    metric is not compared. Verdicts are those of all rows together: at most 5 % of tables of equal systems
    hold one.
    """
    others = {(entry.name, entry.group, entry.condition): entry for entry in b.metrics}
    rows = []
    for entry in a.metrics:
        other = others.get((entry.name, entry.group, entry.condition))
        if other is not None and entry.values and other.values:
            rows.append(compare_entries(entry, other, repeats=repeats, seed=seed))
    return _with_verdicts(rows)


def _with_verdicts(rows: Sequence[Comparison]) -> list[Comparison]:
    """Replaces the verdicts of single rows by those of the table."""
    tested = [place for place, row in enumerate(rows) if row.p is not None]
    adjusted = dict(zip(tested, holm([rows[place].p or 0.0 for place in tested]), strict=True))
    return [
        row._replace(verdict=_verdict(row, adjusted[place])) if place in adjusted else row
        for place, row in enumerate(rows)
    ]


def compare_entries(a: Entry, b: Entry, *, repeats: int = REPEATS, seed: int = 0) -> Comparison:
    """Compares one metric, clip by clip; the verdict is that of a table of this row only."""
    groups, unpaired = _paired(a, b)
    pairs = sum(map(len, groups))
    if unpaired or not groups or a.evaluator != b.evaluator:
        return Comparison(a, pairs, unpaired, len(groups), None, None, None, "not comparable")
    sums = [sum(difference * weight for difference, weight in group) for group in groups]
    weights = [sum(weight for _, weight in group) for group in groups]
    found = mean_interval(sums, weights, repeats=repeats, seed=seed_for(seed, f"compare/{a.name}"))
    ci95 = None if found is None else found.ci95
    row = Comparison(a, pairs, 0, len(groups), sum(sums) / sum(weights), ci95, None, "")
    if found is None or len(groups) < FEWEST_CONVERSATIONS:
        return row._replace(verdict=f"no verdict: {len(groups)} of {FEWEST_CONVERSATIONS} conversations")
    row = row._replace(p=found.p)
    return row._replace(verdict=_verdict(row, found.p))


def _paired(a: Entry, b: Entry) -> tuple[list[list[Difference]], int]:
    others = {value.clip: value for value in b.values}
    groups: dict[str, list[Difference]] = {}
    unpaired = 0
    for value in a.values:
        other = others.pop(value.clip, None)
        left = a.worst if value.value is None else value.value
        right = a.worst if other is None or other.value is None else other.value
        if other is None or left is None or right is None:
            unpaired += 1
        else:
            groups.setdefault(value.conversation, []).append((right - left, value.weight))
    return list(groups.values()), unpaired + len(others)


def _verdict(row: Comparison, p: float) -> str:
    if p > ERROR_RATE or not row.difference:
        return "no difference shown"
    if row.entry.direction not in ("higher", "lower"):
        return "differs"
    return "better" if (row.difference > 0) == (row.entry.direction == "higher") else "worse"


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
