"""Features equal those of the recogniser, up to the quarter hop, and those of a stream equal the whole's."""

import pytest
import torch
import torchaudio

from csm.tokenizer.layers import streaming
from csm.tokenizer.semantic.log_mel import BANDS, LogMel, mel_filters


def test_filters_equal_torchaudios():
    for rate in (16_000, 24_000):
        bins = rate // 80 + 1
        expected = torchaudio.functional.melscale_fbanks(
            bins, 0.0, 8000.0, BANDS, rate, norm="slaney", mel_scale="slaney"
        )
        torch.testing.assert_close(mel_filters(bins, rate), expected, rtol=1e-4, atol=1e-7)


def test_a_tone_has_the_same_features_at_every_rate():
    features = []
    for rate in (16_000, 24_000, 48_000):
        tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)
        features.append(LogMel(rate)(tone.unsqueeze(0))[0, 20:80])
    torch.testing.assert_close(features[1], features[0], rtol=0, atol=0.02)
    torch.testing.assert_close(features[2], features[0], rtol=0, atol=0.02)


def test_a_step_sees_no_later_sample():
    mel = LogMel(24_000)
    wave = torch.randn(1, 2400)
    changed = wave.clone()
    changed[:, 1200:] = torch.randn(1, 1200)
    assert torch.equal(mel(wave)[:, :5], mel(changed)[:, :5])
    assert not torch.equal(mel(wave)[:, 5], mel(changed)[:, 5])


def test_a_stream_gives_the_same_features():
    mel = LogMel(24_000)
    wave = torch.randn(2, 4800)
    with streaming(mel, batch_size=2):
        parts = [mel(part) for part in wave.split(1920, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), mel(wave), rtol=0, atol=1e-6)


def test_silence_lies_at_the_floor():
    assert torch.equal(LogMel(24_000)(torch.zeros(1, 2400)), torch.full((1, 10, BANDS), -0.75))


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050])
def test_a_rate_without_whole_windows_is_refused(rate):
    with pytest.raises(ValueError, match="multiple of 400"):
        LogMel(rate)
