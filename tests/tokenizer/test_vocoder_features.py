"""Features follow loudness, time and frequency as stated, and depend on no batch and no cut."""

import math

import pytest
import torch

from csm.tokenizer.layers import streaming
from csm.tokenizer.vocoder_features import CEPSTRUM, PERIODICITY, PITCH, PITCH_RANGE, WIDTH, VocoderFeatures
from tests.small_vocoder_tokenizer import FRAME, RATE, voices


def noise(frames: int, seed: int = 0) -> torch.Tensor:
    return 0.05 * torch.randn(1, frames * FRAME, generator=torch.Generator().manual_seed(seed))


def test_eight_steps_of_22_features_for_each_frame():
    features = VocoderFeatures()(voices(2, 3)[:, 0])
    assert features.shape == (2, 24, WIDTH) and features.dtype == torch.float32 and WIDTH == 22
    assert features.isfinite().all()
    assert float(features[..., PITCH].min()) >= PITCH_RANGE[0] - 1e-6
    assert float(features[..., PITCH].max()) <= PITCH_RANGE[1] + 1e-6
    assert float(features[..., PERIODICITY].abs().max()) <= 0.5


def test_twice_the_amplitude_is_in_the_first_coefficient_and_in_the_high_bands_alone():
    """Log energies grow by log10(4); the first coefficient is their sum over sqrt(18)."""
    features = VocoderFeatures()
    change = features(2 * noise(4)) - features(noise(4))
    # Before step 4 a window holds the silence before the signal.
    change = change[:, 4:]
    expected = torch.zeros_like(change)
    expected[..., 0] = math.log10(4) * math.sqrt(CEPSTRUM)
    expected[..., CEPSTRUM + 2 :] = math.log10(4)
    # Periodicity is a ratio: its last bits differ.
    torch.testing.assert_close(change, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("hertz", [78.4, 131.0, 220.5, 391.0])
def test_the_pitch_feature_is_lpcnets_of_a_period_at_16_khz(hertz):
    place = torch.arange(3 * FRAME, dtype=torch.float64) / RATE
    wave = sum(torch.sin(2 * torch.pi * hertz * k * place) / k for k in range(1, 8))
    pitch = VocoderFeatures()(0.1 * wave.float().unsqueeze(0))[0, 6:, PITCH]
    period = 256 / 2 ** (pitch.double() + 1.5)
    assert float((period * hertz / 16_000 - 1).abs().max()) < 0.01


@pytest.mark.parametrize("step", [9, 20])
def test_an_impulse_is_in_the_two_steps_whose_windows_hold_it(step):
    """Step i is centred at sample 240 * i - 360: its window has 240 samples before it and 240 from it on."""
    features, quiet = VocoderFeatures(), torch.zeros(1, 4 * FRAME)
    before = features(quiet)
    for place, expected in ((-361, [step - 1, step]), (-360, [step, step + 1]), (-240, [step, step + 1])):
        struck = quiet.clone()
        struck[0, 240 * step + place] = 0.5
        after = features(struck)
        assert (after != before)[0, :, :PITCH].any(dim=1).nonzero().flatten().tolist() == expected
    struck = quiet.clone()
    struck[0, 240 * step - 360] = 0.5
    assert int(features(struck)[0, :, 0].argmax()) == step


def test_no_step_sees_a_sample_after_its_end():
    """Of 240 * (i + 1) samples, and in its decision of a path those of its frame."""
    features, signal = VocoderFeatures(), voices(1, 4)[:, 0]
    changed = signal.clone()
    changed[:, 2 * FRAME :] = noise(2, 3)
    one, two = features(signal), features(changed)
    assert torch.equal(one[:, :16], two[:, :16]) and not torch.equal(one[:, 16:], two[:, 16:])


@pytest.mark.parametrize(("hertz", "band"), [(9_000.0, 0), (11_000.0, 1)])
def test_a_tone_above_8_khz_is_in_its_high_band_with_its_energy(hertz, band):
    """Of amplitude a at full scale 32,768: (a * mean of the window / 2)^2 a bin, summed over the window."""
    place = torch.arange(2 * FRAME, dtype=torch.float64) / RATE
    features = VocoderFeatures()
    high = features(0.1 * torch.sin(2 * torch.pi * hertz * place).float().unsqueeze(0))[0, 8:, CEPSTRUM + 2 :]
    # Parseval: half of the bins of a real signal hold half of the window's energy of 0.75 * 480.
    energy = (0.1 * 32_768) ** 2 / 4 * float(features.window.square().mean())
    torch.testing.assert_close(
        high[:, band], torch.full_like(high[:, band], math.log10(energy)), atol=0.02, rtol=0
    )
    assert float((high[:, band] - high[:, 1 - band]).min()) > 2.5


def test_silence_has_the_lowest_energies():
    features = VocoderFeatures()(torch.zeros(1, FRAME))[0]
    # Log energies of -2 fall by no more: their sum over sqrt(18), less 4.
    torch.testing.assert_close(features[:, 0], torch.full((8,), -2 * math.sqrt(18) - 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[:, 1:CEPSTRUM], torch.zeros(8, 17), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[:, CEPSTRUM + 2 :], torch.full((8, 2), -2.0))


def test_features_depend_on_no_batch_and_no_cut():
    features, signals = VocoderFeatures(), voices(3, 5)[:, 0]
    signals[1] = 0
    whole = features(signals)
    for item in range(3):
        assert torch.equal(features(signals[item : item + 1])[0], whole[item])
    for cuts in ([1, 1, 1, 1, 1], [2, 3]):
        with streaming(features, 3):
            parts = [features(part) for part in signals.split([cut * FRAME for cut in cuts], dim=1)]
        assert torch.equal(torch.cat(parts, dim=1), whole)
    assert features.stream_state is None and torch.equal(features(signals), whole)
