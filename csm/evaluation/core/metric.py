"""What a metric is: its description, its scores, and how it is measured on a set of clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets, prepared
from csm.evaluation.core.evaluators import EvaluatorUnavailable

DIRECTIONS = ("higher", "lower", "nearer_to_recording", "none")


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one clip: a value, or the reason why there is none.

    Attributes:
        clip: Id of the clip.
        conversation: Id of what the bootstrap resamples.
        value: The value, None for a failure.
        weight: Size of the clip in the pooled mean; for word error rate its number of words.
        reason: Why there is no value.
        detail: What a reader wants to see beside the value: a transcript, a name.
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
            raise ValueError(f"score of {self.clip}: weight is {self.weight}: expected a number above 0")


def scored(clip: Clip, value: float, *, weight: float = 1.0, detail: str | None = None) -> Score:
    """Returns a score, or a counted failure where the value is not finite."""
    if not math.isfinite(value):
        return failed(clip, f"the evaluator returned {value}", weight=weight)
    return Score(
        clip=clip.id, conversation=clip.conversation, value=float(value), weight=weight, detail=detail
    )


def failed(clip: Clip, reason: str | None, *, weight: float = 1.0) -> Score:
    """Returns the failure of a clip, with its reason in one short line."""
    first_line = " ".join((reason or "no audio").split())[:200]
    return Score(clip=clip.id, conversation=clip.conversation, value=None, weight=weight, reason=first_line)


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """Description of a metric: everything that does not depend on the clips.

    Attributes:
        name: Name in the report. title: Name for readers. area: Heading that it stands under.
        unit: Unit or scale of the value.
        direction: One of `DIRECTIONS`.
        evaluator: Package or module, with its version.
        definition: Formula and conditions in one sentence.
        worst, best: Ends of the scale, None where the scale has none. No interval goes beyond them.
        sample_rate: Rate in Hz at which audio is evaluated.
    """

    name: str
    title: str
    area: str
    unit: str
    direction: str
    evaluator: str
    definition: str
    worst: float | None = None
    best: float | None = None
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction of {self.name} is {self.direction!r}: expected one of {DIRECTIONS}")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One score for each clip.

    Attributes:
        info: The metric. scores: Its scores.
        condition: Condition in the report where it is not that of the set.
        quantiles: Whether the report also gives percentiles, and the interval of the median.
    """

    info: MetricInfo
    scores: Sequence[Score]
    condition: str | None = None
    quantiles: bool = False


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """One number of all clips together, such as a distance of distributions.

    Attributes:
        info: The metric.
        groups: What was measured, one item for each conversation; the bootstrap resamples them.
        statistic: The number of any list of groups; None where it is not defined.
        n_in: Number of inputs. failures: Number of inputs that are not in `groups`, by reason.
        most_repeats: Upper limit of the bootstrap's repeats.
        condition: Condition in the report where it is not that of the set.
    """

    info: MetricInfo
    groups: Sequence[Any]
    statistic: Callable[[list[Any]], float | None]
    n_in: int
    failures: Mapping[str, int] = field(default_factory=dict)
    most_repeats: int | None = None
    condition: str | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with an interval of its own.

    Attributes:
        info: The metric. value: The number, None where all inputs failed. ci95: Its 95 % interval.
        n_in: Number of inputs. failures: Number of failed inputs by reason.
        conversations: Number of groups behind the interval.
    """

    info: MetricInfo
    value: float | None
    ci95: list[float] | None = None
    n_in: int
    failures: Mapping[str, int] = field(default_factory=dict)
    conversations: int = 1


Measurement = Scores | Pooled | Estimate


class Metric:
    """A metric, or a family of metrics that share an evaluator.

    A subclass loads its evaluator in `__init__` and measures one set of clips at a time.

    Attributes:
        missing: Why parts of it could not be measured, a sentence each.
        details: Named data for the page, as JSON values.

    Raises:
        EvaluatorUnavailable: From `__init__`, where a package is not installed.
        NotMeasurable: From `__init__`, where the inputs lack what the metric needs.
    """

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.details: dict[str, Any] = {}

    def choose(self, sets: ClipSets) -> Sequence[ClipSet]:
        """Returns the sets that the metric is measured on; by default all of single utterances."""
        return sets.mono

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterable[Measurement]:
        """Yields the measurements of one set.

        Args:
            clips: The set.
            recording: The reference set of the same group, clip for clip.
        """
        raise NotImplementedError


def score_each(
    clips: Sequence[Clip],
    measure: Callable[[Clip], float | tuple[float, str]],
    *,
    weight: Callable[[Clip], float] | None = None,
) -> list[Score]:
    """Measures every clip at the evaluators' rate; an exception becomes a failure with its reason.

    An exception is never turned into a value: it is counted.
    """
    scores = []
    for item in clips:
        clip = prepared(item)
        size = 1.0 if weight is None else weight(clip)
        if clip.waveform is None:
            scores.append(failed(clip, clip.reason, weight=size))
            continue
        try:
            outcome = measure(clip)
        except EvaluatorUnavailable:
            raise  # the metric is missing for all clips, which is no failure of this clip
        except Exception as error:  # counted with its reason, never scored
            scores.append(failed(clip, f"{type(error).__name__}: {error}", weight=size))
            continue
        value, detail = outcome if isinstance(outcome, tuple) else (outcome, None)
        scores.append(scored(clip, value, weight=size, detail=detail))
    return scores
