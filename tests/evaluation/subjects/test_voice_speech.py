"""Lines are spoken as the talker speaks them, once, in every condition; failures are kept with a reason."""

import dataclasses

import pytest
import torch

from csm.evaluation.subjects import voice_speech
from csm.evaluation.subjects.voice_folder import GeneratedSpeech
from csm.evaluation.subjects.voice_lines import choose_lines
from csm.evaluation.subjects.voice_speech import (
    CROSS_OFF,
    GENERATED,
    IN_CONTEXT,
    INT8,
    MEMORY_OFF,
    SEMANTIC,
    LineSpeaker,
    conditions_of,
    speak_all,
    turns_before,
)
from csm.generation.depth_sampler import DepthSampler
from csm.generation.prompt_turn import PromptTurn
from tests.evaluation.small_voice import RATE, small_corpus_of, small_talker


@pytest.fixture
def corpus(tmp_path):
    return small_corpus_of(tmp_path)


@pytest.fixture
def talker(tiny_model):
    return small_talker(tiny_model)


@pytest.fixture
def chosen(corpus):
    return choose_lines(corpus, ["JOE", "FAYE"], 2)


def test_a_line_is_what_the_talker_says_with_the_seed_of_its_number(talker, corpus, chosen):
    speaker = LineSpeaker.of(talker, corpus, 0)
    line = chosen.others[1]
    said = speaker.say(line)
    expected = talker.generate(line.turn.text, "FAYE", seed=line.number)
    assert torch.equal(said.stream.codes, expected.codes) and line.number > 0
    torch.testing.assert_close(said.waveform, expected.waveform)
    other = LineSpeaker.of(talker, corpus, 1).say(line)
    assert not torch.equal(said.stream.codes[:, :5], other.stream.codes[:, :5])
    assert said.facts["timing"]["audio_s"] == said.waveform.shape[1] / RATE
    assert 0 < said.facts["timing"]["first_audio_s"] <= said.facts["timing"]["first_sound_s"]


def test_an_unseen_speaker_is_prompted_with_the_joined_recordings(talker, corpus, chosen):
    line = chosen.unseen[0]
    said = LineSpeaker.of(talker, corpus, 0).say(line)
    assert said.stream.voice.name == "prompt"
    heard, *_ = said.stream.session.turns
    assert heard.turn.text == " ".join(turn.text for turn in line.prompt)
    frames = sum(turn.duration for turn in line.prompt) * 12.5
    assert abs(heard.turn.codes.shape[1] - frames) <= 1


def test_a_line_in_context_follows_the_turns_before_it(talker, corpus, chosen):
    line = chosen.main[1]
    before = turns_before(corpus, line.turn)
    assert [turn.index for turn in before] == list(range(line.turn.index))
    assert {turn.conversation for turn in before} == {line.turn.conversation}
    said = LineSpeaker.of(talker, corpus, 0).say(line, context=before)
    session = said.stream.session
    assert len(session.turns) + int(session.memory.turns) == len(before) + 1
    assert said.facts["remembered"] == int(session.memory.turns)
    silent = dataclasses.replace(before[0], text=" ")
    fewer = LineSpeaker.of(talker, corpus, 0).say(line, context=[silent, *before[1:]])
    assert len(fewer.stream.session.turns) + fewer.facts["remembered"] == len(before)


class Ends(torch.nn.Module):
    """Says of every row that the turn ends here."""

    def forward(self, hidden):
        return torch.nn.functional.one_hot(torch.tensor(24), 27).float() * 100


def test_a_sentence_that_runs_into_its_limit_is_cut_off(talker, corpus, chosen):
    line = chosen.main[0]
    endless = dataclasses.replace(talker, sampling=dataclasses.replace(talker.sampling, shortest=9.0))
    assert LineSpeaker.of(endless, corpus, 0).say(line).facts["cut_off"]
    talker.model.codebook0_head = Ends()
    said = LineSpeaker.of(talker, corpus, 0).say(line)
    assert not said.facts["cut_off"] and 0 < said.stream.codes.shape[1] < 10


def test_every_condition_is_kept_and_a_second_call_speaks_nothing(
    talker, corpus, chosen, tmp_path, monkeypatch
):
    kept = GeneratedSpeech(tmp_path / "out", {})
    others, absent = conditions_of(talker, ablations=True, int8=DepthSampler(talker.model).is_native())
    calls = []
    speak_all(LineSpeaker.of(talker, corpus, 0), chosen, others, kept, lambda: calls.append(1))
    groups = [line for lines in chosen.groups.values() for line in lines]
    assert absent == [] and {IN_CONTEXT, MEMORY_OFF, CROSS_OFF} <= set(others) <= {*others, INT8}
    assert len(calls) == len(groups) + len(others) * len(chosen.main) + len(chosen.conversation)
    assert all(kept.has(line, GENERATED) for line in (*groups, *chosen.conversation))
    assert all(kept.has(line, condition) for line in chosen.main for condition in (*others, SEMANTIC))
    assert not kept.has(chosen.others[0], SEMANTIC)
    remembered = [kept.row(line, IN_CONTEXT)["remembered"] for line in chosen.main]
    assert remembered == [kept.row(line, MEMORY_OFF)["remembered"] for line in chosen.main]

    def never(*_, **__):
        raise AssertionError("spoken again")

    monkeypatch.setattr(voice_speech.LineSpeaker, "say", never)
    speak_all(LineSpeaker.of(talker, corpus, 0), chosen, others, GeneratedSpeech(tmp_path / "out", {}), list)


def test_a_conversation_that_was_stopped_is_spoken_again_whole(talker, corpus, chosen, tmp_path):
    speaker = LineSpeaker.of(talker, corpus, 0)
    alone = dataclasses.replace(chosen, main=(), others=(), unseen=())
    kept = GeneratedSpeech(tmp_path / "out", {})
    speak_all(speaker, alone, {}, kept, list)
    before = kept.clips(chosen.conversation, GENERATED)
    (tmp_path / "out" / kept.row(chosen.conversation[3], GENERATED)["audio"]).unlink()
    speak_all(speaker, alone, {}, kept, list)
    for old, new in zip(before, kept.clips(chosen.conversation, GENERATED), strict=True):
        assert (old.waveform == new.waveform).all()


def test_what_cannot_be_said_is_kept_with_the_reason_and_the_others_go_on(talker, corpus, chosen, tmp_path):
    (corpus.root / chosen.unseen[0].prompt[0].audio).unlink()
    long = dataclasses.replace(chosen.main[0].turn, text="x" * 200)
    main = (dataclasses.replace(chosen.main[0], turn=long), chosen.main[1])
    kept = GeneratedSpeech(tmp_path / "out", {})
    speak_all(LineSpeaker.of(talker, corpus, 0), dataclasses.replace(chosen, main=main), {}, kept, list)
    for condition in (GENERATED, SEMANTIC):
        first, second = kept.clips(main, condition)
        assert "a word of 200 characters" in first.reason and second.waveform is not None
    assert all("t1_" in clip.reason for clip in kept.clips(chosen.unseen, GENERATED))


def test_the_semantic_part_is_decoded_from_the_first_codebooks_in_the_same_voice(
    talker, corpus, chosen, tmp_path
):
    said = LineSpeaker.of(talker, corpus, 0).say(chosen.main[0])
    voice = talker.voice("JOE")
    with torch.no_grad():
        expected = talker.tokenizer.decode(
            said.stream.codes[None, :2], speaker=voice.speaker, emotion=voice.emotion
        )[0]
    part = voice_speech.semantic_part(talker, said)
    assert part.shape == said.waveform.shape and not torch.equal(part, said.waveform)
    torch.testing.assert_close(part, expected)


def test_parts_that_are_not_there_and_weights_that_cannot_be_had_are_said(talker, tiny_model, monkeypatch):
    plain = dataclasses.replace(talker, model=tiny_model(memory_layers=(), cross_layers=()))
    monkeypatch.setattr(DepthSampler, "is_native", lambda self: False)
    others, absent = conditions_of(plain, ablations=True, int8=True)
    assert list(others) == [IN_CONTEXT]
    assert [reason.split()[0] for reason in absent] == ["memory", "cross-attention", "int8"]
    assert conditions_of(talker, ablations=False, int8=False) == ({}, [])


def test_a_context_turn_of_a_known_voice_goes_by_its_name(talker, corpus):
    speaker = LineSpeaker.of(talker, corpus, 0)
    joe, ann = corpus.conversations[2].turns[:2]
    assert isinstance(speaker._prompt_turn(joe), PromptTurn)
    assert speaker._prompt_turn(joe).speaker == "JOE" and speaker._prompt_turn(ann).speaker is None
