"""A tokenizer with a vocoder that is fitted to recordings already carries their features."""

import copy

import pytest
import torch

from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.feature_start import feature_weights, start_from_features
from csm.tokenizer.vocoder_features import CEPSTRUM, PERIODICITY, PITCH
from tests.small_vocoder_tokenizer import CONFIG, FRAME, voices

FRAMES = 6


def started(clips) -> ConversationalRVQ:
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(CONFIG).eval()
    tokenizer.quantizer.semantic.codebooks.normal_()
    start_from_features(tokenizer, clips, torch.Generator().manual_seed(0))
    return tokenizer


@pytest.fixture(scope="module")
def clips():
    return [(voices(4, FRAMES, seed), torch.ones(4, FRAMES, dtype=torch.bool)) for seed in range(3)]


@pytest.fixture(scope="module")
def tokenizer(clips) -> ConversationalRVQ:
    with torch.no_grad():
        return started(clips)


@torch.no_grad()
def weighted_features(tokenizer: ConversationalRVQ, latent: torch.Tensor) -> torch.Tensor:
    """Returns what the decoder predicts of latents, [B, T * 8, 22]."""
    frames = tokenizer.decoder.frames(latent)
    return tokenizer.decoder.feature_head(frames, tokenizer.decoder.features(frames))


@torch.no_grad()
def test_the_decoder_begins_near_the_inverse_of_the_encoder(tokenizer):
    """Its blocks start small: what the linear path alone gives is off by a fraction of the variance."""
    audio = voices(2, FRAMES, 9)
    latent, _ = tokenizer.encoder(audio[:, 0])
    target = latent.unflatten(-1, (8, -1)).flatten(1, 2)
    error = (weighted_features(tokenizer, latent) - target).square().mean()
    assert float(error / target.var()) < 0.2
    head = tokenizer.decoder.feature_head
    straight = head.unweighted(head(tokenizer.decoder.embed(latent), torch.zeros(2, 8 * FRAMES, 16)))
    torch.testing.assert_close(
        straight, tokenizer.encoder.vocoder_features(audio[:, 0]), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_every_acoustic_codebook_brings_the_features_nearer(tokenizer, clips):
    audio = torch.cat([audio for audio, _ in clips])
    goal, _ = tokenizer.encoder(audio[:, 0])
    errors = []
    for count in range(CONFIG.semantic_codebooks, CONFIG.n_codebooks + 1):
        codes, _ = tokenizer.encode(audio, num_codebooks=count)
        errors.append(float((tokenizer.quantizer.decode(codes) - goal).square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.6 * errors[0]
    # Latents of mean variance 1: the codes of unseen voices explain most of it too.
    unseen = voices(4, FRAMES, 9)
    codes, info = tokenizer.encode(unseen)
    latent, _ = tokenizer.encoder(unseen[:, 0])
    assert float((info.latent - latent).square().mean()) < 0.8 * float(latent.square().mean())
    assert codes[:, CONFIG.semantic_codebooks :].unique().numel() > 8


@torch.no_grad()
def test_weighted_features_have_mean_0_and_variance_1_and_weights_in_half_precision(tokenizer, clips):
    encoder = tokenizer.encoder
    latent = torch.cat([encoder(audio[:, 0])[0] for audio, _ in clips]).flatten(0, 1).unflatten(-1, (8, -1))
    rows = latent.flatten(0, 1)
    torch.testing.assert_close(rows.mean(dim=0), torch.zeros(22), atol=0.01, rtol=0)
    assert float(rows.var(dim=0).mean()) == pytest.approx(1, rel=0.01)
    for number in (encoder.centre, encoder.scale):
        assert torch.equal(number, number.half().float())
    ratio = encoder.scale / feature_weights()
    torch.testing.assert_close(ratio, ratio.mean().expand(22), rtol=2e-3, atol=0)
    head = tokenizer.decoder.feature_head
    assert torch.equal(head.centre, encoder.centre) and torch.equal(head.scale, encoder.scale)


def test_an_error_of_the_pitch_counts_most_and_one_of_a_high_band_least():
    weights = feature_weights()
    assert weights.shape == (22,) and bool((weights > 0).all())
    assert int(weights.argmax()) == PITCH
    assert set(weights.topk(2, largest=False).indices.tolist()) == {CEPSTRUM + 2, CEPSTRUM + 3}
    assert weights[PERIODICITY] > weights[1:CEPSTRUM].max()


@torch.no_grad()
def test_frames_that_do_not_count_change_nothing(tokenizer, clips):
    noise = torch.randn(4, 1, 2 * FRAME, generator=torch.Generator().manual_seed(5))
    padded = [
        (torch.cat([audio, noise], 2), torch.cat([ok, torch.zeros(4, 2, dtype=torch.bool)], 1))
        for audio, ok in clips
    ]
    nothing = (noise, torch.zeros(4, 2, dtype=torch.bool))
    other = started([nothing, *padded])
    for name in ("encoder.centre", "encoder.scale"):
        assert torch.equal(other.state_dict()[name], tokenizer.state_dict()[name])
    torch.testing.assert_close(
        other.quantizer.semantic_out.weight, tokenizer.quantizer.semantic_out.weight, rtol=1e-3, atol=1e-3
    )


@torch.no_grad()
def test_two_starts_are_equal_bit_for_bit_and_keep_the_semantic_half_and_the_vocoder(tokenizer, clips):
    other = started(copy.deepcopy(clips))
    pairs = zip(tokenizer.state_dict().items(), other.state_dict().values(), strict=True)
    assert not [name for (name, a), b in pairs if not torch.equal(a, b)]
    torch.manual_seed(0)
    fresh = ConversationalRVQ(CONFIG)
    fresh.quantizer.semantic.codebooks.normal_()
    kept = (
        "semantic_encoder.",
        "quantizer.semantic.",
        "decoder.head.",
        "decoder.blocks.",
        "speaker_encoder.",
    )
    state = tokenizer.state_dict()
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, state[name])}
    assert changed and not [name for name in changed if name.startswith(kept)]


def test_no_frames_are_refused(clips):
    none = [(audio, torch.zeros_like(counted)) for audio, counted in clips]
    with pytest.raises(ValueError, match="no frames to start a tokenizer from"):
        started(none)
