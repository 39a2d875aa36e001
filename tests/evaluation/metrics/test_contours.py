"""Pitch on sounds whose pitch is known, and the comparison that must not count silence as 0 Hz."""

import numpy as np
import pytest

from csm.evaluation.metrics.contours import (
    Contour,
    clip_contours,
    clip_statistics,
    contour,
    pause_lengths,
)
from csm.evaluation.metrics.prosody import paired_prosody


def flat(values, energy=-20.0):
    f0 = np.array(values, dtype=float)
    return Contour(f0=f0, energy=np.full(len(f0), energy) + np.arange(len(f0)) * 1e-3)


def test_f0_error_counts_only_frames_voiced_in_both():
    reference = flat([100.0] * 10 + [0.0] * 5 + [100.0] * 5)
    other = flat([100.0] * 10 + [100.0] * 5 + [0.0] * 5)
    values = paired_prosody(reference, other)
    assert values["f0_rmse"] == 0.0
    assert values["voicing_error"] == pytest.approx(0.5)


def test_an_octave_is_1200_cents_and_a_gross_error():
    values = paired_prosody(flat([100.0] * 10), flat([200.0] * 10))
    assert values["f0_rmse"] == pytest.approx(1200.0)
    assert values["gross_pitch_error"] == 1.0


def test_without_common_voiced_frames_there_is_no_number():
    values = paired_prosody(flat([100.0] * 10 + [0.0] * 10), flat([0.0] * 10 + [100.0] * 10))
    assert np.isnan(values["f0_rmse"])


def test_praat_finds_the_pitch_of_a_pulse_train():
    pytest.importorskip("parselmouth")
    train = np.zeros(16000, np.float32)
    train[::100] = 0.5
    assert clip_statistics(contour(train))["f0_median"] == pytest.approx(160.0, rel=0.01)


def test_a_real_clip_speaks_at_a_human_pitch(real_clips):
    pytest.importorskip("parselmouth")
    shape = clip_contours(real_clips["JOE"][:1])[0]
    assert not isinstance(shape, str)
    assert 70 < clip_statistics(shape)["f0_median"] < 300
    same = paired_prosody(shape, shape)
    assert same["f0_rmse"] == 0.0 and same["f0_correlation"] == pytest.approx(1.0)


def test_pauses_are_inside_the_clip_and_long_enough():
    energy = np.array([-60.0] * 30 + [-10.0] * 20 + [-60.0] * 25 + [-10.0] * 20 + [-60.0] * 5 + [-10.0] * 9)
    shape = Contour(f0=np.zeros(len(energy)), energy=energy)
    assert pause_lengths(shape) == pytest.approx([0.25])


def test_unvoiced_clips_have_a_reason():
    with pytest.raises(ValueError, match="voiced frames"):
        clip_statistics(flat([0.0] * 30))
