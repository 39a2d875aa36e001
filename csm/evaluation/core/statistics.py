"""Summaries of scores and the bootstrap: no failure ever improves a result.

Three rules:

* every input is either scored or failed with a reason: `n_ok + n_failed == n_in`;
* the `mean` counts every failure at the worst end of the metric's scale, and is None where the scale has no
  end, so that deleting an output never helps (`mean_of_scored` is beside it);
* all repeats of a bootstrap are drawn from one generator, so that they differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from csm.evaluation.core.clips import Clip
from csm.evaluation.core.intervals import mean_interval
from csm.evaluation.core.metric import Estimate, Measurement, MetricInfo, Pooled, Score, Scores
from csm.evaluation.core.report import Entry
from csm.system.files import hash_key

Group = TypeVar("Group")
Value = TypeVar("Value")
QUANTILES = (50, 90, 99)


def pooled_mean(scores: Sequence[Score], worst: float | None) -> float | None:
    """Computes the weighted mean with failures at `worst`.

    Returns:
        None without scores, and where a clip failed and the scale has no worst end.
    """
    if not scores or (worst is None and any(score.value is None for score in scores)):
        return None
    weights = np.array([score.weight for score in scores])
    values = np.array([worst if score.value is None else score.value for score in scores], dtype=np.float64)
    return float((values * weights).sum() / weights.sum())


def seed_for(seed: int, name: str) -> int:
    """Derives a seed for each metric, so that adding a metric changes no other interval."""
    return int.from_bytes(hash_key(name, seed)[:8], "big")


def bootstrap_repeats(
    groups: Sequence[Group],
    statistic: Callable[[list[Group]], float | None],
    *,
    repeats: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Computes `statistic` on `repeats` resamples, with replacement, of whole groups.

    Resampling whole conversations and not clips keeps clips that share a conversation together
    (cluster bootstrap; Efron and Tibshirani 1993, chapter 8).
    """
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        picks = generator.integers(0, len(groups), size=len(groups))
        value = statistic([groups[int(pick)] for pick in picks])
        if value is not None and math.isfinite(value):
            values.append(value)
    return np.array(values, dtype=np.float64)


def interval(repeats: np.ndarray) -> list[float] | None:
    """Returns the central 95 % of bootstrap repeats, None without any."""
    if repeats.size == 0:
        return None
    low, high = np.percentile(repeats, [2.5, 97.5])
    return [float(low), float(high)]


def by_conversation(scores: Sequence[Score]) -> list[list[Score]]:
    """Groups scores by conversation, in order of first appearance."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.conversation, []).append(score)
    return list(groups.values())


def pairs_by_conversation(
    clips: Sequence[Clip], first: Sequence[Value | str], second: Sequence[Value | str]
) -> tuple[list[list[tuple[Value, Value]]], dict[str, int]]:
    """Groups pairs by conversation and counts failures by reason.

    Args:
        clips: What was measured.
        first, second: Two values of each clip, of its recording and of itself; a text is why there is none.
    """
    groups: dict[str, list[tuple[Value, Value]]] = {}
    failures: Counter[str] = Counter()
    for clip, left, right in zip(clips, first, second, strict=True):
        if isinstance(right, str):
            failures[right] += 1
        elif isinstance(left, str):
            failures[f"recording: {left}"] += 1
        else:
            groups.setdefault(clip.conversation, []).append((left, right))
    return list(groups.values()), dict(failures)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Computes `n` and the 50th, 90th and 99th percentile by linear interpolation.

    Raises:
        ValueError: There are no values, or one is not finite. Negative values stay negative.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("quantiles need at least one value, all of them finite")
    return {"n": float(array.size), **{f"p{q}": float(np.percentile(array, q)) for q in QUANTILES}}


def entry_of(
    measured: Measurement, *, group: str, condition: str, repeats: int = 1000, seed: int = 0
) -> Entry:
    """Summarises a measurement of one set of clips."""
    if isinstance(measured, Pooled):
        most = measured.most_repeats or repeats
        return summarise_groups(
            measured,
            group=group,
            condition=measured.condition or condition,
            repeats=min(repeats, most),
            seed=seed,
        )
    if isinstance(measured, Estimate):
        return _entry(
            measured.info,
            (group, condition),
            measured.n_in,
            measured.failures,
            mean=measured.info.worst if measured.failures else measured.value,
            mean_of_scored=measured.value,
            ci95=None if measured.failures else measured.ci95,
            conversations=measured.conversations,
        )
    condition = measured.condition or condition
    return summarise(measured, group=group, condition=condition, repeats=repeats, seed=seed)


def summarise(measured: Scores, *, group: str, condition: str, repeats: int = 1000, seed: int = 0) -> Entry:
    """Summarises the scores of one metric in one condition.

    The interval is None with fewer than two conversations: one conversation does not show how conversations
    differ. That of a mean is studentised (intervals.py), that of a median the percentiles of the resamples.
    """
    info, scores = measured.info, measured.scores
    groups = by_conversation(scores)

    def resampled(statistic: Callable[[list[Score]], float | None], name: str) -> list[float] | None:
        draws = bootstrap_repeats(
            groups,
            lambda picked: statistic([score for own in picked for score in own]),
            repeats=repeats,
            seed=seed_for(seed, f"{info.name}/{group}{name}"),
        )
        return interval(draws)

    def median(some: list[Score]) -> float | None:
        values = [score.value for score in some if score.value is not None]
        return float(np.median(values)) if values else None

    ok = [score for score in scores if score.value is not None]
    mean = pooled_mean(scores, info.worst)
    several = len(groups) > 1
    values = [score.value for score in ok if score.value is not None]
    shown = quantiles(values) if measured.quantiles and values else None
    return _entry(
        info,
        (group, condition),
        len(scores),
        Counter(score.reason for score in scores if score.reason is not None),
        mean=mean,
        mean_of_scored=pooled_mean(ok, info.worst),
        ci95=None
        if mean is None
        else _interval_of_mean(groups, info, repeats=repeats, seed=seed_for(seed, f"{info.name}/{group}")),
        conversations=len(groups),
        values=tuple(scores),
        quantiles=shown,
        median_ci95=resampled(median, "/median") if several and shown else None,
    )


def _interval_of_mean(
    groups: Sequence[Sequence[Score]], info: MetricInfo, *, repeats: int, seed: int
) -> list[float] | None:
    """Computes the interval of the pooled mean, cut off at the ends of the scale."""
    weights = [sum(score.weight for score in own) for own in groups]
    means = [pooled_mean(own, info.worst) or 0.0 for own in groups]
    sums = [mean * weight for mean, weight in zip(means, weights, strict=True)]
    found = mean_interval(sums, weights, repeats=repeats, seed=seed)
    if found is None or info.direction not in ("higher", "lower"):
        return None if found is None else found.ci95
    least, most = (info.worst, info.best) if info.direction == "higher" else (info.best, info.worst)
    low, high = (-math.inf if least is None else least), (math.inf if most is None else most)
    return [min(max(end, low), high) for end in found.ci95]


def summarise_groups(
    measured: Pooled, *, group: str, condition: str, repeats: int = 1000, seed: int = 0
) -> Entry:
    """Summarises a metric that is one number of all groups together: a distance, a slope.

    With any failure the `mean` is the worst end of the scale, None where it has none: a distance over what
    is left could have improved.
    """
    groups = list(measured.groups)
    whole = not measured.failures
    value = measured.statistic(groups) if groups else None
    ci95 = None
    if value is not None and whole and len(groups) > 1:
        name = f"{measured.info.name}/{group}"
        draws = bootstrap_repeats(groups, measured.statistic, repeats=repeats, seed=seed_for(seed, name))
        ci95 = interval(draws)
    return _entry(
        measured.info,
        (group, condition),
        measured.n_in,
        measured.failures,
        mean=value if whole else measured.info.worst,
        mean_of_scored=value,
        ci95=ci95,
        conversations=len(groups),
    )


def _entry(
    info: MetricInfo, place: tuple[str, str], n_in: int, failures: Mapping[str, int], **numbers
) -> Entry:
    n_failed = sum(failures.values())
    return Entry(
        **vars(info),
        group=place[0],
        condition=place[1],
        n_in=n_in,
        n_ok=n_in - n_failed,
        n_failed=n_failed,
        failures=dict(sorted(failures.items())),
        **numbers,
    )
