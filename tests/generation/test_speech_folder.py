"""A speech folder has each line and turn in three conditions, can be resumed, and names its constant gap."""

import dataclasses
import json

import pytest
import soundfile
import torch

from csm.data.turn_audio import read_turn
from csm.evaluation.subjects.speech_folder import read_speech_folder
from csm.generation.session import Session
from csm.generation.speech_folder import Track, resynthesised, write_speech_folder
from csm.generation.talker import Talker

VOICES = ("JOE", "FAYE")
ORIGIN = {"model": "small", "sampling": {"seed": 3}}


@pytest.fixture
def folder(talker, corpus, tmp_path):
    messages = []
    made = write_speech_folder(talker, corpus, tmp_path / "speech", ORIGIN, messages.append)
    assert made == 5
    assert messages == ["the test split has 4 fitting lines of JOE, not 8: these are spoken"]
    return tmp_path / "speech"


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "speech.jsonl").read_text().splitlines()]


def test_lines_and_dialogues_can_be_read_and_say_what_one_turn_of_the_talker_says(folder, talker, corpus):
    speech = read_speech_folder(folder)
    assert [line.id for line in speech.lines] == [f"line_{i:02d}" for i in range(4)]
    (dialogue,) = speech.dialogues
    assert dialogue.speakers == ("JOE", "FAYE") and len(dialogue.turns) == 8
    said = talker.speak_turn(speech.lines[1].text, "JOE", session=talker.session(talker.sampling.seed + 1))
    written, rate = soundfile.read(folder / speech.lines[1].audio["generated"], dtype="float32")
    assert rate == 8000 and said.timing.frames == speech.lines[1].timing["frames"]
    torch.testing.assert_close(
        torch.from_numpy(written), said.waveform[0].clamp(-1, 1), atol=1 / 32768, rtol=0
    )
    assert set(speech.lines[1].timing) == set(said.timing._fields)


def test_a_fine_tuned_csm_1b_writes_the_folder_too(csm_1b, corpus, tmp_path):
    speakers = {name: csm_1b.voices[str(number)]._replace(name=name) for number, name in enumerate(VOICES)}
    talker = dataclasses.replace(csm_1b, voices=speakers)
    assert write_speech_folder(talker, corpus, tmp_path / "speech", ORIGIN) == 5
    for line in read_speech_folder(tmp_path / "speech").lines:
        for condition in ("generated", "resynthesis"):
            info = soundfile.info(tmp_path / "speech" / line.audio[condition])
            assert info.samplerate == 24_000 and info.frames > 0


def test_the_gap_between_generated_turns_is_constant_and_the_row_says_so(folder):
    (dialogue,) = [row for row in rows(folder) if row["kind"] == "dialogue"]
    turns = [row for row in rows(folder) if row["kind"] == "turn"]
    assert dialogue["gap"] == "constant 0.2 s"
    for turn, following in zip(turns, turns[1:], strict=False):
        assert following["start"] - turn["end"] == pytest.approx(0.2, abs=1e-5)
        assert following["recording_start"] == turn["recording_end"]
    whole, _ = soundfile.read(folder / dialogue["generated"])
    assert len(whole) == round(turns[-1]["end"] * 8000) and whole.shape[1] == 2
    for turn in turns:
        clip, _ = soundfile.read(folder / turn["generated"])
        first, channel = round(turn["start"] * 8000), dialogue["speakers"].index(turn["speaker"])
        assert (whole[first : first + len(clip), channel] == clip).all()
        assert not whole[first : first + len(clip), 1 - channel].any()


def contents(folder) -> dict:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_a_second_call_speaks_nothing(folder, talker, corpus, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr(Talker, "speak_turn", None)
    assert write_speech_folder(talker, corpus, folder, ORIGIN) == 0
    assert contents(folder) == before


def test_a_stopped_call_is_resumed_with_the_same_audio(folder, talker, corpus):
    before = contents(folder)
    (folder / "speech.jsonl").rename(folder / "speech.jsonl.part")
    (folder / "line_02.generated.wav").unlink()
    assert write_speech_folder(talker, corpus, folder, ORIGIN) == 5
    after = contents(folder)
    assert set(after) == set(before)
    assert {name for name in before if before[name][0] != after[name][0]} == {
        "speech.jsonl",
        *(f"line_02.{condition}.wav" for condition in ("recording", "resynthesis", "generated")),
    }
    assert all(after[name][1] == before[name][1] for name in before if name.endswith(".wav"))


def test_a_folder_of_another_origin_is_refused(folder, talker, corpus):
    before = contents(folder)
    with pytest.raises(ValueError, match="other speech: model .small there, large here. differ"):
        write_speech_folder(talker, corpus, folder, ORIGIN | {"model": "large"})
    assert contents(folder) == before


def test_a_corpus_without_fitting_turns_is_refused_and_one_without_dialogues_is_said(
    talker, corpus, tmp_path
):
    train, test = corpus.conversations
    with pytest.raises(ValueError, match="no test turns of JOE"):
        alone = dataclasses.replace(corpus, conversations=(train,))
        write_speech_folder(talker, alone, tmp_path / "none", ORIGIN)
    assert not (tmp_path / "none").exists()
    brief = dataclasses.replace(test, turns=test.turns[:1])
    messages = []
    few = dataclasses.replace(corpus, conversations=(train, brief))
    assert write_speech_folder(talker, few, tmp_path / "few", ORIGIN, messages.append) == 1
    assert len(messages) == 2 and messages[1].startswith("no dialogues:")


def test_a_turn_without_frames_is_written_as_a_frame_of_silence(talker, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "next_frame", lambda *_: None)
    write_speech_folder(talker, corpus, tmp_path / "silent", ORIGIN)
    silent, _ = soundfile.read(tmp_path / "silent" / "line_00.generated.wav")
    assert len(silent) == 640 and not silent.any()


def test_a_track_puts_waveforms_one_after_another_in_their_channels():
    track = Track(gap=2)
    assert track.append(1, torch.ones(1, 3)) == (0, 3) and track.append(0, torch.full((1, 2), 2.0)) == (5, 7)
    assert track.mixed(2).tolist() == [[0, 0, 0, 0, 0, 2, 2], [1, 1, 1, 0, 0, 0, 0]]
    assert Track().append(0, torch.ones(1, 3)) == (0, 3)


def test_a_resynthesis_has_the_length_of_the_recording_and_its_own_voice(talker, corpus):
    waveform = read_turn(corpus, corpus.turns("test")[0], 8000)[:, :-100]
    with torch.no_grad():
        codes, info = talker.tokenizer.encode(waveform[None])
        expected = talker.tokenizer.decode(codes, speaker=info.speaker, emotion=info.emotion)
    found = resynthesised(talker.tokenizer, waveform)
    assert found.shape == waveform.shape
    torch.testing.assert_close(found, expected[0, :, : waveform.shape[1]])
