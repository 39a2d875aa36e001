"""A tokenizer started at principal components already is a codec, as good as its widths allow."""

import copy
import dataclasses

import pytest
import torch

from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.principal_components import start_from_principal_components
from csm.tokenizer.training.spectral_losses import spectral_weights


def harmonics(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Tones of many pitches with harmonics, [B, 1, S] at 8 kHz: few components describe them."""
    generator = torch.Generator().manual_seed(seed)
    pitch = 100 + 100 * torch.rand(batch, 1, 1, generator=generator)
    phase = 2 * torch.pi * pitch * torch.arange(samples) / 8000
    return sum(torch.sin(k * phase + k) / k for k in range(1, 8)) * 0.05


def started(config, clips, envelope: float = 1.0) -> ConversationalRVQ:
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(config).eval()
    generator = torch.Generator().manual_seed(0)
    start_from_principal_components(tokenizer, clips, generator, envelope=envelope)
    return tokenizer


@pytest.fixture
def clips():
    frame = 640
    return [(harmonics(8, 30 * frame, seed), torch.ones(8, 30, dtype=torch.bool)) for seed in range(3)]


@torch.no_grad()
def explained(tokenizer: ConversationalRVQ, audio: torch.Tensor, num_codebooks: int) -> float:
    """Share of the variance of compressed magnitudes that codes carry."""
    spectrum = tokenizer.encoder.spectrum
    target = spectrum.compressed(spectrum(audio[:, 0]))
    codes, _ = tokenizer.encode(audio, num_codebooks=num_codebooks)
    output = tokenizer.decoder.compressed(tokenizer.decoder.frames(tokenizer.quantizer.decode(codes)))
    return 1 - float((output - target).square().sum() / (target - target.mean((0, 1))).square().sum())


def test_an_untrained_tokenizer_carries_spectra_it_was_not_started_from(recovering, clips):
    config = recovering.config
    fresh, tokenizer = ConversationalRVQ(config).eval(), started(config, clips)
    unseen = harmonics(4, 30 * 640, seed=9)
    assert explained(fresh, unseen, 8) < 0.1
    shares = [explained(tokenizer, unseen, count) for count in (1, 4, 8)]
    assert shares == sorted(shares) and shares[-1] > 0.8


@pytest.mark.parametrize("envelope", [1.0, 4.0])
def test_no_linear_map_of_the_same_width_loses_less(recovering, clips, envelope):
    """Against the singular values of the same frames: the part beyond the width is all that is lost."""
    config = dataclasses.replace(
        recovering.config, encoder_widths=(24, 32, 40), decoder_widths=(40, 32, 24), codebook_dim=40
    )
    tokenizer = started(config, clips, envelope)
    spectrum, hops = tokenizer.encoder.spectrum, config.hops_per_frame
    audio = torch.cat([audio for audio, _ in clips])
    with torch.no_grad():
        features = spectrum(audio[:, 0])
        rows = spectrum.compressed(features).unflatten(1, (-1, hops)).flatten(2).flatten(0, 1).double()
        latent = tokenizer.encoder.shortcut(rows.float())
        head = tokenizer.decoder.magnitude_head.frame
        back = head(torch.nn.functional.pad(latent, (0, head.in_features - latent.shape[1]))).double()
    window = spectrum.window_length
    weight = torch.block_diag(*[spectral_weights(config.sample_rate, window, envelope).double()] * hops)
    lost = ((back - rows) @ weight.T).square().sum()
    singular = torch.linalg.svdvals((rows - rows.mean(0)) @ weight.T)
    assert float(lost) <= 1.001 * float(singular[40:].square().sum()) + 1e-5 * float(singular.square().sum())


def test_frames_that_do_not_count_change_nothing(recovering, clips):
    noise = torch.randn(8, 1, 30 * 640, generator=torch.Generator().manual_seed(5))
    padded = [(torch.cat([a, noise], 2), torch.cat([ok, torch.zeros_like(ok)], 1)) for a, ok in clips]
    one, two = started(recovering.config, clips), started(recovering.config, padded)
    # A longer batch has other last bits on some processors, by which k-means may choose another cell.
    of_cells = ("codebooks", "vector_sum", "usage")
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        if not name.endswith(of_cells):
            torch.testing.assert_close(a, b, msg=name, rtol=1e-4, atol=1e-4)
    unseen = harmonics(4, 30 * 640, seed=9)
    assert explained(one, unseen, 8) == pytest.approx(explained(two, unseen, 8), abs=0.01)


def test_two_starts_are_equal_bit_for_bit(recovering, clips):
    one, two = started(recovering.config, clips), started(recovering.config, copy.deepcopy(clips))
    pairs = zip(one.state_dict().items(), two.state_dict().values(), strict=True)
    assert not [name for (name, a), b in pairs if not torch.equal(a, b)]


def test_no_frames_are_refused(recovering, clips):
    none = [(audio, torch.zeros_like(counted)) for audio, counted in clips]
    with pytest.raises(ValueError, match="no frames to start a tokenizer from"):
        started(recovering.config, none)
