"""Waiting times."""

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip
from csm.evaluation.metrics.latency import StreamTimes, latency_scores, leading_silence
from csm.evaluation.subjects.voice_lines import MAIN
from tests.evaluation.small_voice import changed, measured, small_corpus_of, small_sets

TONE = 0.5 * np.sin(np.arange(16000) / 8).astype(np.float32)


def test_leading_silence_ends_with_the_first_audible_frame():
    late = np.concatenate([1e-4 * np.ones(4000, np.float32), TONE])
    assert leading_silence(late, 16000) == pytest.approx(0.25, abs=0.011)
    assert leading_silence(TONE, 16000) == 0.0


def test_time_to_first_sound_adds_the_silence_of_the_clip():
    timing = {"first_audio_s": 0.2, "generation_s": 3.0, "audio_s": 1.5}
    late = np.concatenate([np.zeros(8000, np.float32), TONE])
    scores = latency_scores([Clip(id="a", waveform=late, facts={"timing": timing})])
    assert scores["ttfa"][0].value == pytest.approx(0.7, abs=0.011)
    assert scores["rtf"][0].value == 2.0


def test_silence_and_missing_timing_are_failures():
    silent = Clip(id="a", waveform=np.zeros(16000, np.float32))
    gone = Clip(id="b", reason="file missing", facts={"timing": {"first_audio_s": 0.1}})
    scores = latency_scores([silent, gone])
    assert [score.value for name in scores for score in scores[name]] == [None] * 6
    assert scores["leading_silence"][0].reason == "the audio is silent"
    assert scores["ttfa"][1].reason == "file missing"


def test_times_of_a_stream_have_quantiles_and_a_silent_line_fails(tmp_path):
    sets = small_sets(small_corpus_of(tmp_path), conditions=())
    entries = measured(StreamTimes(MAIN, ("generated", "int8")), sets)
    assert [name for name, _, _ in entries] == ["first_chunk", "first_sound", "rtf"]
    sound, rtf = (entries[name, MAIN, "generated"] for name in ("first_sound", "rtf"))
    assert sound.quantiles == {"n": 3.0, "p50": 0.3, "p90": 0.3, "p99": 0.3}
    assert rtf.quantiles["p50"] == pytest.approx(0.5) and "a machine" in rtf.evaluator
    first, *others = sets.sets[2].clips
    timing = {**first.facts["timing"], "first_sound_s": None}
    silent = Clip(**{**vars(first), "facts": {**first.facts, "timing": timing}})
    sets = changed(sets, 2, clips=(silent, *others))
    sound = measured(StreamTimes(MAIN, ("generated",)), sets)["first_sound", MAIN, "generated"]
    assert sound.failures == {"the audio is silent": 1} and sound.quantiles["n"] == 2.0
