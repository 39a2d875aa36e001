"""How far the intervals and verdicts of reports can be trusted: coverage, false verdicts, power.

python benchmarks/verdicts.py [--trials 1000]

Simulated clips of simulated conversations, whose true mean is known; numpy only, one core, 20 minutes. The
tables are Markdown, as they stand in docs/MEASURED.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from csm.evaluation.core.clips import Clip
from csm.evaluation.core.comparison import compare_reports
from csm.evaluation.core.intervals import mean_interval
from csm.evaluation.core.metric import MetricInfo, Scores, scored
from csm.evaluation.core.report import Entry, Report
from csm.evaluation.core.statistics import entry_of

CONVERSATIONS = (3, 6, 8, 10, 20, 30)
COMPARED = (6, 10, 20, 60)  # 60 lines are the default of `csm evaluate --voice`
SIZES = (1, 3)  # clips of a conversation on average
ROWS = 20  # of a simulated table
EFFECTS = (0.5, 1.0, 2.0)  # standard deviations of a conversation's mean difference
Draw = Callable[[np.random.Generator, int], np.ndarray]  # the values of a conversation's clips


def normal(generator: np.random.Generator, clips: int) -> np.ndarray:
    """Draws values of mean 0: half of the variance lies between conversations."""
    return generator.normal() + generator.normal(size=clips)


def uniform(generator: np.random.Generator, clips: int) -> np.ndarray:
    """Draws values of mean 0 without tails."""
    return generator.uniform(-1, 1) + generator.uniform(-1, 1, size=clips)


def skewed(generator: np.random.Generator, clips: int) -> np.ndarray:
    """Draws values of mean 0 with the long tail of waiting times."""
    return generator.exponential() + generator.exponential(size=clips) - 2.0


def counts(generator: np.random.Generator, clips: int) -> np.ndarray:
    """Draws differences of two shares, -1, 0 and 1, of mean 0."""
    share = generator.beta(2, 2)
    return (generator.random(clips) < share).astype(float) - (generator.random(clips) < share)


DRAWS: dict[str, Draw] = {"normal": normal, "uniform": uniform, "skewed": skewed, "counts": counts}


def conversation_sizes(generator: np.random.Generator, count: int, mean: int) -> list[int]:
    """Draws numbers of clips, 1 to 2 * mean - 1."""
    return [int(size) for size in generator.integers(1, 2 * mean, size=count)]


def coverage(draw: Draw, count: int, size: int, *, trials: int, repeats: int = 999) -> tuple[float, float]:
    """Returns the share of intervals that hold the true mean 0, and of percentile intervals that do."""
    generator = np.random.default_rng(count)
    hits = np.zeros(2)
    for trial in range(trials):
        values = [draw(generator, clips) for clips in conversation_sizes(generator, count, size)]
        sums, weights = np.array([v.sum() for v in values]), np.array([float(len(v)) for v in values])
        found = mean_interval(sums, weights, repeats=repeats, seed=trial)
        picks = np.random.default_rng(trial).integers(0, count, size=(repeats, count))
        means = sums[picks].sum(axis=1) / weights[picks].sum(axis=1)
        ends = (found.ci95 if found else [1.0, 0.0], np.quantile(means, [0.025, 0.975]))
        hits += [low <= 0.0 <= high for low, high in ends]
    return float(hits[0] / trials), float(hits[1] / trials)


def report(rows: list[np.ndarray], sizes: list[int]) -> Report:
    """Makes a report with a value for each clip of each row."""
    clips = [Clip(id=f"{k}/{n}", conversation=str(k)) for k, size in enumerate(sizes) for n in range(size)]
    entries = [_entry(f"m{row}", clips, values) for row, values in enumerate(rows)]
    about = {"corpus": None, "seed": 0, "repeats": 1, "hardware": "", "software": {}}
    return Report(kind="run", run="simulated", conditions=["generated"], metrics=tuple(entries), **about)


def _entry(name: str, clips: list[Clip], values: np.ndarray) -> Entry:
    about = {"title": name, "area": "", "unit": "", "evaluator": "", "definition": "", "direction": "higher"}
    scores = [scored(clip, float(value)) for clip, value in zip(clips, values, strict=True)]
    measured = Scores(info=MetricInfo(name=name, **about), scores=scores)
    return entry_of(measured, group="lines", condition="generated", repeats=1)


def verdicts(
    count: int, size: int, *, effect: float, trials: int, rows: int = ROWS, repeats: int = 1999
) -> tuple[float, float]:
    """Compares two simulated systems whose first row differs by `effect`.

    Half of the variance of a value is shared by all rows, as metrics of one clip are.

    Returns:
        The share of tables with any verdict, and with the right one in the first row.
    """
    generator = np.random.default_rng(1000 * count + size)
    any_verdict = right = 0
    for trial in range(trials):
        sizes = conversation_sizes(generator, count, size)
        a, b = ([_row(generator, sizes) for _ in range(rows + 1)] for _ in range(2))
        # Standard deviation of a conversation's mean difference; 4 variances: 2 systems, shared and own.
        spread = np.sqrt(4.0 + 4.0 / size)
        first, second = ([shared + own for own in others] for shared, *others in (a, b))
        second[0] = second[0] + effect * spread
        found = compare_reports(report(first, sizes), report(second, sizes), repeats=repeats, seed=trial)
        any_verdict += any(row.verdict in ("better", "worse") for row in found)
        right += found[0].verdict == "better"
    return any_verdict / trials, right / trials


def _row(generator: np.random.Generator, sizes: list[int]) -> np.ndarray:
    return np.concatenate([normal(generator, size) for size in sizes])


def print_coverage(trials: int) -> None:
    """Prints the coverage of 95 % intervals, and of the percentile bootstrap in brackets."""
    print("| values | clips | " + " | ".join(f"{n} conversations" for n in CONVERSATIONS) + " |")
    print("|---" * (2 + len(CONVERSATIONS)) + "|")
    for name, draw in DRAWS.items():
        for size in SIZES:
            found = [coverage(draw, count, size, trials=trials) for count in CONVERSATIONS]
            cells = [f"{100 * own:.1f} ({100 * old:.1f})" for own, old in found]
            print(f"| {name} | {size} | " + " | ".join(cells) + " |", flush=True)


def print_verdicts(trials: int) -> None:
    """Prints the share of tables with a false verdict, and of right verdicts by effect and rows."""
    print("| rows | effect | clips | " + " | ".join(f"{n} conversations" for n in COMPARED) + " |")
    print("|---" * (3 + len(COMPARED)) + "|")
    for rows in (1, ROWS):
        for effect in (0.0, *EFFECTS):
            for size in SIZES if effect == 0.0 else (1,):
                few = max(1, trials // 2 if effect == 0.0 else trials // 6)
                made = [verdicts(count, size, effect=effect, trials=few, rows=rows) for count in COMPARED]
                cells = [f"{100 * (right if effect else wrong):.1f}" for wrong, right in made]
                print(f"| {rows} | {effect or 'none'} | {size} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="coverage, false verdicts and power of reports")
    parser.add_argument("--trials", type=int, default=1000, help="simulated data sets for each figure")
    options = parser.parse_args()
    print("Coverage of 95 % intervals in %, percentile bootstrap in brackets\n")
    print_coverage(options.trials)
    print("\nTables with a false verdict (no effect), right verdicts in the row with the effect, in %\n")
    print_verdicts(options.trials)


if __name__ == "__main__":
    main()
