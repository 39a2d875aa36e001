"""Voices are found by name, and a file of voices gives them back."""

import json

import pytest
import torch

from csm.generation.voices import Voice, find_voice, known_numbers, read_voices, write_voices

VOICES = {
    "JOE": Voice("JOE", 3, torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0]])),
    "FAYE": Voice("FAYE", 1, torch.tensor([[1.0, 0.0]])),
}
CONSENT = {"ANNA": Voice("ANNA", 2, torch.tensor([[1.0, 0.0]]), consent="signed 2026-11-01")}


def test_no_name_is_the_first_voice_and_an_unknown_one_is_refused_with_the_nearest():
    assert find_voice(VOICES, None).name == "JOE" and find_voice(VOICES, "FAYE").number == 1
    with pytest.raises(ValueError, match="speaker is 'fay': expected one of JOE, FAYE; did you mean FAYE"):
        find_voice(VOICES, "fay")
    with pytest.raises(ValueError, match="expected one of JOE, FAYE$"):
        find_voice(VOICES, "GODOT")
    with pytest.raises(ValueError, match="did you mean am_adam"):
        find_voice({"am_adam": VOICES["JOE"]}, "AM_adm")


def test_written_voices_are_read_in_their_order_with_and_without_an_emotion(tmp_path):
    write_voices(tmp_path, VOICES)
    found = read_voices(tmp_path)
    assert list(found) == ["JOE", "FAYE"]
    for name, voice in VOICES.items():
        assert found[name].number == voice.number and torch.equal(found[name].speaker, voice.speaker)
    assert torch.equal(found["JOE"].emotion, VOICES["JOE"].emotion) and found["FAYE"].emotion is None
    assert [path.name for path in tmp_path.iterdir()] == ["voices.json"]


def test_a_speakers_consent_stays_with_the_voice(tmp_path):
    write_voices(tmp_path, {**VOICES, **CONSENT})
    found = read_voices(tmp_path)
    assert {name: voice.consent for name, voice in found.items()} == {
        **{"JOE": "", "FAYE": ""},
        "ANNA": "signed 2026-11-01",
    }


def test_a_file_of_voices_has_a_line_for_each(tmp_path):
    write_voices(tmp_path, VOICES)
    lines = (tmp_path / "voices.json").read_text().splitlines()
    assert lines[0] == "{" and lines[-1] == "}" and len(lines) == 4
    assert json.loads(f"{{{lines[2]}}}") == {"FAYE": {"number": 1, "speaker": [1.0, 0.0]}}


def test_numbers_are_known_of_a_folder_with_voices_only(tmp_path):
    assert known_numbers(tmp_path) == {}
    write_voices(tmp_path, VOICES)
    assert known_numbers(tmp_path) == {"JOE": 3, "FAYE": 1}
