"""The raters on real clips: noise lowers both, silence is a failure."""

import numpy as np
import pytest

from csm.evaluation.metrics.naturalness import DistillMos, Dnsmos, mean_opinion_scores


@pytest.mark.parametrize(("rater", "package"), [(Dnsmos, "speechmos"), (DistillMos, "distillmos")])
def test_a_ruined_clip_is_rated_below_the_real_one(rater, package, real_clips):
    pytest.importorskip(package)
    clip = real_clips["JOE"][0]
    noise = 0.3 * np.random.default_rng(0).standard_normal(len(clip.waveform)).astype(np.float32)
    rater = rater()
    real, ruined, silent = mean_opinion_scores(
        rater, [clip, (clip.waveform + noise, clip.sample_rate), (np.zeros(16000, np.float32), 16000)]
    )
    assert 1.0 <= ruined.value < real.value <= 5.0
    assert silent.value is None and "silent" in silent.reason
    assert mean_opinion_scores(rater, [clip])[0].value == real.value
