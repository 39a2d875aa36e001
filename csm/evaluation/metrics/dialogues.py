"""Timing of dialogues: pauses and units of speech; gaps and overlaps where two people share a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.metric import Measurement, Metric, MetricInfo, Pooled, Score, Scores, failed, scored
from csm.evaluation.core.statistics import pairs_by_conversation
from csm.evaluation.metrics.distributions import (
    jensen_shannon_divergence,
    kolmogorov_smirnov,
    wasserstein_1,
)
from csm.evaluation.metrics.turn_taking import TurnTaking, VoiceActivity, events_of

FTO_LOW, FTO_HIGH, FTO_BIN = -2000.0, 2000.0, 50.0  # milliseconds
LAID_END_TO_END = (
    "gaps, overlaps and floor-transfer offsets: the recorded dialogues are single clips laid end to end, so "
    "that their gaps are no timing between two people; they need recordings with one channel for each speaker"
)
Outcome = tuple[float, float] | str | None  # value and weight; why it failed; None: no such event, no failure
Value = Callable[[TurnTaking], Outcome]
NO_TRANSFER = "no change of speaker"


class DialogueTiming(Metric):
    """Pauses, units and, where the timing is real, gaps and overlaps of dialogues, and distances to real
    ones.

    A dialogue's timing is real where `facts["shared_recording"]` of its recording says that its speakers were
    recorded together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.activity = VoiceActivity()
        self._events: dict[ClipSet, list[TurnTaking | str]] = {}
        self.real_timing = False
        self.details["turn_taking"] = {}

    def choose(self, sets: ClipSets) -> Sequence[ClipSet]:
        """Returns the sets of whole dialogues.

        Raises:
            NotMeasurable: There are no dialogues.
        """
        found = [one for one in sets if one.kind == "dialogues"]
        if not found:
            raise NotMeasurable("turn taking: the run has no dialogues")
        recorded = [clip for one in found if one.condition == sets.reference for clip in one.clips]
        shared = [clip.facts.get("shared_recording", False) for clip in recorded]
        self.real_timing = bool(shared) and all(shared)
        if not self.real_timing:
            self.missing.append(LAID_END_TO_END)
        return found

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Measurement]:
        """Yields events of each dialogue and, for generated ones, distances of their distributions."""
        events = self._events_of(clips)
        for info, value in event_infos(self.activity.evaluator, floor=self.real_timing):
            found = [_score(c, one, value) for c, one in zip(clips.clips, events, strict=True)]
            yield Scores(info=info, scores=[score for score in found if score is not None])
        if recording is not None and clips is not recording:
            real = self._events_of(recording)
            for info, distance in distance_infos(self.activity.evaluator, floor=self.real_timing):
                own = _with_transfers(events) if info.name.startswith("fto") else events
                groups, failures = pairs_by_conversation(clips.clips, real, own)
                yield Pooled(
                    info=info,
                    groups=[pair for group in groups for pair in group],
                    statistic=distance,
                    n_in=len(clips.clips),
                    failures=failures,
                )

    def _events_of(self, clips: ClipSet) -> list[TurnTaking | str]:
        if clips not in self._events:
            found = [events_of(self.activity, clip) for clip in clips.clips]
            self._events[clips] = found
            shown = [_shown(c.id, one) for c, one in zip(clips.clips, found, strict=True)]
            self.details["turn_taking"][clips.condition] = shown
        return self._events[clips]


def _with_transfers(events: Sequence[TurnTaking | str]) -> list[TurnTaking | str]:
    """Puts a reason in place of each dialogue without floor transfers.

    A distance over all dialogues has no value of theirs, so they would leave it without being counted.
    """
    return [NO_TRANSFER if isinstance(one, TurnTaking) and not one.fto else one for one in events]


def _mean(values: Sequence[float]) -> tuple[float, float] | None:
    return (sum(values) / len(values), float(len(values))) if values else None


def _mean_gap(events: TurnTaking) -> Outcome:
    """Mean gap; a dialogue whose transfers all overlap has none, and did not fail."""
    return _mean(events.gap) if events.fto else NO_TRANSFER


def event_infos(evaluator: str, *, floor: bool) -> list[tuple[MetricInfo, Value]]:
    """Describes the events of a dialogue, each with the value and weight of one dialogue.

    Args:
        evaluator: Voice activity detector.
        floor: Whether to include those that depend on when the floor changes.
    """
    rows: list[tuple[str, str, str, str, Value]] = [
        ("pause", "Pause", "ms", "mean silence inside a speaker's turn", lambda e: _mean(e.pause)),
        ("ipu", "Length of inter-pausal units", "ms", "gaps under 200 ms merged", lambda e: _mean(e.ipu)),
    ]
    floor_rows: list[tuple[str, str, str, str, Value]] = [
        (
            "fto",
            "Floor-transfer offset",
            "ms",
            "onset of the next speaker minus offset of the previous; overlaps are negative",
            lambda e: _mean(e.fto) or NO_TRANSFER,
        ),
        ("gap", "Gap between speakers", "ms", "mean silence at a change of speaker", _mean_gap),
        (
            "overlap_share",
            "Changes of speaker with overlap",
            "share of changes",
            "changes with negative offset",
            lambda e: (len(e.overlap_between) / len(e.fto), float(len(e.fto))) if e.fto else NO_TRANSFER,
        ),
        (
            "changes_per_minute",
            "Changes of speaker",
            "per minute",
            "floor transfers per minute",
            lambda e: (e.per_minute(len(e.fto)), e.duration),
        ),
        (
            "shifts_per_minute",
            "Silences that change the speaker",
            "per minute",
            "mutual silences between a second of one speaker alone and a second of the other alone",
            lambda e: (e.per_minute(e.shifts), e.duration),
        ),
        (
            "holds_per_minute",
            "Silences that one speaker keeps",
            "per minute",
            "mutual silences between two seconds of one speaker alone",
            lambda e: (e.per_minute(e.holds), e.duration),
        ),
        (
            "backchannels_per_minute",
            "Backchannels",
            "per minute",
            "units of at most 1 s with 1 s of own silence on both sides, own pauses filled",
            lambda e: (e.per_minute(e.backchannels), e.duration),
        ),
    ]
    return [
        (_info(name, title, unit, "nearer_to_recording", evaluator, definition), value)
        for name, title, unit, definition, value in (floor_rows + rows if floor else rows)
    ]


# Events, name of the measure, title, unit, addition to the definition, measure.
DistanceRow = tuple[str, str, str, str, str, Callable[[list[float], list[float]], float]]
Distance = Callable[[list[tuple[TurnTaking, TurnTaking]]], float | None]


def distance_infos(evaluator: str, *, floor: bool) -> list[tuple[MetricInfo, Distance]]:
    """Describes distances of generated from real dialogues, over the events of all dialogues pooled."""
    bins = "; base 2, 50 ms bins in [-2, 2] s"
    rows: list[DistanceRow] = [
        ("pause", "wasserstein_1", "Pause length, Wasserstein-1", "ms", "", wasserstein_1),
        ("ipu", "wasserstein_1", "Inter-pausal units, Wasserstein-1", "ms", "", wasserstein_1),
    ]
    floor_rows: list[DistanceRow] = [
        ("fto", "wasserstein_1", "FTO, Wasserstein-1", "ms", "", wasserstein_1),
        ("fto", "jensen_shannon_divergence", "FTO, Jensen-Shannon divergence", "bit", bins, _divergence),
        ("fto", "kolmogorov_smirnov", "FTO, Kolmogorov-Smirnov", "0 to 1", "", kolmogorov_smirnov),
    ]

    def pooled(events: str, measure: Callable[[list[float], list[float]], float]) -> Distance:
        def distance(picked: list[tuple[TurnTaking, TurnTaking]]) -> float | None:
            left = [value for first, _ in picked for value in getattr(first, events)]
            right = [value for _, second in picked for value in getattr(second, events)]
            return measure(right, left) if left and right else None

        return distance

    definition = "generated dialogues against the real ones"
    return [
        (
            _info(f"{events}_{name}", title, unit, "lower", evaluator, definition + more),
            pooled(events, measure),
        )
        for events, name, title, unit, more, measure in (floor_rows + rows if floor else rows)
    ]


def _divergence(left: list[float], right: list[float]) -> float:
    return jensen_shannon_divergence(left, right, low=FTO_LOW, high=FTO_HIGH, width=FTO_BIN)


def _info(name: str, title: str, unit: str, direction: str, evaluator: str, definition: str) -> MetricInfo:
    bounded = name.endswith(("jensen_shannon_divergence", "kolmogorov_smirnov"))
    worst = 1.0 if bounded else None
    return MetricInfo(
        name=name,
        title=title,
        area="turn taking",
        unit=unit,
        direction=direction,
        evaluator=evaluator,
        sample_rate=EVALUATION_RATE,
        worst=worst,
        definition=definition,
    )


def _score(clip: Clip, events: TurnTaking | str, value: Value) -> Score | None:
    """Returns None where a dialogue of speech has no such event: nothing to score, and nothing failed."""
    if isinstance(events, str):
        return failed(clip, events)
    found = value(events)
    if isinstance(found, str):
        return failed(clip, found)
    return None if found is None else scored(clip, found[0], weight=found[1])


def _shown(name: str, events: TurnTaking | str) -> dict[str, Any]:
    if isinstance(events, str):
        return {"dialogue": name, "reason": events}
    return {
        "dialogue": name,
        "duration": events.duration,
        "units": [[list(unit) for unit in channel] for channel in events.units],
        "fto": events.fto,
    }
