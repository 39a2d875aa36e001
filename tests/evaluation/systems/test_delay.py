"""A codec's delay is found from loudness and taken off."""

import numpy as np
import pytest

from csm.evaluation.core.clips import at_rate
from csm.evaluation.systems.delay import common_delay, without_delay


@pytest.fixture
def speech(real_clips):
    return [at_rate(clip.waveform, clip.sample_rate) for clip in real_clips["JOE"][:3]]


@pytest.mark.parametrize("delay", [0, 300, -80])
def test_the_delay_of_speech_is_found_to_the_sample(speech, delay):
    late = [np.roll(np.pad(clip, 400), delay) for clip in speech]
    pairs = [(np.pad(clip, 400), moved) for clip, moved in zip(speech, late, strict=True)]
    assert common_delay(pairs, 16000) == delay


def test_other_phases_do_not_hide_it(speech):
    # the loudness of the clip on noise: what a parametric codec's output has in common with its input
    noise = np.random.default_rng(0)
    late = [np.pad(np.abs(clip) * noise.choice([-1, 1], len(clip)), (304, 0)) for clip in speech]
    assert abs(common_delay(list(zip(speech, late, strict=True)), 16000) - 304) <= 16


def test_what_has_no_samples_says_nothing():
    assert common_delay([], 16000) == 0
    assert common_delay([(np.zeros(0), np.zeros(0)), (np.zeros(400), np.zeros(400))], 16000) == 0


def test_the_output_starts_where_the_input_started_and_is_no_longer():
    waveform = np.arange(10.0)
    assert without_delay(waveform, 3, 5).tolist() == [3, 4, 5, 6, 7]
    assert without_delay(waveform, -2, 4).tolist() == [0, 0, 0, 1]
    assert without_delay(waveform, 8, 5).tolist() == [8, 9]


def test_less_than_loudness_can_tell_is_no_delay(speech):
    pairs = [(clip, np.roll(clip, 20)) for clip in speech]
    assert common_delay(pairs, 16000) == 0
