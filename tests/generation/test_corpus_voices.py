"""Voices come from training recordings: the main one first, each computed once, when it is used."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from csm.data.code_shards import EncodedTurn
from csm.data.turn_audio import read_turn
from csm.generation import corpus_voices
from csm.generation.corpus_voices import CorpusVoices, main_speaker, minutes_of_speakers


@pytest.fixture
@torch.no_grad()
def encoded(corpus, talker) -> dict[str, EncodedTurn]:
    found = {}
    for turn in corpus.turns():
        codes, info = talker.tokenizer.encode(read_turn(corpus, turn, 8000)[None])
        prosody = torch.zeros(codes.shape[2], 3).half()
        found[turn.id] = EncodedTurn(turn.id, codes[0].to(torch.int16), prosody, info.speaker[0])
    return found


@pytest.fixture
def voices(corpus, encoded, talker) -> CorpusVoices:
    return CorpusVoices(corpus, encoded, {"JOE": 4, "FAYE": 2}, talker.tokenizer)


def test_the_main_speaker_has_most_training_minutes_and_of_equals_the_first_name(corpus):
    assert main_speaker(corpus) == "JOE" and main_speaker(corpus, ["JOE"]) == "FAYE"
    assert list(minutes_of_speakers(corpus)) == ["FAYE", "JOE"]
    equal = dataclasses.replace(corpus.conversations[0], turns=corpus.conversations[0].turns[:4])
    turns = tuple(dataclasses.replace(turn, end=2.0) for turn in equal.turns)
    even = dataclasses.replace(corpus, conversations=(dataclasses.replace(equal, turns=turns),))
    assert main_speaker(even) == "FAYE"


def test_without_speakers_there_is_no_main_voice(corpus):
    with pytest.raises(ValueError, match="expected at least one speaker"):
        main_speaker(corpus, ["JOE", "FAYE"])


def test_a_voice_is_the_unit_mean_of_the_train_recordings(voices, corpus, encoded, talker, monkeypatch):
    monkeypatch.setattr(corpus_voices, "PART", 2)
    turns = [turn for turn in corpus.turns("train") if turn.speaker == "FAYE"]
    mean = torch.stack([encoded[turn.id].speaker for turn in turns]).mean(dim=0, keepdim=True)
    voice = voices["FAYE"]
    assert voice.number == 2 and float(voice.speaker.norm()) == pytest.approx(1.0)
    torch.testing.assert_close(voice.speaker, F.normalize(mean, dim=-1))
    with torch.no_grad():
        rows = [talker.tokenizer.encode(read_turn(corpus, turn, 8000)[None])[1].emotion for turn in turns]
    torch.testing.assert_close(voice.emotion, F.normalize(torch.cat(rows).mean(dim=0, keepdim=True), dim=-1))


def test_voices_are_computed_once_and_only_when_used(voices, monkeypatch):
    computed = []
    whole = corpus_voices.voice_of
    monkeypatch.setattr(corpus_voices, "voice_of", lambda *args: computed.append(args[2]) or whole(*args))
    assert list(voices) == ["JOE", "FAYE"] and len(voices) == 2 and "FAYE" in voices and "BOB" not in voices
    assert computed == []
    assert voices["FAYE"] is voices["FAYE"] and computed == ["FAYE"]
    assert list(voices.computed()) == ["JOE", "FAYE"] and computed == ["FAYE", "JOE"]
    with pytest.raises(KeyError):
        voices["BOB"]


def test_speakers_that_were_left_out_of_training_have_no_voice(corpus, encoded, talker):
    voices = CorpusVoices(corpus, encoded, {"JOE": 0, "FAYE": 1}, talker.tokenizer, without=("JOE",))
    assert list(voices) == ["FAYE"]


def test_a_speaker_without_encoded_turns_is_refused(corpus, talker):
    voices = CorpusVoices(corpus, {}, {"JOE": 0, "FAYE": 1}, talker.tokenizer)
    with pytest.raises(ValueError, match="speaker 'JOE' has no encoded train turns"):
        voices["JOE"]
