"""A small random tokenizer of the real design: 8 kHz, 640 samples per frame, 4 + 4 codebooks of 32."""

import pytest
import torch

from csm.tokenizer.conversational_rvq import ConversationalRVQ, TokenizerConfig


@pytest.fixture
def config() -> TokenizerConfig:
    return TokenizerConfig(
        sample_rate=8000,
        n_codebooks=8,
        codebook_size=32,
        semantic_codebooks=4,
        codebook_dim=16,
        hops_per_frame=4,
        strides=(2, 2),
        encoder_widths=(24, 32, 40),
        encoder_depths=(1, 1, 1),
        decoder_widths=(40, 32, 24),
        decoder_depths=(1, 1, 1),
        speaker_dim=8,
        emotion_dim=4,
    )


@pytest.fixture
def tokenizer(config) -> ConversationalRVQ:
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(config).eval()
    # Codebooks from real latents: all codes of random ones would be a handful of values.
    with torch.no_grad():
        latent, _ = tokenizer.encoder(speech_like(4, 16000)[:, 0])
        quantizer, generator = tokenizer.quantizer, torch.Generator().manual_seed(0)
        quantizer.semantic.initialise(quantizer.semantic_in(latent).flatten(0, 1), generator)
        quantizer.acoustic.initialise(quantizer.acoustic_in(latent).flatten(0, 1), generator)
    return tokenizer


@pytest.fixture
def speech():
    return speech_like


def speech_like(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Noise of slowly changing loudness [B, 1, S]: every frame differs from the others."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 1, samples, generator=generator)
    loudness = torch.randn(batch, 1, samples // 200 + 2, generator=generator).exp()
    return 0.05 * noise * torch.nn.functional.interpolate(loudness, samples, mode="linear")
