"""A change is counted line by line, between the conditions that differ in one thing."""

from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.core.statistics import summarise
from csm.evaluation.subjects.voice_changes import changes
from csm.evaluation.subjects.voice_lines import MAIN

OPTIONS = RunnerOptions(repeats=50)


def entry(name, condition, values, group=MAIN):
    scores = [
        Score(
            clip=f"l{i}",
            conversation=f"c{i // 2}",
            value=value,
            weight=1.0 + i,
            reason="no audio" if value is None else None,
        )
        for i, value in enumerate(values)
    ]
    about = {"title": name, "area": "a", "unit": "u", "direction": "lower", "evaluator": "e"}
    info = MetricInfo(name=name, definition="d", **about)
    return summarise(Scores(info=info, scores=scores), group=group, condition=condition, repeats=5)


def test_changes_are_weighted_and_have_intervals():
    entries = [
        entry("wer", "generated", [0.0, 0.5, 0.0, 1.0]),
        entry("wer", "cross_attention_off", [1.0, 0.5, 1.0, 1.0]),
        entry("wer", "generated", [9.0] * 4, group="other voices"),
    ]
    (change,) = changes(entries, OPTIONS)
    assert change.name == "wer_change" and change.condition == "cross_attention_off"
    assert change.mean == (1 * 1 + 3 * 1) / 10 and change.ci95[0] <= 0.4 <= change.ci95[1]
    assert "difference to generated" in change.definition


def test_memory_off_is_compared_with_in_context_and_a_lost_line_leaves_no_mean():
    entries = [
        entry("speaker_similarity", "generated", [0.5] * 4),
        entry("speaker_similarity", "in_context", [0.75] * 4),
        entry("speaker_similarity", "in_context_memory_off", [0.25, 0.25, 0.25, None]),
        entry("stoi", "in_context", [0.5] * 4),
    ]
    context, memory = changes(entries, OPTIONS)
    assert context.mean == 0.25 and context.condition == "in_context"
    assert memory.mean is None and memory.mean_of_scored == -0.5
    assert memory.failures == {"no audio": 1}
    assert changes([], OPTIONS) == []
