"""Resampling in blocks: no aliases, and the same bits for every block size."""

import pytest
import torch

from csm.audio.resampling import BlockResampler, resample


def noise(samples: int) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.3


def tone(frequency: float, rate: int, seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(int(rate * seconds), dtype=torch.float64) / rate
    return torch.sin(2 * torch.pi * frequency * time).float()


def level(signal: torch.Tensor) -> float:
    """Level of the inside of a signal in dB of a sine at full scale."""
    return float(10 * torch.log10(2 * signal[1000:-1000].double().square().mean() + 1e-20))


RATES = [(44_100, 24_000), (8_000, 24_000), (48_000, 11_025), (16_000, 8_000), (44_101, 24_000)]


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("samples", [1, 2, 100, 50_017])
def test_the_length_is_that_of_the_duration_rounded_up(rates, samples):
    assert len(resample(noise(samples), *rates)) == -(-samples * rates[1] // rates[0])


@pytest.mark.parametrize("rates", [(44_100, 24_000), (48_000, 11_025), (24_000, 16_000)])
def test_tones_below_the_new_nyquist_frequency_stay_and_those_above_are_gone(rates):
    source, target = rates
    for share in (0.1, 0.5, 0.85):
        found = resample(tone(share * target / 2, source), source, target)
        torch.testing.assert_close(
            found[1000:-1000], tone(share * target / 2, target)[1000 : len(found) - 1000], atol=1e-3, rtol=0
        )
    for share in (1.02, 1.2, 1.7):
        if share * target < source:
            assert level(resample(tone(share * target / 2, source), source, target)) < -100


@pytest.mark.parametrize("rates", [(44_100, 24_000), (8_000, 24_000), (48_000, 8_000), (11_025, 11_025)])
@pytest.mark.parametrize("cut", [1, 333, 4_097])
def test_the_bits_do_not_depend_on_the_block_boundaries(rates, cut):
    signal = noise(9_001 if cut > 1 else 601)
    resampler = BlockResampler(*rates)
    parts = [*map(resampler.push, signal.split(cut)), resampler.finish()]
    assert torch.equal(torch.cat(parts), resample(signal, *rates))


def test_no_samples_give_none_and_a_rate_of_zero_is_refused():
    assert BlockResampler(8_000, 24_000).finish().numel() == 0
    with pytest.raises(ValueError, match="0 -> 24000: expected whole numbers of Hz above 0"):
        BlockResampler(0, 24_000)


def delay_of(quality: str, source: int, target: int) -> float:
    """Seconds by which the output of a stream in blocks of 20 ms trails its input at most."""
    resampler, read, written, late = BlockResampler(source, target, quality=quality), 0, 0, []
    for block in noise(source).split(source // 50):
        written += len(resampler.push(block))
        read += len(block)
        late.append(read / source - written / target)
    return max(late[5:])


@pytest.mark.parametrize("source", [48_000, 44_100])
def test_live_audio_arrives_in_half_the_time_and_without_aliases(source):
    assert delay_of("LQ", source, 16_000) <= 0.6 * delay_of("HQ", source, 16_000) < 0.045
    resampler = BlockResampler(source, 16_000, quality="LQ")
    low = torch.cat([resampler.push(tone(0.5 * 8_000, source)), resampler.finish()])
    assert abs(level(low)) < 0.1
    above = BlockResampler(source, 16_000, quality="LQ")
    assert level(torch.cat([above.push(tone(1.02 * 8_000, source)), above.finish()])) < -90
