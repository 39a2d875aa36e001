"""A small random tokenizer of the real design: 8 kHz, 640 samples per frame, 4 + 4 codebooks of 32."""

import dataclasses

import pytest
import torch

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.transformer import WindowAttention


@pytest.fixture(params=[False, True], ids=["predicted phases", "recovered phases"])
def config(request) -> TokenizerConfig:
    return small_config(recover_phase=request.param)


def small_config(*, recover_phase: bool) -> TokenizerConfig:
    return TokenizerConfig(
        recover_phase=recover_phase,
        contrast=1.2,
        contrast_bins=9,
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
    set_codebooks(tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def windowed() -> ConversationalRVQ:
    """With predicted phases, attention windows of 8 frames and distances that count."""
    return with_windows(small_config(recover_phase=False))


@pytest.fixture(scope="module")
def recovering() -> ConversationalRVQ:
    """The same with recovered phases."""
    return with_windows(small_config(recover_phase=True))


def with_windows(config: TokenizerConfig) -> ConversationalRVQ:
    torch.manual_seed(1)
    tokenizer = ConversationalRVQ(dataclasses.replace(config, attention_frames=8)).eval()
    for block in tokenizer.modules():
        if isinstance(block, WindowAttention):
            block.distance_bias.data.normal_()
    set_codebooks(tokenizer)
    return tokenizer


@torch.no_grad()
def set_codebooks(tokenizer: ConversationalRVQ) -> None:
    """Codebooks from real latents: all codes of random ones would be a handful of values."""
    latent, _ = tokenizer.encoder(speech_like(4, 16000)[:, 0])
    quantizer, generator = tokenizer.quantizer, torch.Generator().manual_seed(0)
    quantizer.semantic.fit(quantizer.semantic_in(latent).flatten(0, 1), generator)
    quantizer.acoustic.fit(quantizer.acoustic_in(latent).flatten(0, 1), generator)


@pytest.fixture
def speech():
    return speech_like


def speech_like(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Noise of slowly changing loudness [B, 1, S]: every frame differs from the others."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 1, samples, generator=generator)
    loudness = torch.randn(batch, 1, samples // 200 + 2, generator=generator).exp()
    return 0.05 * noise * torch.nn.functional.interpolate(loudness, samples, mode="linear")
