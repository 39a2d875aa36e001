"""Resynthesis against its recording."""

import numpy as np
import pytest

from csm.evaluation.core.statistics import pooled_mean
from csm.evaluation.metrics import fidelity
from csm.evaluation.metrics.fidelity import log_mel_distance, paired, paired_scores


def test_a_pesq_exception_is_a_failure_and_not_a_score_of_one():
    pytest.importorskip("pesq")
    silence, speech = np.zeros(16000, np.float32), np.random.default_rng(0).standard_normal(16000)
    scores = paired_scores(paired([(silence, speech.astype(np.float32), 16000)]), fidelity.pesq_wideband)
    assert scores[0].value is None and scores[0].reason
    assert pooled_mean([score for score in scores if score.value is not None], None) is None


def test_an_exception_of_any_measure_is_counted():
    def broken(reference, decoded):
        raise ZeroDivisionError("no")

    scores = paired_scores(paired([(np.ones(99, np.float32), np.ones(99, np.float32), 16000)]), broken)
    assert scores[0].reason == "ZeroDivisionError: no"


def test_stoi_of_too_short_audio_is_a_failure_and_not_zero():
    pytest.importorskip("pystoi")
    tone = np.sin(np.arange(1600) / 5).astype(np.float32)
    scores = paired_scores(paired([(tone, tone, 16000)]), fidelity.short_time_intelligibility)
    assert scores[0].value is None


@pytest.mark.parametrize("name", sorted(fidelity.PAIR_MEASURES))
def test_noise_makes_every_measure_worse_on_a_real_clip(name, real_clips):
    pytest.importorskip({"pesq_wb": "pesq", "stoi": "pystoi"}.get(name, "numpy"))
    clip = real_clips["JOE"][0]
    noise = np.random.default_rng(0).standard_normal(len(clip.waveform)).astype(np.float32)
    pairs = paired([(clip.waveform, clip.waveform + k * noise, clip.sample_rate) for k in (1e-3, 1e-2, 1e-1)])
    values = [score.value for score in paired_scores(pairs, fidelity.PAIR_MEASURES[name])]
    higher = fidelity.fidelity_infos()[name].direction == "higher"
    assert values == sorted(values, reverse=higher)


def test_lengths_that_differ_by_more_than_a_frame_are_not_compared():
    scores = paired_scores(
        paired([(np.ones(16000, np.float32), np.ones(8000, np.float32), 16000)]), log_mel_distance
    )
    assert "lengths differ by 0.50 s" in scores[0].reason
