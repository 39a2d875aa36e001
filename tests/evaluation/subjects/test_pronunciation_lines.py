"""Sentences as they are spoken: pairs of sets in the same order, contexts by their sound, seeds, files."""

import numpy as np

from csm.evaluation.metrics.pronunciation_tests import FIRST, GIVEN, OWN
from csm.evaluation.subjects import pronunciation_lines
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, VARIANTS
from csm.evaluation.subjects.pronunciation_lines import (
    FURTHER,
    GENERATED,
    PUBLISHED,
    count_of_lines,
    spoken_sets,
)
from csm.generation.sampling import SamplingConfig
from tests.evaluation.small_voice import small_talker

SHORT = SamplingConfig(max_seconds=0.24, seed=3)


def test_every_line_is_spoken_once_and_kept(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(pronunciation_lines, "HOMOGRAPHS", (HOMOGRAPHS[0],))
    monkeypatch.setattr(pronunciation_lines, "VARIANTS", VARIANTS[:1])
    talker, done, asked = small_talker(tiny_model, sampling=SHORT), [], []
    generate = type(talker).generate

    def listen(self, text, speaker, *, session, context):
        asked.append((text, [(turn.text, turn.speaker) for turn in context]))
        return generate(self, text, speaker, session=session, context=context)

    monkeypatch.setattr(type(talker), "generate", listen)
    sets = spoken_sets(talker, tmp_path, 0, lambda: done.append(1))
    assert len(done) == count_of_lines() == 10 == len(list(tmp_path.glob("*.wav")))
    sizes = {(one.group, one.condition): len(one.clips) for one in sets}
    assert sizes == {
        (PUBLISHED, GENERATED): 4,
        (FURTHER, GENERATED): 0,
        (OWN, FIRST): 1,
        (OWN, GENERATED): 1,
        (GIVEN, FIRST): 2,
        (GIVEN, GENERATED): 2,
    }
    # The second turn's context has the usual spelling; its sound is that of the first turn.
    assert asked[-2] == ("My awnt is coming to visit.", [])
    assert asked[-1] == ("I think your aunt will like it here.", [("My aunt is coming to visit.", "JOE")])
    first = sets.recording_of(sets.of(GIVEN, GENERATED))
    assert [clip.facts["reading"] for clip in first.clips] == [0, 1]
    # Each line has a seed of its own, from its number.
    again = generate(talker, "The old lead pipes must be replaced.", "JOE", session=talker.session(1))
    assert np.array_equal(sets.of(PUBLISHED, GENERATED).clips[0].waveform, again.waveform[0])


def test_a_line_that_cannot_be_spoken_has_a_reason(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(pronunciation_lines, "HOMOGRAPHS", ())
    monkeypatch.setattr(pronunciation_lines, "VARIANTS", VARIANTS[:1])
    talker, done = small_talker(tiny_model, sampling=SHORT), []

    def refuse(self, *_, **__):
        raise ValueError("a word is\ntoo long")

    monkeypatch.setattr(type(talker), "generate", refuse)
    sets = spoken_sets(talker, tmp_path, 0, lambda: done.append(1))
    assert len(done) == count_of_lines() == 6
    reasons = [clip.reason for clip in sets.of(GIVEN, GENERATED).clips]
    assert reasons == ["first turn: a word is too long"] * 2
