"""Sizes that do not fit each other are refused by the name of the field."""

import dataclasses

import pytest

from csm.tokenizer.config import TokenizerConfig
from tests.small_vocoder_tokenizer import CONFIG as VOCODER_CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": 8001}, "or another sample_rate"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"frame_rate": -12.5}, "frame_rate is -12.5"),
        ({"strides": (2, 3)}, "multiply to hops_per_frame"),
        ({"encoder_widths": (8, 8)}, "encoder_widths has 2 entries"),
        ({"semantic_codebooks": 8}, "semantic_codebooks is 8"),
        ({"window_hops": 1}, "window_hops is 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(config, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **change)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000])
def test_the_rates_and_hops_that_the_error_proposes_fit(rate):
    hops = {"hops_per_frame": 8, "strides": (4, 2)} if rate in (8000, 16000) else {}
    assert TokenizerConfig(sample_rate=rate, **hops).samples_per_frame * 12.5 == rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": 16_000}, r"sample_rate 24000.*not \(16000, 12.5, 8\)"),
        ({"hops_per_frame": 6, "strides": (3, 2)}, r"hops_per_frame 8.*not \(24000, 12.5, 6\)"),
        ({"recover_phase": True}, "no recover_phase.*recover_phase True"),
        ({"semantic_layers": 0, "prediction_frames": 1}, "a semantic encoder.*semantic_layers 0"),
        ({"encoder_widths": (16, 16, 24)}, "encoder_widths and acoustic_dim.*176, not 24 and 176"),
        ({"acoustic_dim": 0}, "encoder_widths and acoustic_dim.*176, not 176 and 0"),
    ],
)
def test_sizes_that_do_not_fit_a_vocoder_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match="vocoder is set: expected.*" + message):
        dataclasses.replace(VOCODER_CONFIG, **change)
