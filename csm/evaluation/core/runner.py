"""The runner: measures metrics on sets of clips, in parallel, and reports what could not be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from csm.evaluation.core.clips import ClipSets
from csm.evaluation.core.evaluators import EvaluatorUnavailable, NotMeasurable, hardware, software
from csm.evaluation.core.metric import Metric, Scores
from csm.evaluation.core.report import Entry, Missing, Report
from csm.evaluation.core.speechless import speechless_failed
from csm.evaluation.core.statistics import entry_of
from csm.system.log import Progress, progress
from csm.system.threads import one_thread

Say = Callable[[str], None]
# A metric's section in the report, and what makes it: loading an evaluator is part of measuring.
MetricRows = Mapping[str, Callable[[], Metric]]


def silent(message: str) -> None:
    """Drops a progress line."""


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """How metrics are run.

    Attributes:
        seed: Seed of the bootstrap and of everything drawn.
        repeats: Bootstrap repeats.
        workers: Metrics measured at the same time, on one thread each; results do not depend on it.
    """

    seed: int = 0
    repeats: int = 1000
    workers: int = 2

    def __post_init__(self) -> None:
        for name in ("repeats", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: expected 0 or more")


@dataclass(kw_only=True)
class Results:
    """What the metrics gave: entries, reasons for what is missing, and named data for the page."""

    entries: list[Entry] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def report(self, kind: str, name: str, corpus: str | None, options: RunnerOptions, **more: Any) -> Report:
        """Returns the report; `more` are further fields of `Report`."""
        return Report(
            kind=kind,
            run=name,
            corpus=corpus,
            seed=options.seed,
            repeats=options.repeats,
            hardware=f"{hardware()}, one thread per metric",
            software=software(),
            metrics=tuple(self.entries),
            missing=tuple(self.missing),
            **{"details": self.details, **more},
        )


def run_metrics(rows: MetricRows, sets: ClipSets, options: RunnerOptions, say: Say = silent) -> Results:
    """Measures every metric on every set that it chooses; a clip without speech fails in all of them.

    Args:
        rows: Metrics by section, the longest first so that two workers finish together.
        sets: The clips.
        options: How to run.
        say: Receives one short line as each metric ends.

    Returns:
        Entries in the order of `rows` and of the sets. The same inputs, options and machine give the same
        results: sums of several threads would not be added in a fixed order.
    """
    sets = speechless_failed(sets)
    with (
        one_thread(),
        progress("measure", len(rows), unit="metric") as bar,
        ThreadPoolExecutor(max_workers=options.workers) as pool,
    ):
        outcomes = list(pool.map(lambda name: _attempt(name, rows[name], sets, options, say, bar), rows))
    results = Results()
    for outcome in outcomes:
        results.entries += outcome.entries
        results.missing += outcome.missing
        results.details |= outcome.details
    return results


def _attempt(
    name: str, make: Callable[[], Metric], sets: ClipSets, options: RunnerOptions, say: Say, bar: Progress
) -> Results:
    try:
        metric = make()
        entries = list(measure_metric(metric, sets, options))
    except (EvaluatorUnavailable, NotMeasurable) as error:
        bar.update()
        say(f"{name}: missing")
        return Results(missing=[Missing(name, str(error))])
    bar.update()
    say(f"{name}: done")
    missing = [Missing(name, reason) for reason in metric.missing]
    return Results(entries=entries, missing=missing, details=metric.details)


def measure_metric(metric: Metric, sets: ClipSets, options: RunnerOptions) -> Iterator[Entry]:
    """Measures one metric on every set that it chooses."""
    for clips in metric.choose(sets):
        for measured in metric.measure(clips, sets.recording_of(clips)):
            if isinstance(measured, Scores) and not measured.scores:
                continue  # without inputs there is nothing to report
            yield entry_of(
                measured,
                group=clips.group,
                condition=clips.condition,
                repeats=options.repeats,
                seed=options.seed,
            )
