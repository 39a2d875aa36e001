"""The encoder: one latent per frame, of the past alone."""

import torch

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.encoder import Encoder
from csm.tokenizer.layers import streaming


def small():
    torch.manual_seed(0)
    return Encoder(
        TokenizerConfig(
            sample_rate=1500,
            encoder_widths=(12, 16, 20),
            encoder_depths=(1, 2, 1),
            decoder_widths=(20, 16, 12),
            expansion=2,
            encoder_layers=1,
            attention_heads=2,
            attention_frames=3,
        )
    )


@torch.no_grad()
def test_a_frame_is_the_product_of_hop_and_strides():
    latents, features = small()(torch.randn(2, 5 * 120))
    assert latents.shape == (2, 5, 20) and features.shape == (2, 30, 3 * 41)


@torch.no_grad()
def test_a_latent_depends_on_no_sample_after_its_frame():
    encoder, waveform = small(), torch.randn(1, 10 * 120)
    changed = waveform.clone()
    changed[:, 6 * 120 + 1 :] = 0
    one, two = encoder(waveform)[0], encoder(changed)[0]
    assert torch.equal(one[:, :6], two[:, :6]) and not torch.allclose(one[:, 6], two[:, 6])


@torch.no_grad()
def test_a_stream_equals_the_whole():
    encoder, waveform = small(), torch.randn(2, 10 * 120)
    with streaming(encoder, 2):
        parts = torch.cat([encoder(part)[0] for part in waveform.split([120, 480, 600], dim=1)], dim=1)
    torch.testing.assert_close(parts, encoder(waveform)[0], atol=1e-5, rtol=0)
