"""The question about codes trains no model, and measures what the next turn's text owes to the voice."""

from dataclasses import replace

from csm.evaluation.metrics.coded_clips import ProbeConfig
from csm.research.next_turn import NEXT_TURN
from csm.research.voice_semantics import (
    ACOUSTIC,
    PERMUTED,
    PHONES,
    SEMANTIC,
    TEXT,
    WITH_ACOUSTIC,
    WITH_SEMANTIC,
    WORDS,
    VoiceSemantics,
)


def test_four_probes_are_measured_on_the_same_pairs_of_turns(small) -> None:
    question = VoiceSemantics()
    assert question.arms(small.base) == {}
    found = {one.arm: one.scores for one in question.measure(small.material(), {})}
    assert list(found) == [TEXT, WITH_SEMANTIC, WITH_ACOUSTIC, PERMUTED]
    clips = {tuple((s.clip, s.weight) for s in scores.scores) for scores in found.values()}
    assert len(clips) == 1 and all(scores.info.name == NEXT_TURN for scores in found.values())
    (pairs,) = clips
    assert len(pairs) == 4 * 5
    fewer = question.measure(replace(small.material(), conversations=2), {})
    assert len(next(fewer).scores.scores) == 2 * 5


def test_phones_and_words_are_read_from_both_halves_of_the_codes(small, monkeypatch) -> None:
    corpus = small.material().corpus
    # New lines in the test split: those of the training would say what was memorised.
    conversations = tuple(
        replace(c, turns=tuple(replace(turn, text=f"{turn.text} now") for turn in c.turns))
        if c.split == "test"
        else c
        for c in corpus.conversations
    )
    # The codes' alignment is of the lines before.
    monkeypatch.setattr("csm.research.material.read_alignment", lambda folder, text: None)
    material = small.material(lines=1)
    vars(material)["corpus"] = replace(corpus, conversations=conversations)
    probes = ProbeConfig(phone_epochs=1, reader_epochs=1, train_clips=6, reader_clips=6, tested_clips=4)
    found = [one for one in VoiceSemantics(probes).measure(material, {}) if one.arm in (SEMANTIC, ACOUSTIC)]
    assert [(one.arm, one.scores.info.name) for one in found] == [
        (SEMANTIC, PHONES), (SEMANTIC, WORDS), (ACOUSTIC, PHONES), (ACOUSTIC, WORDS)
    ]  # fmt: skip
    assert all(len(one.scores.scores) == 4 for one in found if one.scores.info.name == WORDS)
    assert all(0 <= score.value <= 1 for one in found[::2] for score in one.scores.scores)
