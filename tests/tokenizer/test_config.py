"""Sizes that do not fit each other are refused by the name of the field."""

import dataclasses

import pytest

from csm.tokenizer.config import TokenizerConfig


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
