"""The verdict on a claim, by one rule that is fixed before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from csm.evaluation.core.intervals import MeanInterval, holm, mean_interval
from csm.evaluation.core.metric import Score
from csm.evaluation.core.statistics import seed_for
from csm.research.question import Claim, Measured

Decision = Literal["supported", "not supported", "not decided"]
ERROR_RATE = 0.05
REPEATS = 9999
RULE = (
    "A claim says that one arm is better than another one in a metric, by at least a smallest difference "
    "that counts; both are stated in the question's file. Differences are taken clip by clip at the same "
    "seed, and have two 95 % intervals: over conversations, of the means over seeds (studentised cluster "
    "bootstrap), and over seeds, of the means over clips (Student). The interval of the verdict reaches from "
    "the lower of their lower ends to the higher of their upper ends. Supported: it lies above 0, the "
    "probability that Holm's correction gives within the question is at most 5 %, and the mean difference is "
    "at least the smallest that counts. Not supported: the interval lies below the smallest difference that "
    "counts. Anything else, and fewer than two seeds or conversations, is not decided. The question is "
    "supported where all of its claims are, and not supported where one is not."
)


class Verdict(NamedTuple):
    """A claim and what became of it.

    Attributes:
        claim: The claim.
        decision: By RULE.
        difference: By how much the arm is better, in units of the metric; None where nothing was measured.
        interval: 95 % interval of it. p: Probability of such a difference where there is none, after Holm.
        seeds, conversations, clips: Numbers behind it.
        reason: Why a claim cannot be decided; empty otherwise.
    """

    claim: Claim
    decision: Decision
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    seeds: int = 0
    conversations: int = 0
    clips: int = 0
    reason: str = ""


class Gain(NamedTuple):
    """By how much the arm is better on one clip at one seed."""

    seed: int
    conversation: str
    value: float
    weight: float


def decide(claims: Sequence[Claim], measured: Sequence[Measured]) -> list[Verdict]:
    """Returns the verdict on each claim."""
    rows = [_weighed(claim, measured) for claim in claims]
    tested = [place for place, row in enumerate(rows) if row.p is not None]
    adjusted = dict(zip(tested, holm([rows[place].p or 0.0 for place in tested]), strict=True))
    return [_decided(row, adjusted.get(place)) for place, row in enumerate(rows)]


def overall(verdicts: Sequence[Verdict]) -> Decision:
    """Returns the verdict on a question."""
    decisions = [verdict.decision for verdict in verdicts]
    if "not supported" in decisions:
        return "not supported"
    return "supported" if decisions and set(decisions) == {"supported"} else "not decided"


def _decided(row: Verdict, p: float | None) -> Verdict:
    if row.interval is None or row.difference is None or p is None:
        return row
    low, high = row.interval
    decision: Decision = "not decided"
    if high < row.claim.least:
        decision = "not supported"
    elif low > 0 and p <= ERROR_RATE and row.difference >= row.claim.least:
        decision = "supported"
    return row._replace(decision=decision, p=p)


def _weighed(claim: Claim, measured: Sequence[Measured]) -> Verdict:
    """Returns a verdict that is not decided yet, with its difference and interval where there are any."""
    gains, reason = gains_of(claim, measured)
    row = Verdict(
        claim,
        "not decided",
        seeds=len({gain.seed for gain in gains}),
        conversations=len({gain.conversation for gain in gains}),
        clips=len(gains),
        reason=reason,
    )
    if reason:
        return row
    total = sum(gain.weight for gain in gains)
    row = row._replace(difference=sum(gain.value * gain.weight for gain in gains) / total)
    parts = [_interval(gains, name, claim) for name in ("seed", "conversation")]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return row._replace(reason="fewer than two seeds or conversations")
    low, high = (choose(part.ci95[end] for part in found) for end, choose in ((0, min), (1, max)))
    return row._replace(interval=(low, high), p=max(part.p for part in found))


def _interval(gains: Sequence[Gain], name: str, claim: Claim) -> MeanInterval | None:
    """Returns mean and interval over seeds or over conversations."""
    sums: dict[object, float] = {}
    weights: dict[object, float] = {}
    for gain in gains:
        group = getattr(gain, name)
        sums[group] = sums.get(group, 0.0) + gain.value * gain.weight
        weights[group] = weights.get(group, 0.0) + gain.weight
    seed = seed_for(0, f"{claim.metric}/{claim.arm}/{claim.against}/{name}")
    return mean_interval(list(sums.values()), list(weights.values()), repeats=REPEATS, seed=seed)


def gains_of(claim: Claim, measured: Sequence[Measured]) -> tuple[list[Gain], str]:
    """Returns the gains of all clips that both arms have, and why there are none, "" where there are some.

    A clip that failed in an arm counts at the worst end of the metric's scale. Where the scale has none, the
    claim cannot be decided: to leave the clip out could improve the arm.
    """
    chosen = [one for one in measured if one.scores.info.name == claim.metric]
    sides = {
        arm: {
            (one.seed, score.clip): score for one in chosen if one.arm == arm for score in one.scores.scores
        }
        for arm in (claim.arm, claim.against)
    }
    ours, theirs = sides[claim.arm], sides[claim.against]
    if not ours or not theirs:
        missing = [arm for arm, scores in sides.items() if not scores]
        return [], f"{claim.metric} was not measured of {' and '.join(missing)}"
    if ours.keys() != theirs.keys():
        return [], f"the clips of {claim.arm} and {claim.against} are not the same"
    info = chosen[0].scores.info
    sign = 1.0 if info.direction == "higher" else -1.0
    gains = []
    for key, score in ours.items():
        a, b = _value(score, info.worst), _value(theirs[key], info.worst)
        if a is None or b is None:
            return [], f"clip {score.clip} failed, and {claim.metric} has no worst end"
        gains.append(Gain(key[0], score.conversation, sign * (a - b), score.weight))
    return gains, ""


def _value(score: Score, worst: float | None) -> float | None:
    return worst if score.value is None else score.value
