"""Typed lines are spoken by the speakers in turn, in one session, with a transcript."""

import json

import pytest
import soundfile

from csm.generation.typed_conversation import free_path, typed_conversation

LINES = ["How are you?", "", "  Not too bad.  ", "JOE: And: you?", "FAYE says hi: twice."]


def test_lines_go_to_the_speakers_in_turn_unless_one_is_named(talker, tmp_path):
    spoken = list(typed_conversation(talker, LINES, ["FAYE", "JOE"], tmp_path / "talk"))
    assert [name for _, name, _ in spoken] == ["FAYE", "JOE", "JOE", "FAYE"]
    rows = [json.loads(line) for line in (tmp_path / "talk" / "transcript.jsonl").read_text().splitlines()]
    assert [(row["speaker"], row["text"]) for row in rows] == [
        ("FAYE", "How are you?"),
        ("JOE", "Not too bad."),
        ("JOE", "And: you?"),
        ("FAYE", "FAYE says hi: twice."),
    ]
    for row, (path, _, speech) in zip(rows, spoken, strict=True):
        assert path == tmp_path / "talk" / row["audio"] and row["timing"] == speech.timing._asdict()
        assert soundfile.info(path).frames == speech.waveform.shape[1]


def test_each_line_is_spoken_in_the_session_of_those_before_it(talker, tmp_path):
    spoken = list(typed_conversation(talker, ["Hello. There.", "Yes."], ["JOE", "FAYE"], tmp_path / "talk"))
    session = talker.session()
    for (_, name, speech), text in zip(spoken, ["Hello. There.", "Yes."], strict=True):
        assert (speech.codes == talker.speak_turn(text, name, session=session).codes).all()
    assert [turn.turn.text for turn in session.turns] == ["Hello. There.", "Yes."]


def test_a_folder_in_use_and_an_unknown_speaker_are_refused_before_anything_is_written(talker, tmp_path):
    with pytest.raises(ValueError, match="speaker is 'BOB'"):
        next(typed_conversation(talker, LINES, ["JOE", "BOB"], tmp_path / "talk"))
    assert not (tmp_path / "talk").exists()
    next(typed_conversation(talker, LINES, ["JOE"], tmp_path / "talk"))
    with pytest.raises(ValueError, match="holds a conversation already"):
        next(typed_conversation(talker, LINES, ["JOE"], tmp_path / "talk"))


def test_the_first_free_name_is_taken(tmp_path):
    assert free_path(tmp_path, ".wav").name == "000.wav"
    (tmp_path / "000.wav").touch()
    assert free_path(tmp_path, ".wav").name == "001.wav" and free_path(tmp_path).name == "000"
