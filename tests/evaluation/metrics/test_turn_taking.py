"""Who speaks when, on hand-made dialogues and with the real voice detector."""

import numpy as np
import pytest

from csm.evaluation.metrics.turn_taking import (
    VoiceActivity,
    floor_events,
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


def test_gaps_pauses_and_overlap_within_are_distinguished():
    events = turn_taking([[(0.0, 2.0), (2.5, 4.0)], [(1.0, 1.3), (4.2, 5.0)]], 6.0)
    assert events.overlap_within == pytest.approx([300.0])
    assert events.pause == pytest.approx([500.0])
    assert events.gap == pytest.approx([200.0])
    assert events.fto == pytest.approx([200.0])
    assert len(events.ipu) == 4


def test_backchannels_are_short_and_stand_alone_within_the_recording():
    talking = [(0.0, 9.0)]
    listening = [(0.2, 0.6), (3.0, 3.4), (5.0, 6.2), (8.5, 8.9)]
    # The first and the last lie at the file's edges, the third is too long.
    assert floor_events([talking, listening], 9.0).backchannels == [(3.0, 3.4)]
    assert turn_taking([talking, listening], 9.0).backchannels == 1


def test_a_word_before_a_speakers_own_pause_is_no_backchannel():
    # "Well" (1.5 s pause) "I was thinking ...": the other is silent between them.
    other, own = [(0.0, 3.0), (9.0, 12.0)], [(4.2, 4.6), (6.1, 8.5)]
    assert floor_events([other, own], 12.0).backchannels == []
    # The same word with the other speaking after it stands alone.
    assert floor_events([[(0.0, 3.0), (4.9, 6.0), (9.0, 12.0)], own], 12.0).backchannels == [(4.2, 4.6)]


def test_silences_are_shifts_or_holds_by_the_second_on_each_side():
    a, b = [(0.0, 2.0), (2.5, 4.0), (8.0, 9.0)], [(4.4, 6.0), (7.9, 8.4)]
    events = floor_events([a, b], 10.0)
    assert events.holds == [(2.0, 2.5)] and events.shifts == [(4.0, 4.4)]
    # From 6.0 on both sides speak within the second after the silence; from 9.0 on the file ends.
    early = floor_events([[(0.0, 0.8)], [(1.0, 2.5)]], 4.0)
    assert early.shifts == early.holds == [], "less than a second of the first speaker"
    counted = turn_taking([a, b], 10.0)
    assert (counted.shifts, counted.holds) == (1, 1)


def test_one_channel_has_no_floor():
    with pytest.raises(ValueError, match="two speakers"):
        floor_events([[(0.0, 1.0)]], 1.0)


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
