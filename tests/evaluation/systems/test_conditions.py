"""Which clips are measured, and that every condition holds each of them or the reason."""

from dataclasses import replace

import numpy as np
import pytest

from csm.data.manifest import Conversation, Corpus, Turn
from csm.evaluation.systems.classical_codecs import ANCHORS, Coded
from csm.evaluation.systems.conditions import by_anchor, by_codebooks, held_out_clips, recordings


def conversation(name, speakers, split, seconds=2.0):
    turns = tuple(
        Turn(
            id=f"{name}.{i}", conversation=name, index=i, speaker=who, text="one", audio="a.wav", end=seconds
        )
        for i, who in enumerate(speakers)
    )
    return Conversation(id=name, split=split, turns=turns)


def test_the_speakers_are_named_or_those_that_the_corpus_holds_out_or_the_test_split_is_used(tmp_path):
    left_out = conversation("A", ("ANN", "BOB", "JOE"), "train")
    test = conversation("B", ("JOE",) * 3, "test")
    corpus = Corpus(root=tmp_path, conversations=(left_out, test), info={"held_out_speakers": ["ANN", "BOB"]})
    turns, origin = held_out_clips(corpus, 20)
    assert {turn.speaker for turn in turns} == {"ANN", "BOB"} and "ANN, BOB" in origin
    turns, _ = held_out_clips(corpus, 20, speakers=("BOB",))
    assert {turn.speaker for turn in turns} == {"BOB"}
    turns, origin = held_out_clips(Corpus(root=tmp_path, conversations=(left_out, test)), 20)
    assert len(turns) == 3 and origin == "turns of the test split"


def test_the_draw_goes_round_the_conversations_and_does_not_depend_on_their_order(tmp_path):
    many = conversation("A", ("JOE",) * 9, "test")
    few = conversation("B", ("JOE",) * 2, "test")
    brief = conversation("C", ("JOE",) * 9, "test", seconds=1.0)
    turns, _ = held_out_clips(Corpus(root=tmp_path, conversations=(many, few, brief)), 6)
    assert sorted(turn.conversation for turn in turns) == ["A"] * 4 + ["B"] * 2
    assert len({turn.conversation for turn in turns[:2]}) == 2
    other, _ = held_out_clips(Corpus(root=tmp_path, conversations=(brief, few, many)), 6)
    assert other == turns
    assert held_out_clips(Corpus(root=tmp_path, conversations=(many,)), 5, seed=1)[0] != turns


def test_a_corpus_without_long_held_out_turns_is_refused(tmp_path):
    brief = Corpus(root=tmp_path, conversations=(conversation("C", ("JOE",), "test", seconds=1.0),))
    with pytest.raises(ValueError, match="no turns of the test split that last 1.5 s"):
        held_out_clips(brief, 3)


def test_codebooks_are_decoded_from_codes_alone_unless_asked(small_corpus, tiny_tokenizer):
    turns, _ = held_out_clips(small_corpus, 2)
    original = recordings(small_corpus, turns)
    alone, codes = by_codebooks(tiny_tokenizer, small_corpus, turns, [2, 4], original)
    given, _ = by_codebooks(tiny_tokenizer, small_corpus, turns, [2, 4], original, conditioned=True)
    assert codes.shape[:2] == (1, 4) and [condition.kbits for condition in alone] == [0.1, 0.2]
    expected = tiny_tokenizer.decode(codes[:, :2])
    assert expected.shape[-1] > 0 and not np.allclose(alone[0].clips[0].waveform, given[0].clips[0].waveform)
    for condition in alone:
        for clip, recorded in zip(condition.clips, original.clips, strict=True):
            assert clip.sample_rate == 16000 and len(clip.waveform) <= len(recorded.waveform)


def test_a_late_anchor_is_put_in_step_and_its_measured_bits_count(small_corpus):
    original = recordings(small_corpus, held_out_clips(small_corpus, 3)[0])
    late = replace(ANCHORS[0], commands=(), code=lambda wave: Coded(np.pad(wave, (300, 500)), 1000))
    condition = by_anchor(late, original)
    assert condition.delay == pytest.approx(300 / 16000)
    assert np.array_equal(condition.clips[0].waveform, original.clips[0].waveform)
    assert condition.kbits == pytest.approx(3 / sum(clip.duration for clip in original.clips))


def test_what_cannot_be_read_or_coded_keeps_its_place_and_says_why(small_corpus, tiny_tokenizer):
    turns, _ = held_out_clips(small_corpus, 3)
    (small_corpus.root / turns[1].audio).unlink()
    original = recordings(small_corpus, turns)
    assert [clip.waveform is None for clip in original.clips] == [False, True, False]
    decoded, _ = by_codebooks(tiny_tokenizer, small_corpus, turns, [4], original)
    assert [clip.reason for clip in decoded[0].clips] == [clip.reason for clip in original.clips]

    def refuse(waveform):
        raise ValueError("no such codec")

    refused = by_anchor(replace(ANCHORS[0], commands=(), code=refuse), original)
    assert refused.clips[0].reason == "no such codec" and not refused.missing


def test_an_anchor_that_is_not_installed_is_a_condition_without_clips(small_corpus):
    original = recordings(small_corpus, held_out_clips(small_corpus, 1)[0])
    condition = by_anchor(replace(ANCHORS[0], commands=("no-such-command",)), original)
    assert condition.clips == () and condition.missing == "not installed: apt install opus-tools"
