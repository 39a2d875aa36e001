"""A speech folder is read row by row; a bad row is named."""

import json

import pytest

from csm.evaluation.subjects.speech_folder import dialogue_clips, read_speech_folder


def test_a_bad_line_of_the_speech_folder_is_named(run_folder):
    path = run_folder / "speech" / "speech.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"kind": "line"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 9: field 'id' is missing"):
        read_speech_folder(run_folder / "speech")


def test_a_dialogue_says_whether_its_speakers_shared_a_recording(run_folder):
    path = run_folder / "speech" / "speech.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert not read_speech_folder(path.parent).dialogues[0].shared_recording
    rows[-1]["shared_recording"] = True
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = read_speech_folder(path.parent)
    (clip,) = dialogue_clips(folder.root, folder.dialogues, "recording")
    assert clip.facts["shared_recording"] and clip.waveform.shape[0] == 2
