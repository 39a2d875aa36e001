"""Who speaks when, on hand-made dialogues and with the real voice detector."""

import numpy as np
import pytest

from csm.evaluation.metrics.turn_taking import (
    VoiceActivity,
    count_backchannels,
    inter_pausal_units,
    turn_taking,
)


def test_gaps_under_200_ms_are_merged():
    assert inter_pausal_units([(0.0, 1.0), (1.19, 2.0), (2.2, 3.0)]) == [(0.0, 2.0), (2.2, 3.0)]


def test_an_early_start_stays_negative():
    events = turn_taking([[(0.0, 2.0)], [(1.5, 3.0)]], 3.0)
    assert events.fto == pytest.approx([-500.0])
    assert events.overlap_between == pytest.approx([500.0])
    assert events.gap == []


def test_gaps_pauses_and_overlap_within_are_told_apart():
    events = turn_taking([[(0.0, 2.0), (2.5, 4.0)], [(1.0, 1.3), (4.2, 5.0)]], 6.0)
    assert events.overlap_within == pytest.approx([300.0])
    assert events.pause == pytest.approx([500.0])
    assert events.gap == pytest.approx([200.0])
    assert events.fto == pytest.approx([200.0])
    assert len(events.ipu) == 4


def test_backchannels_are_short_and_stand_alone():
    assert count_backchannels([(0.0, 0.5), (2.0, 2.4), (3.0, 6.0)]) == 1
    assert count_backchannels([(0.0, 1.5)]) == 0


def test_one_channel_is_refused():
    with pytest.raises(ValueError, match="two speakers"):
        turn_taking([[(0.0, 1.0)]], 1.0)


def test_silero_finds_a_real_clip_between_silences(real_clips):
    pytest.importorskip("silero_vad")
    clip = real_clips["JOE"][0]
    quiet = np.zeros(clip.sample_rate, np.float32)
    speech = VoiceActivity().intervals(np.concatenate([quiet, clip.waveform, quiet]), clip.sample_rate)
    assert speech and speech[0][0] > 0.9 and speech[-1][1] < 1.1 + clip.duration
    assert VoiceActivity().intervals(quiet, clip.sample_rate) == []
