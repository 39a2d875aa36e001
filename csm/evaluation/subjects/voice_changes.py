"""Change of a metric from one condition of the main voice's lines to another, line by line."""

from __future__ import annotations

from collections.abc import Sequence

from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.evaluation.core.report import Entry
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.core.statistics import summarise
from csm.evaluation.subjects.voice_lines import MAIN
from csm.evaluation.subjects.voice_speech import CROSS_OFF, GENERATED, IN_CONTEXT, INT8, MEMORY_OFF, SEMANTIC

COMPARED = ("wer", "speaker_similarity", "distillmos")
# Each condition, and the one from which it differs in one thing alone.
AGAINST = {
    IN_CONTEXT: GENERATED,
    MEMORY_OFF: IN_CONTEXT,
    CROSS_OFF: GENERATED,
    SEMANTIC: GENERATED,
    INT8: GENERATED,
}


def changes(entries: Sequence[Entry], options: RunnerOptions) -> list[Entry]:
    """Computes the mean change of each compared metric with its interval, as "wer_change" and so on.

    Args:
        entries: Entries of the report, with values for each line.
        options: Repeats and seed of the bootstrap over conversations.
    """
    found = {(entry.name, entry.condition): entry for entry in entries if entry.group == MAIN}
    changed = []
    for condition, other in AGAINST.items():
        for name in COMPARED:
            new, old = found.get((name, condition)), found.get((name, other))
            if new is None or old is None:
                continue
            info = MetricInfo(
                name=f"{name}_change",
                title=f"{new.title}: change",
                area=new.area,
                unit=new.unit,
                direction=new.direction,
                evaluator=new.evaluator,
                sample_rate=new.sample_rate,
                definition=f"mean over the same lines of the difference to {other}; {new.definition}",
            )
            measured = Scores(info=info, scores=differences(old.values, new.values))
            changed.append(
                summarise(
                    measured, group=MAIN, condition=condition, repeats=options.repeats, seed=options.seed
                )
            )
    return changed


def differences(old: Sequence[Score], new: Sequence[Score]) -> list[Score]:
    """Subtracts scores clip by clip; a failure of either is a failure."""
    scores = []
    for before, after in zip(old, new, strict=True):
        assert before.clip == after.clip
        value, reason = None, before.reason or after.reason
        if before.value is not None and after.value is not None:
            value, reason = after.value - before.value, None
        scores.append(
            Score(
                clip=after.clip,
                conversation=after.conversation,
                value=value,
                weight=after.weight,
                reason=reason,
            )
        )
    return scores
