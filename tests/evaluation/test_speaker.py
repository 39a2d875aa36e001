"""Voices: the real encoder tells two speakers apart; drift and nearest voice on made-up embeddings."""

import numpy as np
import pytest

from csm.evaluation.judge import Clip, at_rate
from csm.evaluation.speaker import (
    SpeakerEncoder,
    Voices,
    drift,
    embed_all,
    mean_voices,
    similarity_scores,
)
from csm.evaluation.statistics import failed, judged


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
    outcomes = [judged("0", "c", 0.0), failed("1", "c", "silent"), judged("2", "c", 0.0)]
    scores = similarity_scores(clips, outcomes, [unit(1, 0), unit(1, 3)], VOICES)
    assert [score.value for score in scores["speaker_nearest_is_own"]] == [1.0, None, 0.0]
    assert scores["speaker_similarity"][1].reason == "silent"
    assert scores["speaker_nearest_is_own"][2].detail == "B"


def test_a_speaker_without_references_is_a_failure():
    scores = similarity_scores([Clip(id="0", speaker="C")], [judged("0", "c", 0.0)], [unit(1, 1)], VOICES)
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
