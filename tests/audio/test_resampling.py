"""Resampling in blocks: the filter of torchaudio, the same bits for every block size."""

import pytest
import torch
import torchaudio

from csm.audio.resampling import BlockResampler, resample


def noise(samples: int) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.3


@pytest.mark.parametrize("rates", [(44_100, 24_000), (8_000, 24_000), (48_000, 11_025), (16_000, 8_000)])
@pytest.mark.parametrize("samples", [1, 2, 100, 50_017])
def test_filter_and_length_equal_those_of_torchaudio(rates, samples):
    signal = noise(samples)
    expected = torchaudio.transforms.Resample(*rates)(signal)
    ours = resample(signal, *rates)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rates", [(44_100, 24_000), (8_000, 24_000), (48_000, 8_000), (11_025, 11_025)])
@pytest.mark.parametrize("cut", [1, 333, 4_097])
def test_the_bits_do_not_depend_on_the_block_boundaries(rates, cut):
    signal = noise(9_001 if cut > 1 else 601)
    resampler = BlockResampler(*rates)
    parts = [*map(resampler.push, signal.split(cut)), resampler.finish()]
    assert torch.equal(torch.cat(parts), resample(signal, *rates))


def test_rates_without_a_common_divisor_cost_no_more_than_others():
    resampler = BlockResampler(44_101, 24_000)
    assert resampler._filters.numel() < 1e6  # in torchaudio they would be 24,000 filters of 44,125 taps
    time = torch.arange(44_101, dtype=torch.float64) / 44_101
    tone = torch.cat([resampler.push(torch.sin(2000 * torch.pi * time).float()), resampler.finish()])
    wanted = torch.sin(2000 * torch.pi * torch.arange(24_000, dtype=torch.float64) / 24_000).float()
    inside = slice(100, -100)
    torch.testing.assert_close(tone[inside], wanted[inside], atol=2e-3, rtol=0)


def test_no_samples_give_none_and_a_rate_of_zero_is_refused():
    assert BlockResampler(8_000, 24_000).finish().numel() == 0
    with pytest.raises(ValueError, match="0 -> 24000: expected whole numbers of Hz above 0"):
        BlockResampler(0, 24_000)
