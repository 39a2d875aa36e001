"""Waiting times."""

import numpy as np
import pytest

from csm.evaluation.judge import Clip
from csm.evaluation.latency import latency_scores, leading_silence, quantiles, response_latency

TONE = 0.5 * np.sin(np.arange(16000) / 8).astype(np.float32)


def test_negative_latency_stays_negative():
    assert response_latency(previous_end=2.0, onset=1.25) == -0.75
    assert quantiles([-0.75, -0.25])["p50"] == -0.5


def test_leading_silence_is_what_is_heard():
    late = np.concatenate([1e-4 * np.ones(4000, np.float32), TONE])
    assert leading_silence(late, 16000) == pytest.approx(0.25, abs=0.011)
    assert leading_silence(TONE, 16000) == 0.0


def test_time_to_first_sound_adds_the_silence_of_the_clip():
    clip = Clip(id="a", waveform=np.concatenate([np.zeros(8000, np.float32), TONE]))
    timing = {"first_audio_s": 0.2, "generation_s": 3.0, "audio_s": 1.5}
    scores = latency_scores([clip], [timing])
    assert scores["ttfa"][0].value == pytest.approx(0.7, abs=0.011)
    assert scores["rtf"][0].value == 2.0


def test_silence_and_missing_timing_are_failures():
    silent = Clip(id="a", waveform=np.zeros(16000, np.float32))
    gone = Clip(id="b", reason="file missing")
    scores = latency_scores([silent, gone], [None, {"first_audio_s": 0.1}])
    assert [score.value for name in scores for score in scores[name]] == [None] * 6
    assert scores["leading_silence"][0].reason == "the audio is silent"
    assert scores["ttfa"][1].reason == "file missing"


def test_quantiles_refuse_what_is_no_number():
    with pytest.raises(ValueError, match="finite"):
        quantiles([1.0, float("nan")])
