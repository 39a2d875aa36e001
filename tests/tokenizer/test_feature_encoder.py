"""The encoder with a vocoder is the weighted features of each frame, and nothing in it is trained."""

import torch

from csm.tokenizer.feature_encoder import FeatureEncoder
from csm.tokenizer.layers import streaming
from csm.tokenizer.spectrum import SpectralFrames
from csm.tokenizer.vocoder_features import VocoderFeatures
from tests.small_vocoder_tokenizer import CONFIG, FRAME, voices


def weighted() -> FeatureEncoder:
    encoder, draw = FeatureEncoder(CONFIG), torch.Generator().manual_seed(0)
    encoder.centre.copy_(torch.randn(22, generator=draw))
    encoder.scale.copy_(0.5 + torch.rand(22, generator=draw))
    return encoder


def test_a_latent_is_its_frames_features_weighted():
    encoder, signals = weighted(), voices(2, 3)[:, 0]
    latent, spectrum = encoder(signals)
    assert latent.shape == (2, 3, 176)
    features = VocoderFeatures()(signals)
    for frame in range(3):
        for step in range(8):
            expected = (features[:, 8 * frame + step] - encoder.centre) * encoder.scale
            assert torch.equal(latent[:, frame, 22 * step : 22 * (step + 1)], expected)
    assert torch.equal(spectrum, SpectralFrames(CONFIG.hop, CONFIG.window_hops)(signals))
    assert not list(encoder.parameters()) and not latent.requires_grad


def test_a_stream_equals_the_whole_bit_by_bit():
    encoder, signals = weighted(), voices(2, 3)[:, 0]
    whole = encoder(signals)[0]
    with streaming(encoder, 2):
        parts = [encoder(part)[0] for part in signals.split(FRAME, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_only_the_weighting_is_saved():
    assert set(weighted().state_dict()) == {"centre", "scale"}
