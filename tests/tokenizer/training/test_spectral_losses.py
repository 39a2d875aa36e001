"""Spectral distances: zero and growing where they should be, with exact gradients."""

import pytest
import torch
import torch.nn.functional as F

from csm.tokenizer.training.spectral_losses import (
    MagnitudeLoss,
    SpectralLoss,
    audibility,
    spectral_weights,
)


def waveforms(seed, samples=1600):
    return 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def loss():
    return SpectralLoss(8000)


def test_equal_signals_have_no_loss(loss):
    mel, magnitude = loss(waveforms(0), waveforms(0))
    assert mel == 0 and magnitude == 0


def test_the_loss_grows_with_the_distance(loss):
    target, noise = waveforms(0), waveforms(1)
    values = [torch.stack(loss(target + share * noise, target)) for share in (0.01, 0.1, 0.5, 2.0)]
    assert all((later > earlier).all() for earlier, later in zip(values, values[1:], strict=False))


def test_it_measures_a_wrong_level_and_hardly_a_late_phase(loss):
    time = torch.arange(1600) / 8000
    tone, late = torch.sin(2 * torch.pi * 500 * time)[None], torch.cos(2 * torch.pi * 500 * time)[None]
    assert loss(tone, 0.5 * tone)[1] > 5 * loss(tone, late)[1]


def test_silence_is_finite_and_has_a_finite_gradient(loss):
    output = torch.zeros(2, 1600, requires_grad=True)
    mel, magnitude = loss(output, waveforms(0))
    (mel + magnitude).backward()
    assert mel.isfinite() and output.grad.isfinite().all()


def test_zeroed_padding_does_not_dilute_it(loss):
    output, target = waveforms(0), waveforms(1)
    padded = [torch.cat([x, torch.zeros(2, 16_000)], dim=1) for x in (output, target)]
    whole, share = loss(output, target)[0], torch.tensor(1600 / 17_600)
    torch.testing.assert_close(loss(*padded, share)[0], whole, rtol=0.1, atol=0)


def plain(loss, output, target):
    """The same losses by torch's own derivative of the FFT."""
    mel_total = magnitude_total = 0.0
    for index, length in enumerate(loss.lengths):
        window, filters = loss.get_buffer(f"window{index}"), loss.get_buffer(f"filters{index}")

        def features(x, length=length, window=window, filters=filters):
            spectrum = torch.view_as_real(torch.fft.rfft(x.unfold(-1, length, length // 4) * window))
            magnitude = (spectrum.square().sum(-1) + 1e-9).sqrt()
            return (magnitude @ filters + 1e-5 * length).log(), magnitude.pow(0.5)

        (mel, size), (mel_target, size_target) = features(output), features(target)
        mel_total = mel_total + F.l1_loss(mel, mel_target)
        magnitude_total = magnitude_total + F.l1_loss(size, size_target)
    return mel_total / len(loss.lengths), magnitude_total / len(loss.lengths)


@pytest.mark.parametrize("rate", [8000, 11025])
def test_value_and_gradient_are_those_of_the_plain_formula(rate):
    loss = SpectralLoss(rate)
    output, target = waveforms(0, 2000).requires_grad_(), waveforms(1, 2000)
    double = output.detach().double().requires_grad_()
    exact = plain(loss.double(), double, target.double())
    (expected,) = torch.autograd.grad(exact[0] + exact[1], double)
    loss.float()
    own, reference = loss(output, target), plain(loss, output, target)
    gradients = [torch.autograd.grad(a + b, output)[0] for a, b in (own, reference)]
    error, allowed = ((g - expected).norm() / expected.norm() for g in gradients)
    assert error <= 2 * allowed + 1e-6
    for value, truth in zip(own, exact, strict=True):
        torch.testing.assert_close(value.double(), truth, rtol=1e-5, atol=0)


def test_waveforms_that_do_not_fit_are_refused(loss):
    with pytest.raises(ValueError, match="one shape"):
        loss(waveforms(0), waveforms(0, 1601))
    with pytest.raises(ValueError, match="longest window"):
        loss(waveforms(0, 100), waveforms(0, 100))


def test_the_weight_of_the_envelope_counts_smooth_errors_more_and_fine_ones_alike() -> None:
    rate, window = 8000, 320
    plain, weighted = (spectral_weights(rate, window, envelope) for envelope in (1.0, 3.0))
    torch.testing.assert_close(plain, torch.diag(audibility(rate, window).sqrt()))
    inner = slice(20, 140)  # the ends are averaged over fewer bins
    smooth, fine = torch.ones(161), torch.tensor([1.0, -1.0]).repeat(81)[:161]
    for error, least, most in ((smooth, 2.99, 3.01), (fine, 0.8, 1.3)):
        ratio = ((weighted @ error) / (plain @ error))[inner]
        assert least < float(ratio.min()) and float(ratio.max()) < most
    assert float(torch.linalg.svdvals(weighted.double()).min()) > 1e-3, "nothing is lost: it has an inverse"


def test_a_loss_with_an_envelope_is_the_square_of_the_weighted_error() -> None:
    generator = torch.Generator().manual_seed(0)
    target, predicted = (torch.rand(2, 5, 161, generator=generator) for _ in range(2))
    weight = torch.ones(2, 5)
    weight[1, 3:] = 0
    _, found = MagnitudeLoss(8000, 320, envelope=3.0)(predicted, target, weight)
    matrix, kept = spectral_weights(8000, 320, 3.0), weight.bool()
    error = ((target - predicted)[kept] @ matrix.T).square().sum()
    spread = ((target[kept] - target[kept].mean(0)) @ matrix.T).square().sum()
    torch.testing.assert_close(found, error / spread)
