"""The decoder: one frame of samples per latent, late by its stated delay and no more."""

import torch

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.decoder import Decoder
from csm.tokenizer.layers import streaming


def small():
    torch.manual_seed(0)
    return Decoder(
        TokenizerConfig(
            sample_rate=1500,
            encoder_widths=(8, 12, 16),
            decoder_widths=(20, 16, 12),
            decoder_depths=(1, 2, 1),
            expansion=2,
            decoder_layers=1,
            attention_heads=2,
            attention_frames=3,
            speaker_dim=4,
            emotion_dim=2,
        )
    )


@torch.no_grad()
def test_every_latent_gives_one_frame_of_samples():
    assert small()(torch.randn(2, 5, 16)).shape == (2, 5 * 120)


@torch.no_grad()
def test_a_latent_changes_no_sample_earlier_than_the_delay_before_its_frame():
    decoder, latents = small(), torch.randn(1, 12, 16)
    changed = latents.clone()
    changed[:, 7] += 1
    moved = (decoder(latents) - decoder(changed))[0].abs().gt(0).nonzero().flatten()
    assert 7 * 120 - decoder.head.delay <= int(moved.min()) <= 7 * 120 - decoder.head.delay + 4


@torch.no_grad()
def test_a_stream_and_its_flush_equal_the_whole():
    decoder, latents, condition = small(), torch.randn(2, 9, 16), torch.randn(2, 6)
    with streaming(decoder, 2):
        parts = [decoder(part, condition) for part in latents.split([1, 3, 5], dim=1)]
        whole = torch.cat([*parts, decoder.head.flush()], dim=1)
    torch.testing.assert_close(whole, decoder(latents, condition), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_condition_changes_the_output_and_zeros_are_no_condition():
    decoder, latents = small(), torch.randn(1, 4, 16)
    assert not torch.allclose(decoder(latents), decoder(latents, torch.randn(1, 6)))
    torch.testing.assert_close(decoder(latents), decoder(latents, torch.zeros(1, 6)))


@torch.no_grad()
def test_a_slice_of_frames_is_decoded_from_the_states_of_the_whole_signal():
    """As training does it: all frames at the frame rate, a slice of them to sound."""
    decoder, latents = small(), torch.randn(2, 9, 16)
    frames = decoder.frames(latents)
    whole = decoder.head(decoder.features(frames))
    torch.testing.assert_close(whole, decoder(latents))
    changed = latents.clone()
    changed[:, 2] += 1
    assert not torch.equal(
        decoder.frames(changed)[:, 4], frames[:, 4]
    )  # attention carries it two frames further
