"""The encoder: one latent per frame, of the past alone."""

import torch

from csm.tokenizer.encoder import Encoder
from csm.tokenizer.layers import streaming
from csm.tokenizer.transformer import TransformerLayer


def small():
    torch.manual_seed(0)
    transformer = [TransformerLayer(20, n_heads=2, window=3)]
    return Encoder(20, 4, (12, 16, 20), (1, 2, 1), (3, 2), expansion=2, transformer=transformer)


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
