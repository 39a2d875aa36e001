"""Filters, noise and delay of the vocoder are as stated; samples depend on no batch and no cut."""

import math

import pytest
import torch
from scipy.signal import lfilter

from csm.tokenizer import vocoder as module
from csm.tokenizer.layers import streaming
from csm.tokenizer.vocoder import INTEGERS, SHAPES, Vocoder
from csm.tokenizer.vocoder_features import CEPSTRUM, HOP, PITCH, WIDTH, VocoderFeatures
from tests.small_vocoder_tokenizer import RATE, voices


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    torch.manual_seed(0)
    return Vocoder().eval()


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    """Those of three voices, [3, 16, 22]."""
    return VocoderFeatures()(voices(3, 2)[:, 0])


@pytest.mark.parametrize("hertz", [200, 1000, 4000, 7000])
def test_the_filter_to_24_khz_keeps_a_tone_and_no_image_of_it(vocoder, hertz):
    place = torch.arange(3200, dtype=torch.float64)
    tone = torch.sin(2 * torch.pi * hertz * place / 16_000).unsqueeze(0)
    wide, _ = vocoder._upsampled(tone, torch.zeros(1, 48, dtype=torch.float64))
    assert wide.shape == (1, 4800)
    # The last 2,400 samples hold whole periods; the filter's centre is 71.5 of 48 kHz.
    time = (torch.arange(4800, dtype=torch.float64) - 35.75)[-2400:]
    expected = torch.sin(2 * torch.pi * hertz * time / RATE)
    assert float((wide[0, -2400:] - expected).abs().max()) < 0.01
    power = torch.fft.rfft(wide[0, -2400:]).abs()
    own = hertz * 2400 // RATE
    assert float(power[own]) == pytest.approx(1200, rel=0.01)
    power[own] = 0
    assert 20 * math.log10(float(power.max()) / 1200) < -50


def test_the_filter_gives_the_same_samples_in_parts(vocoder):
    speech = torch.randn(2, 640, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = torch.zeros(2, 48, dtype=torch.float64)
    whole, last = vocoder._upsampled(speech, before)
    first, between = vocoder._upsampled(speech[:, :160], before)
    second, end = vocoder._upsampled(speech[:, 160:], between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-13, rtol=0)
    assert torch.equal(end, last)


def test_deemphasis_is_the_recursion_whatever_came_before():
    samples = torch.randn(2, 800, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = torch.tensor([[0.7], [-0.2]], dtype=torch.float64)
    out, last = module._deemphasised(samples, before)
    expected, _ = lfilter([1], [1, -0.85], samples.numpy(), zi=0.85 * before.numpy())
    torch.testing.assert_close(out, torch.from_numpy(expected), atol=1e-12, rtol=0)
    assert torch.equal(last, out[:, -1:])
    empty, same = module._deemphasised(samples[:, :0], before)
    assert empty.shape == (2, 0) and same is before


def test_noise_of_the_high_bands_has_the_energies_that_it_is_given(vocoder):
    """As the features measure them again, within 0.7 dB, and in no lower band."""
    energies = torch.tensor([5.0, 4.2], dtype=torch.float64).expand(1, 160, 2)
    samples, gains = vocoder._high_bands(energies, vocoder._silence(1))
    torch.testing.assert_close(gains, (10 ** energies[:, 0]).sqrt(), rtol=1e-6, atol=0)
    measured = VocoderFeatures()(samples.float())[0, 8:, CEPSTRUM + 2 :].double()
    decibels = 10 * ((10**measured).mean(dim=0).log10() - energies[0, 0])
    assert float(decibels.abs().max()) < 0.7
    # One period of the noise: its spectrum has exact edges.
    power = torch.fft.rfft(vocoder.noise.double(), dim=0).abs().square()
    frequency = torch.arange(len(power)) * (RATE / len(vocoder.noise))
    inside = torch.stack([(frequency >= 8000) & (frequency < 10_000), frequency >= 10_000], dim=1)
    assert float((power * ~inside).sum()) < 1e-12 * float(power.sum())


def test_bands_of_no_energy_are_silent(vocoder):
    samples, _ = vocoder._high_bands(torch.full((1, 8, 2), -2.0, dtype=torch.float64), vocoder._silence(1))
    assert not samples.any()


def test_periods_are_those_that_the_pitch_was_computed_from(vocoder, monkeypatch):
    seen = []

    def record(weights, conditions, periods, state):
        seen.append(periods)
        return torch.zeros(len(periods), 160 * periods.shape[1]), state

    monkeypatch.setattr(module, "vocoder_frames", record)
    periods = torch.arange(32, 251)
    features = torch.zeros(1, len(periods), WIDTH)
    features[0, :, PITCH] = 8 - periods.double().log2() - 1.5
    features[0, :, CEPSTRUM + 2 :] = -2
    vocoder(features)
    assert torch.equal(seen[0][0], periods)
    features[0, :2, PITCH] = torch.tensor([9.0, -9.0])
    seen.clear()
    vocoder(features)
    assert seen[0][0, :2].tolist() == [32, 250], "a pitch out of range is that of the range's end"


def test_every_sample_is_there_and_finite(vocoder, features):
    for steps in (1, 3, 16):
        waveform = vocoder(features[:, :steps])
        assert waveform.shape == (3, steps * HOP) and waveform.dtype == torch.float32
        assert waveform.isfinite().all()
    assert not list(vocoder.parameters()), "no training changes a vocoder"


def test_a_changed_step_changes_no_sample_earlier_than_the_delay_says(vocoder, features):
    whole = vocoder(features[:1])
    for step in (5, 12):
        changed = features[:1].clone()
        changed[:, step, :CEPSTRUM] += 0.5
        changed[:, step, CEPSTRUM + 2 :] += 0.5
        first = int((vocoder(changed) != whole)[0].nonzero().min())
        assert HOP * step - vocoder.delay <= first < HOP * (step + 1) - vocoder.delay


def test_samples_depend_on_no_batch_and_no_cut(vocoder, features):
    whole = vocoder(features)
    assert whole.std(dim=1).min() > 0
    for item in range(3):
        assert torch.equal(vocoder(features[item : item + 1])[0], whole[item])
    for cuts in ([1] * 16, [2, 8, 0, 6], [16]):
        with streaming(vocoder, 3):
            parts = [vocoder(part) for part in features.split(cuts, dim=1)]
            assert sum(part.shape[1] for part in parts) == whole.shape[1] - vocoder.delay
            parts.append(vocoder.flush())
            assert vocoder.flush().shape[1] == 0
        assert torch.equal(torch.cat(parts, dim=1), whole)


def test_a_stream_shorter_than_the_delay_gives_every_sample(vocoder, features):
    assert vocoder.delay > 3 * HOP
    for steps in (1, 3):
        with streaming(vocoder, 3):
            parts = [vocoder(features[:, :steps]), vocoder.flush()]
        assert torch.equal(torch.cat(parts, dim=1), vocoder(features[:, :steps]))


def test_flush_outside_a_stream_is_refused(vocoder):
    with pytest.raises(ValueError, match="outside a stream"):
        vocoder.flush()


def test_weights_are_set_by_name(features):
    vocoder = Vocoder()
    weights = {n: torch.full(s, 1 if n in INTEGERS else 0.01) for n, s in SHAPES.items()}
    weights |= {f"{name}_scale": torch.full(SHAPES[name][:1], 0.01) for name in INTEGERS}
    before = vocoder(features)
    vocoder.set_weights(weights)
    assert all(torch.equal(getattr(vocoder, name), weight) for name, weight in weights.items())
    assert not torch.equal(vocoder(features), before)
    assert set(vocoder.state_dict()) == set(weights), "filters and noise are computed, not saved"


def test_weights_are_packed_once_until_they_change(features):
    vocoder = Vocoder()
    with streaming(vocoder, len(features)):
        vocoder(features[:, :2])
        first = vocoder._packed
        vocoder(features[:, 2:])
        assert vocoder._packed is first
    before = vocoder(features)
    vocoder.gain.add_(0.5)
    assert not torch.equal(vocoder(features), before) and vocoder._packed is not first
