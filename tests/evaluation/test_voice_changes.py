"""A change is counted line by line, between the versions that differ in one thing."""

from csm.evaluation.voice_changes import changes
from csm.evaluation.voice_lines import MAIN


def entry(name, version, values, subset=MAIN):
    rows = [
        {"id": f"l{i}", "conversation": f"c{i // 2}", "value": value, "weight": 1.0 + i, "reason": None}
        for i, value in enumerate(values)
    ]
    for row in rows:
        row["reason"] = "no audio" if row["value"] is None else None
    about = {"title": name, "area": "a", "unit": "u", "direction": "lower", "evaluator": "e"}
    about |= {"sample_rate": 16000, "definition": "d"}
    return {"name": name, "condition": version, "subset": subset, "values": rows, **about}


def test_changes_are_weighted_and_have_intervals():
    entries = [
        entry("wer", "generated", [0.0, 0.5, 0.0, 1.0]),
        entry("wer", "cross_attention_off", [1.0, 0.5, 1.0, 1.0]),
        entry("wer", "generated", [9.0] * 4, subset="other voices"),
    ]
    (change,) = changes(entries, repeats=50, seed=0)
    assert change["name"] == "wer_change" and change["condition"] == "cross_attention_off"
    assert change["mean"] == (1 * 1 + 3 * 1) / 10 and change["ci95"][0] <= 0.4 <= change["ci95"][1]
    assert "difference to generated" in change["definition"]


def test_memory_off_is_held_against_in_context_and_a_lost_line_leaves_no_mean():
    entries = [
        entry("speaker_similarity", "generated", [0.5] * 4),
        entry("speaker_similarity", "in_context", [0.75] * 4),
        entry("speaker_similarity", "in_context_memory_off", [0.25, 0.25, 0.25, None]),
        entry("stoi", "in_context", [0.5] * 4),
    ]
    context, memory = changes(entries, repeats=50, seed=0)
    assert context["mean"] == 0.25 and context["condition"] == "in_context"
    assert memory["mean"] is None and memory["mean_of_judged"] == -0.5
    assert memory["failures"] == {"no audio": 1}
    assert changes([], repeats=5, seed=0) == []
