"""Recordings with .txt or .json beside them."""

import json
import unicodedata

from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text

TURN = {"speaker": "Ann", "start": 0.1, "end": 0.9, "text": "Well, hello.", "channel": 0, "emotion": "glad"}


def test_turns_texts_and_names_are_read_and_the_rest_waits_for_transcription(tmp_path) -> None:
    sound(tmp_path / "in/two.wav", channels=2)
    text(tmp_path / "in/two.json", {"turns": [TURN, {**TURN, "channel": 1, "speaker": "Ben"}]})
    sound(tmp_path / "in/maria/one.wav")
    text(tmp_path / "in/maria/one.txt", "Guten  Tag.")
    sound(tmp_path / "in/bare.wav")
    sound(tmp_path / "in/named.wav", channels=2)
    text(tmp_path / "in/named.json", {"speakers": ["Ann", "Ben"]})
    corpus = prepared(tmp_path)
    assert [entry[1:4] for entry in said(corpus)] == [
        ("maria", "Guten Tag.", 0),
        ("Ann", "Well, hello.", 0),
        ("Ben", "Well, hello.", 1),
    ]
    assert ledger(corpus).count("--transcribe recognises them") == 2


def test_no_sidecar_gives_an_empty_text_or_the_word_none(tmp_path) -> None:
    bad = {
        "unknown": {"alignment": []},
        "null": {"text": None},
        "nulls": {"turns": [{**TURN, "text": None}]},
        "alike": {
            "turns": [
                {**TURN, "text": "x", "emotoin": "sad"} | {"emotion": 1},
                {"Text": "x", **TURN} | {"text": ""},
            ]
        },
        "capital": {"Turns": [TURN]},
        "number": {"text": 5},
    }
    for name, content in bad.items():
        sound(tmp_path / f"in/{name}.wav", channels=1)
        text(tmp_path / f"in/{name}.json", content)
    sound(tmp_path / "in/good.wav")
    text(tmp_path / "in/good.txt", "Fine.")
    corpus = prepared(tmp_path, layout="sidecars")
    assert {turn.text for turn in corpus.turns()} == {"Fine.", "x"}
    reasons = ledger(corpus)
    for reason in (
        "turns or text or speakers is missing",
        "text is null",
        "text is 5",
        "has 'Turns'; rename",
    ):
        assert reason in reasons


def test_a_transcript_whose_name_differs_by_case_or_unicode_form_is_not_overlooked(tmp_path) -> None:
    sound(tmp_path / "in/Talk.wav", channels=2)
    text(tmp_path / "in/talk.json", {"turns": [TURN]})
    sound(tmp_path / "in" / (unicodedata.normalize("NFC", "caf\u00e9") + ".wav"))
    text(tmp_path / "in" / (unicodedata.normalize("NFD", "caf\u00e9") + ".txt"), "Coffee.")
    sound(tmp_path / "in/good.wav")
    text(tmp_path / "in/good.txt", "Fine.")
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["Fine."]
    assert ledger(corpus).count("another name by case or Unicode form") == 2


def test_one_bad_recording_or_turn_is_named_and_the_others_are_prepared(tmp_path) -> None:
    bad = {
        "lone": {"text": "lone \ud800 here"},
        "null": {"text": "Who?", "speaker": None},
        "whisper": {"text": "So.", "segments": []},
        "moshi": {"text": "So.", "alignments": []},
    }
    for name, content in bad.items():
        sound(tmp_path / f"in/{name}.wav")
        text(tmp_path / f"in/{name}.json", content)
    channels = [[0], -1, 0.6, True, "x", 10**30]
    sound(tmp_path / "in/talk.wav", channels=2)
    text(tmp_path / "in/talk.json", [TURN, *({**TURN, "channel": channel} for channel in channels), 5])
    corpus = prepared(tmp_path, layout="sidecars")
    assert [turn.text for turn in corpus.turns()] == ["Well, hello."]
    reasons = [json.loads(line) for line in ledger(corpus).splitlines()]
    found = {entry["source"]: entry["reason"] for entry in reasons}
    assert all(f"talk, turn {number}" in found for number in range(1, 8))
    assert "holds the lone surrogate '\\ud800'" in found["lone.wav"]
    assert found["null.wav"] == "speaker is null: expected a name"
    assert "--layout whisper" in found["whisper.wav"] and "--layout moshi" in found["moshi.wav"]
    assert all(found[f"{name}.json"] == "its recording is left out" for name in bad)
