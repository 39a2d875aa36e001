"""The encoder is the recogniser's, sees no later block, and gives the same features from a stream."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from csm.tokenizer.layers import streaming
from csm.tokenizer.semantic.ctranslate2_weights import read_weights
from csm.tokenizer.semantic.speech_encoder import (
    STEPS_PER_FRAME,
    SpeechEncoder,
    SpeechEncoderConfig,
    whisper_state,
)


def small(**sizes: int) -> SpeechEncoder:
    torch.manual_seed(0)
    sizes = {"width": 32, "n_heads": 2, "n_layers": 2, "positions": 40, "past_frames": 3} | sizes
    return SpeechEncoder(SpeechEncoderConfig(**sizes)).eval()


@torch.no_grad()
def test_weights_of_the_recogniser_give_its_features():
    faster_whisper = pytest.importorskip("faster_whisper", reason="faster-whisper is not installed ([eval])")
    from csm.data.recogniser_models import tiny_model

    folder = tiny_model("a test")
    encoder = SpeechEncoder(SpeechEncoderConfig(block_frames=375, past_frames=1)).eval()
    encoder.load_state_dict(whisper_state(read_weights(folder / "model.bin", prefix="encoder/")))
    model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=1)
    torch.manual_seed(0)
    # Whisper always reads 30 s; noise that fades in and out has features at every level.
    features = F.avg_pool1d(torch.randn(1, 80, 3000), 9, 1, 4) + torch.linspace(-0.5, 1, 3000)
    expected = torch.from_numpy(np.array(model.encode(features[0].numpy())))[0]
    # Step t of the causal convolutions is centred on feature 2t - 1, Whisper's on 2t.
    found = encoder(F.pad(features.transpose(1, 2), (0, 0, -1, 1)))[0]
    error = (found - expected)[1:-1].square().sum() / expected[1:-1].square().sum()
    assert error < 0.005


@torch.no_grad()
@pytest.mark.parametrize("block_frames", [1, 2])
def test_a_frame_sees_no_feature_after_its_block(block_frames):
    encoder = small(block_frames=block_frames)
    features = torch.randn(1, 8 * 6, 80)
    changed = features.clone()
    changed[:, 8 * 4 :] = torch.randn(1, 16, 80)
    kept = 4 * STEPS_PER_FRAME
    before, after = encoder(features), encoder(changed)
    torch.testing.assert_close(before[:, :kept], after[:, :kept], rtol=0, atol=1e-6)
    assert (before[:, kept:] - after[:, kept:]).abs().max() > 1e-3


@torch.no_grad()
def test_a_frame_sees_the_whole_of_its_block():
    encoder = small(block_frames=2)
    features = torch.randn(1, 32, 80)
    changed = features.clone()
    changed[:, 30] += 1
    assert (encoder(features)[:, 8] - encoder(changed)[:, 8]).abs().max() > 1e-6


@torch.no_grad()
@pytest.mark.parametrize("block_frames", [1, 2])
def test_a_stream_gives_the_features_of_the_whole(block_frames):
    encoder = small(block_frames=block_frames)
    # More steps than the table has positions and than the past holds.
    features = torch.randn(2, 8 * 12, 80)
    with streaming(encoder, batch_size=2):
        parts = [encoder(part) for part in features.split(8 * block_frames, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), encoder(features), rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_lies_before_the_past_is_forgotten():
    encoder = small(n_layers=1)
    features = torch.randn(1, 8 * 8, 80)
    changed = features.clone()
    changed[:, :8] = 0
    last = 7 * STEPS_PER_FRAME
    torch.testing.assert_close(encoder(features)[:, last:], encoder(changed)[:, last:], rtol=0, atol=1e-6)


@torch.no_grad()
def test_an_item_does_not_depend_on_its_batch():
    encoder = small()
    features = torch.randn(3, 8 * 4, 80)
    torch.testing.assert_close(encoder(features)[1:2], encoder(features[1:2]), rtol=0, atol=1e-6)


def test_half_a_block_is_refused_in_a_stream():
    encoder = small(block_frames=2)
    with streaming(encoder, batch_size=1), pytest.raises(ValueError, match="multiple of 16"):
        encoder(torch.zeros(1, 8, 80))
    with pytest.raises(ValueError, match="multiple of 2"):
        encoder(torch.zeros(1, 3, 80))


@pytest.mark.parametrize("wrong", [{"n_heads": 5}, {"block_frames": 0}, {"past_frames": 0}])
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpeechEncoderConfig(**wrong)


def test_a_file_without_the_encoder_is_refused():
    with pytest.raises(ValueError, match="layer_norm/gamma"):
        whisper_state({"conv1/weight": torch.zeros(1)})
