"""Tables of turns, one file a turn."""

import pytest

from tests.data.corpora.layouts.small_trees import ledger, lines, prepared, said, sound, text

ROWS = [
    {"conversation_id": "c1", "turn_id": 10, "speaker": "Ben", "text": 'Hi, "you".', "path": "clips/b.wav"},
    {"conversation_id": "c1", "turn_id": 9, "speaker": "Ann", "text": "Hello.", "path": "clips/a.wav"},
    {"conversation_id": "c2", "turn_id": 0, "speaker": "Ann", "text": "", "path": "clips/a.wav"},
    {"conversation_id": "c2", "turn_id": 1, "speaker": "Ann", "text": "So.", "path": "Clips/A.wav"},
    {"conversation_id": "c2", "turn_id": 2, "speaker": "Ann", "text": "None.", "path": "clips/a.wav"},
]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_turns_of_a_conversation_are_in_the_order_of_their_numbers(tmp_path, ending: str) -> None:
    for name in "ab":
        sound(tmp_path / f"in/clips/{name}.wav")
    if ending == "jsonl":
        lines(tmp_path / "in/turns.jsonl", *ROWS, {**ROWS[0], "text": None})
    else:
        mark = "\t" if ending == "tsv" else ","
        quoted = [
            [str(v) if ending == "tsv" else '"' + str(v).replace('"', '""') + '"' for v in r.values()]
            for r in ROWS
        ]
        table = [mark.join(ROWS[0]), *map(mark.join, quoted)]
        text(tmp_path / f"in/turns.{ending}", "\n".join(table) + "\n")
    corpus = prepared(tmp_path)
    assert [entry[:3] for entry in said(corpus)] == [
        ("c1", "Ann", "Hello."),
        ("c1", "Ben", 'Hi, "you".'),
        ("c2", "Ann", "None."),
    ]
    assert "text is empty" in ledger(corpus) and "another name by case or Unicode form" in ledger(corpus)
    assert ("text is null" in ledger(corpus)) == (ending == "jsonl")
