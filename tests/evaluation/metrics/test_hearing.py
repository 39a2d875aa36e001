"""Hearing writes down each recording once; the control compares with other texts; failures are counted."""

from dataclasses import replace

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.statistics import pooled_mean
from csm.evaluation.metrics.hearing import HEARD, PERMUTED, Hearing
from csm.generation.session import Session
from tests.evaluation.small_voice import small_talker

WORDS = ("one two three", "four five six", "seven eight nine", "ten zero hundred")


@pytest.fixture
def heard(tiny_model, monkeypatch):
    """A talker whose session writes the line that the level of a recording names."""
    talker, calls = small_talker(tiny_model), []

    def encode(audio, lengths=None, *, num_codebooks=None):
        calls.append(round(float(audio.abs().max()) * 10))
        return type(talker.tokenizer).encode(talker.tokenizer, audio, lengths, num_codebooks=num_codebooks)

    monkeypatch.setattr(talker.tokenizer, "encode", encode)
    monkeypatch.setattr(Session, "transcribe", lambda self, codes, speaker=0: WORDS[calls[-1] - 1])
    return Hearing(talker)


def clips():
    return tuple(
        Clip(id=str(n), conversation=str(n), speaker="JOE", text=text, sample_rate=8000,
             waveform=np.full(8000, 0.1 * (n + 1), np.float32))
        for n, text in enumerate(WORDS)
    )  # fmt: skip


def measured(metric, found):
    return {
        one.info.name: one
        for one in metric.measure(ClipSet(group="g", condition="recording", clips=found), None)
    }


def test_right_transcripts_have_no_error_and_those_of_other_lines_only_errors(heard) -> None:
    found = measured(heard, clips())
    assert [score.detail for score in found[HEARD].scores] == list(WORDS)
    assert pooled_mean(found[HEARD].scores, None) == 0 and pooled_mean(found[PERMUTED].scores, None) == 1


def test_a_clip_without_audio_fails_in_both_and_a_wrong_word_counts_a_third(heard) -> None:
    first, second, *rest = clips()
    lost = replace(second, waveform=None, reason="torn")
    found = measured(heard, (replace(first, text="one two four"), lost, *rest))
    assert found[HEARD].scores[0].value == pytest.approx(1 / 3)
    assert [score.reason for score in found[HEARD].scores].count("torn") == 1
    assert [score.reason for score in found[PERMUTED].scores].count("torn") == 1


def test_only_recordings_of_single_lines_are_heard(heard) -> None:
    sets = [
        ClipSet(group="g", condition=name, clips=clips(), kind=kind)
        for name, kind in (("recording", "lines"), ("recording", "turns"), ("generated", "lines"))
    ]
    assert heard.choose(ClipSets(sets=tuple(sets))) == sets[:1]
    alone = measured(heard, clips()[:1])
    assert list(alone) == [HEARD], "one clip has no other to be compared with"


def test_a_small_model_writes_something_of_every_recording(tiny_model) -> None:
    metric = Hearing(small_talker(tiny_model))
    found = measured(metric, clips()[:2])
    assert all(score.value is not None for score in found[HEARD].scores)
