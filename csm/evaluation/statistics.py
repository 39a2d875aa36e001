"""Scores, their summary and the bootstrap: nothing here lets a failure improve a result.

Three rules, each an error of a well-known suite turned round:

* every input is either judged or failed with a reason: ``n_ok + n_failed == n_in``;
* the ``mean`` counts every failure at the worst end of the metric's scale, and is ``None`` where
  the scale has no end, so that deleting an output never helps (``mean_of_judged`` is beside it);
* repeats of the bootstrap are drawn from one generator and therefore differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from csm.system.files import hash_key

Group = TypeVar("Group")
DIRECTIONS = ("higher", "lower", "nearer_to_recording", "none")


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one judge said about one clip: a value, or the reason why there is none.

    ``weight`` is the size of the clip in the pooled mean (for word error rate: its words), and
    ``detail`` carries what a person wants to see beside the value (a transcript, a name).
    """

    clip: str
    conversation: str
    value: float | None
    weight: float = 1.0
    reason: str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"score of {self.clip}: give a value or a reason, exactly one of them")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"score of {self.clip}: value is {self.value}; report it as a failure instead")
        if not self.weight > 0:
            raise ValueError(f"score of {self.clip}: weight is {self.weight}; it must be positive")


def judged(
    clip: str, conversation: str, value: float, *, weight: float = 1.0, detail: str | None = None
) -> Score:
    """A score, or a counted failure where the judge returned something that is not a number."""
    if not math.isfinite(value):
        return failed(clip, conversation, f"the judge returned {value}", weight=weight)
    return Score(clip=clip, conversation=conversation, value=float(value), weight=weight, detail=detail)


def failed(clip: str, conversation: str, reason: str, *, weight: float = 1.0) -> Score:
    """A clip that could not be judged, with the reason in one short line."""
    first_line = " ".join(reason.split())[:200]
    return Score(clip=clip, conversation=conversation, value=None, weight=weight, reason=first_line)


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """What a metric is: everything that does not depend on the clips.

    ``worst`` is the worst end of the scale, ``None`` where there is none.
    """

    name: str
    title: str
    area: str
    unit: str
    direction: str
    evaluator: str
    definition: str
    worst: float | None = None
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction of {self.name} is {self.direction!r}; choose one of {DIRECTIONS}")


def pooled_mean(scores: Sequence[Score], worst: float | None) -> float | None:
    """Weighted mean with failures at ``worst``; ``None`` if there is no score or no such end."""
    if not scores or (worst is None and any(score.value is None for score in scores)):
        return None
    weights = np.array([score.weight for score in scores])
    values = np.array([worst if score.value is None else score.value for score in scores], dtype=np.float64)
    return float((values * weights).sum() / weights.sum())


def seed_for(seed: int, name: str) -> int:
    """A seed of its own for each metric, so that adding a metric changes no other interval."""
    return int.from_bytes(hash_key(name, seed)[:8], "big")


def bootstrap_repeats(
    groups: Sequence[Group],
    statistic: Callable[[list[Group]], float | None],
    *,
    repeats: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Values of ``statistic`` on ``repeats`` resamples (with replacement) of whole groups.

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
    """The central 95 % of bootstrap repeats, or ``None`` without any."""
    if repeats.size == 0:
        return None
    low, high = np.percentile(repeats, [2.5, 97.5])
    return [float(low), float(high)]


def by_conversation(scores: Sequence[Score]) -> list[list[Score]]:
    """The scores of each conversation together, in order of first appearance."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.conversation, []).append(score)
    return list(groups.values())


def summarise(
    info: MetricInfo,
    scores: Sequence[Score],
    *,
    condition: str,
    subset: str,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """One metric of one condition as it stands in ``report.json``.

    The interval is ``None`` with fewer than two conversations: one conversation says nothing
    about how conversations differ.
    """
    ok = [score for score in scores if score.value is not None]
    groups = by_conversation(scores)
    mean = pooled_mean(scores, info.worst)
    ci95 = None
    if mean is not None and len(groups) > 1:
        draws = bootstrap_repeats(
            groups,
            lambda picked: pooled_mean([score for group in picked for score in group], info.worst),
            repeats=repeats,
            seed=seed_for(seed, f"{info.name}/{subset}"),
        )
        ci95 = interval(draws)
    reasons = Counter(score.reason for score in scores if score.reason is not None)
    return {
        **described(info, condition=condition, subset=subset),
        "n_in": len(scores),
        "n_ok": len(ok),
        "n_failed": len(scores) - len(ok),
        "failures": {str(reason): count for reason, count in sorted(reasons.items())},
        "mean": mean,
        "mean_of_judged": pooled_mean(ok, info.worst),
        "ci95": ci95,
        "conversations": len(groups),
        "values": [
            {
                "id": score.clip,
                "conversation": score.conversation,
                "value": score.value,
                "weight": score.weight,
                "reason": score.reason,
                "detail": score.detail,
            }
            for score in scores
        ],
    }


def described(info: MetricInfo, *, condition: str, subset: str) -> dict[str, Any]:
    """The fields of a report entry that come from the metric itself."""
    return {
        "name": info.name,
        "title": info.title,
        "area": info.area,
        "subset": subset,
        "condition": condition,
        "unit": info.unit,
        "direction": info.direction,
        "worst": info.worst,
        "evaluator": info.evaluator,
        "sample_rate": info.sample_rate,
        "definition": info.definition,
    }


def summarise_groups(
    info: MetricInfo,
    groups: Sequence[Group],
    statistic: Callable[[list[Group]], float | None],
    *,
    condition: str,
    subset: str,
    n_in: int,
    failures: dict[str, int] | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """A metric that is one number of all groups together (a distance, a slope), as in ``report.json``.

    Args:
        groups: what was judged, one conversation each; the bootstrap resamples them.
        statistic: the number for any list of groups; ``None`` where it is not defined.
        n_in: how many inputs there were; ``failures`` counts those that are not in ``groups``.

    With any failure the ``mean`` is ``None``: a distance over what is left could have improved.
    """
    failures = failures or {}
    n_failed = sum(failures.values())
    value = statistic(list(groups)) if groups else None
    ci95 = None
    if value is not None and len(groups) > 1:
        draws = bootstrap_repeats(
            groups, statistic, repeats=repeats, seed=seed_for(seed, f"{info.name}/{subset}")
        )
        ci95 = interval(draws)
    return {
        **described(info, condition=condition, subset=subset),
        "n_in": n_in,
        "n_ok": n_in - n_failed,
        "n_failed": n_failed,
        "failures": dict(sorted(failures.items())),
        "mean": value if n_failed == 0 else None,
        "mean_of_judged": value,
        "ci95": ci95 if n_failed == 0 else None,
        "conversations": len(groups),
        "values": [],
    }
