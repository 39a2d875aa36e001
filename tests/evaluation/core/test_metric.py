"""Audio is prepared for evaluators, and what cannot be scored is counted."""

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip, as_clips, mono
from csm.evaluation.core.evaluators import EvaluatorUnavailable, optional_import
from csm.evaluation.core.metric import score_each


def test_bad_audio_becomes_a_reason():
    clips = [
        Clip(id="none", reason="file missing"),
        Clip(id="empty", waveform=np.zeros(0, np.float32)),
        Clip(id="nan", waveform=np.array([0.0, np.nan], np.float32)),
        Clip(id="fine", waveform=np.ones(10, np.float32)),
    ]
    scores = score_each(clips, lambda clip: 1.0)
    assert [score.value for score in scores] == [None, None, None, 1.0]
    assert [score.reason for score in scores[:3]] == [
        "file missing",
        "the audio is empty",
        "the audio holds values that are not numbers",
    ]


def test_a_missing_evaluator_is_not_a_fault_of_the_clip():
    def measure(clip):
        optional_import("no_such_evaluator", package="no-such-evaluator", metric="this metric")

    with pytest.raises(EvaluatorUnavailable, match=r"pip install no-such-evaluator"):
        score_each(as_clips([(np.ones(4, np.float32), 16000)]), measure)


def test_clips_are_resampled_for_the_evaluator():
    seen = []
    score_each(as_clips([(np.ones(11025, np.float32), 11025)]), lambda clip: float(seen.append(clip) or 0))
    assert seen[0].sample_rate == 16000 and len(seen[0].waveform) == 16000


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="expected"):
        mono(np.zeros((1, 2, 3)))
