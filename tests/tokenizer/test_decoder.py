"""The decoder: one frame of samples per latent, late by its stated delay and no more."""

import torch

from csm.tokenizer.decoder import Decoder
from csm.tokenizer.layers import streaming
from csm.tokenizer.transformer import TransformerLayer


def small():
    torch.manual_seed(0)
    transformer = [TransformerLayer(20, n_heads=2, window=3)]
    return Decoder(16, 6, 20, 4, (20, 16, 12), (1, 2, 1), (2, 3), expansion=2, transformer=transformer)


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
def test_the_condition_is_heard_and_zeros_are_no_condition():
    decoder, latents = small(), torch.randn(1, 4, 16)
    assert not torch.allclose(decoder(latents), decoder(latents, torch.randn(1, 6)))
    torch.testing.assert_close(decoder(latents), decoder(latents, torch.zeros(1, 6)))


@torch.no_grad()
def test_a_stretch_of_frames_is_decoded_from_what_the_whole_signal_told_of_them():
    """As training does it: all frames at the frame rate, a slice of them to sound."""
    decoder, latents = small(), torch.randn(2, 9, 16)
    frames = decoder.frames(latents)
    whole = decoder.head(decoder.features(frames))
    torch.testing.assert_close(whole, decoder(latents))
    changed = latents.clone()
    changed[:, 2] += 1
    assert not torch.equal(decoder.frames(changed)[:, 4], frames[:, 4])  # two frames later it is still known
