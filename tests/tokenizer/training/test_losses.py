"""What the tokenizer is trained on: zero and growing where it should be, with exact gradients."""

import pytest
import torch
import torch.nn.functional as F

from csm.tokenizer.training.losses import (
    SpectralLoss,
    TokenizerLossConfig,
    adversarial_loss,
    balanced_judges_loss,
    discriminator_loss,
    distillation_loss,
    feature_matching_loss,
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


def test_it_hears_a_wrong_level_and_not_a_late_phase(loss):
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


def opinions(value):
    return [[torch.ones(1, 2, 3), torch.full((1, 1, 4), value)] for _ in range(3)]


def test_the_hinge_is_0_for_judges_that_are_right_and_2_for_undecided_ones():
    assert discriminator_loss(opinions(1.5), opinions(-1.5)) == 0
    assert discriminator_loss(opinions(0.0), opinions(0.0)) == 2
    assert adversarial_loss(opinions(1.5)) == 0 and adversarial_loss(opinions(-1.0)) == 2


def test_feature_matching_is_relative_to_the_size_on_real_audio():
    real = [[torch.full((1, 2, 3), 4.0), torch.zeros(1)]]
    fake = [[torch.full((1, 2, 3), 3.0), torch.ones(1)]]
    torch.testing.assert_close(feature_matching_loss(real, fake), torch.tensor(0.25))
    assert feature_matching_loss(real, real) == 0


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_judges_gradient_has_the_asked_norm_and_its_own_direction(ratio):
    source = torch.randn(2, 1, 50, requires_grad=True)
    output = source * 1.0
    spectral, judges = (output - 1).abs().mean(), (output * 7).sigmoid().sum()
    balanced = balanced_judges_loss(output, spectral, judges, ratio)
    (own,) = torch.autograd.grad(balanced, source, retain_graph=True)
    (wanted,) = torch.autograd.grad(spectral, source)
    torch.testing.assert_close(own.norm(), ratio * wanted.norm())
    sigmoid = (source.detach() * 7).sigmoid()
    direction = sigmoid * (1 - sigmoid)
    torch.testing.assert_close(own / own.norm(), direction / direction.norm())


def test_shares_outside_0_to_1_are_refused():
    for name in ("condition_dropout", "quantizer_dropout", "bypass"):
        with pytest.raises(ValueError, match=name):
            TokenizerLossConfig(**{name: 1.5})


def test_the_distillation_loss_is_the_cosine_distance_of_frames_that_count():
    output = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    target = torch.tensor([[[3.0, 0.0], [0.0, -1.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    assert distillation_loss(output, target, mask).item() == pytest.approx(1.0)
    assert distillation_loss(output, target, torch.zeros_like(mask)).item() == 0
