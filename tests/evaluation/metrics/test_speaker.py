"""Voices: the real encoder tells two speakers apart; drift and nearest voice on made-up embeddings."""

import numpy as np
import pytest
from scipy import stats

from csm.evaluation.core.clips import Clip, at_rate
from csm.evaluation.core.metric import failed, scored
from csm.evaluation.metrics.drift import drift
from csm.evaluation.metrics.similarity import original_scores, similarity_scores
from csm.evaluation.metrics.speaker import SpeakerEncoder, Voices, embed_all, mean_voices


def test_resemblyzer_finds_the_speaker_of_real_clips(real_clips):
    pytest.importorskip("librosa")
    try:
        encoder = SpeakerEncoder()
    except ImportError as error:
        pytest.skip(str(error))
    references = {
        name: [at_rate(clip.waveform, clip.sample_rate) for clip in clips[:3]]
        for name, clips in real_clips.items()
    }
    voices = mean_voices(encoder, references)
    clips = [*real_clips["JOE"][3:5], *real_clips["FAYE"][3:5]]
    scores = similarity_scores(clips, *embed_all(encoder, clips), voices)
    assert [score.value for score in scores["speaker_nearest_is_own"]] == [1.0] * 4
    assert all(score.value > 0 for score in scores["speaker_margin"])


def unit(*values):
    return np.array(values) / np.linalg.norm(values)


VOICES = Voices(names=("A", "B"), means=np.array([unit(1, 0), unit(0, 1)]))


def test_failed_clips_keep_their_place():
    clips = [Clip(id=str(n), speaker="A", reason=None) for n in range(3)]
    outcomes = [scored(clips[0], 0.0), failed(clips[1], "silent"), scored(clips[2], 0.0)]
    scores = similarity_scores(clips, outcomes, [unit(1, 0), unit(1, 3)], VOICES)
    assert [score.value for score in scores["speaker_nearest_is_own"]] == [1.0, None, 0.0]
    assert scores["speaker_similarity"][1].reason == "silent"
    assert scores["speaker_nearest_is_own"][2].detail == "B"


def test_a_speaker_without_references_is_a_failure():
    clip = Clip(id="0", speaker="C")
    scores = similarity_scores([clip], [scored(clip, 0.0)], [unit(1, 1)], VOICES)
    assert "no reference recordings of C" in scores["speaker_similarity"][0].reason


def test_drift_is_the_slope_inside_voices_and_not_between_them():
    falling = [
        [(turn, 0.9 - 0.01 * turn) for turn in range(8)],
        [(turn, 0.5 - 0.01 * turn) for turn in range(8)],
    ]
    found = drift(falling)
    assert found is not None and found.slope == pytest.approx(-0.01)
    assert found.ci95 is not None and found.ci95[1] < 0
    assert drift([[(0, 0.5)]]) is None
    assert drift(falling) == found


def test_the_drift_of_one_voice_is_the_slope_of_scipy():
    turns, values = np.arange(9.0), np.random.default_rng(4).normal(size=9)
    found = drift([list(zip(turns, values, strict=True))])
    assert found.slope == pytest.approx(stats.linregress(turns, values).slope)


def test_a_clip_without_embedding_fails_with_the_reason_of_its_side():
    clips, one = [Clip(id=str(n)) for n in range(4)], np.array([0.6, 0.8])
    scores = original_scores(clips, [one, one, "silent", one], [one, "torn", one, np.array([1.0, 0.0])])
    assert [score.value for score in scores] == [pytest.approx(1.0), None, None, pytest.approx(0.6)]
    assert [score.reason for score in scores[1:3]] == ["torn", "recording: silent"]
