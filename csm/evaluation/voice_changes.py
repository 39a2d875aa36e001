"""How a version of the main voice's lines differs from another, line by line: the lines cancel out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csm.evaluation.statistics import MetricInfo, Score, failed, judged, summarise
from csm.evaluation.voice_lines import MAIN
from csm.evaluation.voice_speech import CROSS_OFF, GENERATED, IN_CONTEXT, INT8, MEMORY_OFF, SEMANTIC

COMPARED = ("wer", "speaker_similarity", "distillmos")
# Each version, and the one that differs from it in one thing alone.
AGAINST = {
    IN_CONTEXT: GENERATED,
    MEMORY_OFF: IN_CONTEXT,
    CROSS_OFF: GENERATED,
    SEMANTIC: GENERATED,
    INT8: GENERATED,
}


def changes(entries: Sequence[Mapping[str, Any]], *, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Mean change of each compared metric with its interval, as entries named "wer_change" and so on.

    Args:
        entries: Of the report, with values per line.
        repeats, seed: Of the bootstrap over conversations.
    """
    found = {(entry["name"], entry["condition"]): entry for entry in entries if entry["subset"] == MAIN}
    changed = []
    for version, other in AGAINST.items():
        for name in COMPARED:
            new, old = found.get((name, version)), found.get((name, other))
            if new is None or old is None:
                continue
            info = MetricInfo(
                name=f"{name}_change",
                title=f"{new['title']}: change",
                area=new["area"],
                unit=new["unit"],
                direction=new["direction"],
                evaluator=new["evaluator"],
                sample_rate=new["sample_rate"],
                definition=f"mean over the same lines of the difference to {other}; {new['definition']}",
            )
            scores = _differences(old["values"], new["values"])
            changed.append(
                summarise(info, scores, condition=version, subset=MAIN, repeats=repeats, seed=seed)
            )
    return changed


def _differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Score]:
    scores = []
    for before, after in zip(old, new, strict=True):
        clip, conversation, weight = after["id"], after["conversation"], after["weight"]
        assert before["id"] == clip
        if before["value"] is None or after["value"] is None:
            reason = str(before["reason"] or after["reason"])
            scores.append(failed(clip, conversation, reason, weight=weight))
        else:
            scores.append(judged(clip, conversation, after["value"] - before["value"], weight=weight))
    return scores
