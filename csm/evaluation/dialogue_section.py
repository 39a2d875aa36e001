"""The section that listens to whole dialogues: who speaks when, against the real conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from csm.evaluation import turn_taking as turns_of
from csm.evaluation.distributions import wasserstein_1
from csm.evaluation.findings import Findings
from csm.evaluation.judge import JUDGE_SAMPLE_RATE
from csm.evaluation.material import Material
from csm.evaluation.speech_folder import read_channels
from csm.evaluation.statistics import MetricInfo, Score, failed, judged, summarise_groups

SUBSET = "dialogues"
END_TO_END = (
    "where a corpus holds single clips, its real dialogues are those clips laid end to end: their gaps are "
    "the silence inside the clips and not what two people left between them"
)


def turns(material: Material) -> Findings:
    """Gaps, overlaps, pauses and floor-transfer offsets of each dialogue, and distances to the real ones."""
    findings = Findings(material)
    if not material.folder.dialogues:
        findings.missing.append("turn taking: the run has no dialogues")
        return findings
    vad = turns_of.VoiceActivity()
    heard: dict[str, list[tuple[str, turns_of.TurnTaking | str]]] = {}
    for condition in ("recording", "generated"):
        if any(condition in dialogue.audio for dialogue in material.folder.dialogues):
            heard[condition] = _listen(material, vad, condition)
    for condition, dialogues in heard.items():
        for info, value in _event_metrics(vad.evaluator):
            scores = [_score(name, outcome, value) for name, outcome in dialogues]
            present = [score for score in scores if score is not None]
            findings.add(info, present, condition=condition, subset=SUBSET)
    if set(heard) == {"recording", "generated"}:
        _distances(findings, vad.evaluator, heard["recording"], heard["generated"])
    findings.details["turn_taking"] = {
        condition: [_shown(name, outcome) for name, outcome in dialogues]
        for condition, dialogues in heard.items()
    }
    findings.details["turn_taking_note"] = END_TO_END
    return findings


def _listen(
    material: Material, vad: turns_of.VoiceActivity, condition: str
) -> list[tuple[str, turns_of.TurnTaking | str]]:
    outcomes: list[tuple[str, turns_of.TurnTaking | str]] = []
    for dialogue in material.folder.dialogues:
        if condition not in dialogue.audio:
            outcomes.append((dialogue.id, f"no {condition} was written"))
            continue
        try:
            channels, sample_rate = read_channels(material.folder.root / dialogue.audio[condition])
            outcomes.append((dialogue.id, turns_of.listen(vad, channels, sample_rate)))
        except ValueError as error:
            outcomes.append((dialogue.id, str(error)))
    return outcomes


Value = Callable[[turns_of.TurnTaking], tuple[float, float] | None]  # (value, weight)


def _mean(values: Sequence[float]) -> tuple[float, float] | None:
    return (sum(values) / len(values), float(len(values))) if values else None


def _event_metrics(evaluator: str) -> list[tuple[MetricInfo, Value]]:
    rows: list[tuple[str, str, str, str, Value]] = [
        (
            "fto",
            "Floor-transfer offset",
            "ms",
            "onset of the next speaker minus offset of the previous; overlaps are negative",
            lambda events: _mean(events.fto),
        ),
        ("gap", "Gap between speakers", "ms", "mean silence at a change of speaker", lambda e: _mean(e.gap)),
        ("pause", "Pause", "ms", "mean silence inside a speaker's turn", lambda e: _mean(e.pause)),
        ("ipu", "Length of inter-pausal units", "ms", "gaps under 200 ms merged", lambda e: _mean(e.ipu)),
        (
            "overlap_share",
            "Changes of speaker with overlap",
            "share of changes",
            "changes with negative offset",
            lambda e: (len(e.overlap_between) / len(e.fto), float(len(e.fto))) if e.fto else None,
        ),
        (
            "changes_per_minute",
            "Changes of speaker",
            "per minute",
            "floor transfers per minute",
            lambda e: (e.per_minute(len(e.fto)), e.duration),
        ),
        (
            "backchannels_per_minute",
            "Backchannels",
            "per minute",
            "units of at most 1 s with 1 s of own silence on both sides",
            lambda e: (e.per_minute(e.backchannels), e.duration),
        ),
    ]
    return [
        (
            MetricInfo(
                name=name,
                title=title,
                area="turn taking",
                unit=unit,
                direction="nearer_to_recording",
                evaluator=evaluator,
                sample_rate=JUDGE_SAMPLE_RATE,
                definition=definition,
            ),
            value,
        )
        for name, title, unit, definition, value in rows
    ]


def _score(name: str, outcome: turns_of.TurnTaking | str, value: Value) -> Score | None:
    """``None`` where the dialogue has no such event: there is nothing to judge, and nothing failed."""
    if isinstance(outcome, str):
        return failed(name, name, outcome)
    found = value(outcome)
    if found is None:
        return None
    return judged(name, name, found[0], weight=found[1])


def _distances(
    findings: Findings,
    evaluator: str,
    real: list[tuple[str, turns_of.TurnTaking | str]],
    generated: list[tuple[str, turns_of.TurnTaking | str]],
) -> None:
    """FTO of generated against real dialogues: W1, Jensen-Shannon divergence, KS; and W1 of pauses, IPUs."""
    groups: list[tuple[turns_of.TurnTaking, turns_of.TurnTaking]] = []
    failures: dict[str, int] = {}
    for (_, first), (_, second) in zip(real, generated, strict=True):
        if isinstance(first, str) or isinstance(second, str):
            reason = second if isinstance(second, str) else f"recording: {first}"
            failures[reason] = failures.get(reason, 0) + 1
        else:
            groups.append((first, second))
    rows: list[tuple[str, str, str, str]] = [
        ("wasserstein_1", "FTO, Wasserstein-1", "ms", "fto"),
        ("jensen_shannon_divergence", "FTO, Jensen-Shannon divergence", "bit", "fto"),
        ("kolmogorov_smirnov", "FTO, Kolmogorov-Smirnov", "0 to 1", "fto"),
        ("wasserstein_1", "Pause length, Wasserstein-1", "ms", "pause"),
        ("wasserstein_1", "Inter-pausal units, Wasserstein-1", "ms", "ipu"),
    ]
    options = findings.material.options
    for measure, title, unit, events in rows:

        def distance(
            picked: list[tuple[turns_of.TurnTaking, turns_of.TurnTaking]],
            measure: str = measure,
            events: str = events,
        ) -> float | None:
            left = [value for first, _ in picked for value in getattr(first, events)]
            right = [value for _, second in picked for value in getattr(second, events)]
            if not left or not right:
                return None
            if events != "fto":
                return wasserstein_1(left, right)
            return turns_of.compare_offsets(right, left)[measure]

        info = MetricInfo(
            name=f"{events}_{measure}",
            title=title,
            area="turn taking",
            unit=unit,
            direction="lower",
            evaluator=evaluator,
            sample_rate=JUDGE_SAMPLE_RATE,
            definition="generated dialogues against the real ones"
            + ("; base 2, 50 ms bins in [-2, 2] s" if measure.startswith("jensen") else "")
            + f"; {END_TO_END}",
        )
        findings.entries.append(
            summarise_groups(
                info,
                groups,
                distance,
                condition="generated",
                subset=SUBSET,
                n_in=len(real),
                failures=failures,
                repeats=options.repeats,
                seed=options.seed,
            )
        )


def _shown(name: str, outcome: turns_of.TurnTaking | str) -> dict[str, Any]:
    if isinstance(outcome, str):
        return {"dialogue": name, "reason": outcome}
    return {
        "dialogue": name,
        "duration": outcome.duration,
        "units": [[list(unit) for unit in channel] for channel in outcome.units],
        "fto": outcome.fto,
    }
