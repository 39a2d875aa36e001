"""A small random tokenizer with a vocoder: 24 kHz, 2 + 3 codebooks of 16; its FARGAN has random weights."""

import torch

from csm.tokenizer.config import VOCODER_WIDTH, TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ

FRAME, RATE = 1920, 24_000
CONFIG = TokenizerConfig(
    vocoder=True,
    sample_rate=RATE,
    n_codebooks=5,
    codebook_size=16,
    semantic_codebooks=2,
    codebook_dim=8,
    acoustic_dim=VOCODER_WIDTH,
    hops_per_frame=8,
    strides=(4, 2),
    encoder_widths=(16, 16, VOCODER_WIDTH),
    encoder_depths=(1, 1, 1),
    decoder_widths=(176, 16, 16),
    decoder_depths=(1, 1, 1),
    encoder_layers=0,
    decoder_layers=1,
    attention_heads=2,
    attention_frames=3,
    attention_expansion=1,
    speaker_dim=8,
    emotion_dim=4,
    semantic_layers=1,
    semantic_width=16,
    semantic_heads=2,
    prediction_frames=2,
)


def small_vocoder_tokenizer() -> ConversationalRVQ:
    """Returns one whose features are in range and whose codes vary."""
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(CONFIG).eval()
    with torch.no_grad():
        latent, _ = tokenizer.encoder(voices(2, 6)[:, 0])
        encoder, head = tokenizer.encoder, tokenizer.decoder.feature_head
        steps = latent.unflatten(-1, (8, -1)).flatten(0, 2)
        encoder.centre.copy_(steps.mean(dim=0))
        encoder.scale.copy_(1 / (steps.std(dim=0) + 0.1))
        head.centre.copy_(encoder.centre)
        head.scale.copy_(encoder.scale)
        tokenizer.quantizer.semantic.codebooks.normal_()
        tokenizer.quantizer.acoustic.codebooks.normal_()
    return tokenizer


def voices(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Returns gliding tones with harmonics, noise and pauses, [B, 1, frames * 1920]."""
    draw = torch.Generator().manual_seed(seed)
    samples = frames * FRAME
    pitch = 90 + 150 * torch.rand(batch, frames + 1, generator=draw)
    loud = torch.randn(batch, frames + 1, generator=draw).exp()
    pitch, loud = (
        torch.nn.functional.interpolate(x.unsqueeze(1), samples, mode="linear") for x in (pitch, loud)
    )
    phase = 2 * torch.pi * pitch.double().cumsum(dim=-1) / RATE
    tone = sum(torch.sin(k * phase + k) / k for k in range(1, 8)).float()
    return 0.05 * loud * tone + 0.005 * torch.randn(batch, 1, samples, generator=draw)
