"""The decoder is the recogniser's: it reads the words out of the recogniser's features."""

import numpy as np
import pytest
import torch

from csm.tokenizer.semantic.ctranslate2_weights import read_weights
from csm.tokenizer.semantic.text_decoder import TextDecoder, whisper_decoder


def small() -> TextDecoder:
    torch.manual_seed(0)
    return TextDecoder(20, 16, 2, 2, 12).eval()


@torch.no_grad()
def test_weights_of_the_recogniser_give_its_likelihoods():
    faster_whisper = pytest.importorskip("faster_whisper", reason="faster-whisper is not installed ([eval])")
    import ctranslate2

    from csm.data.recogniser_models import tiny_model

    folder = tiny_model("a test")
    decoder = whisper_decoder(read_weights(folder / "model.bin", prefix="decoder/")).eval()
    model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=1)
    torch.manual_seed(0)
    speech = model.encode(torch.randn(80, 3000).numpy())
    prompt, text = [50257, 50362], [770, 318, 257, 1332, 13]
    library = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")
    (found,) = library.align(speech, prompt[:1], [text], 1500)
    expected = np.array(found.text_token_probs)
    ids = torch.tensor([prompt + text])
    features = torch.from_numpy(np.array(speech))
    logits = decoder(ids, features, torch.ones(1, 1500, dtype=torch.bool))[0, 1:-1]
    logits = logits[:, :50256]  # the library compares ids of text alone, without control ids
    probabilities = logits.softmax(-1)[torch.arange(5), ids[0, 2:]]
    assert probabilities.numpy() == pytest.approx(expected, rel=0.02, abs=1e-6)


@torch.no_grad()
def test_an_id_does_not_depend_on_later_ones():
    decoder, speech = small(), torch.randn(1, 5, 16)
    mask = torch.ones(1, 5, dtype=torch.bool)
    first = decoder(torch.tensor([[1, 2, 3, 4]]), speech, mask)
    second = decoder(torch.tensor([[1, 2, 9, 9]]), speech, mask)
    torch.testing.assert_close(first[:, :2], second[:, :2])
    assert not torch.allclose(first[:, 2:], second[:, 2:])


@torch.no_grad()
def test_padding_of_the_speech_is_not_read():
    decoder, speech = small(), torch.randn(1, 5, 16)
    mask = torch.tensor([[True, True, True, False, False]])
    ids = torch.tensor([[1, 2, 3]])
    changed = speech.clone()
    changed[:, 3:] = 7
    torch.testing.assert_close(decoder(ids, speech, mask), decoder(ids, changed, mask))


def test_a_file_without_the_decoder_is_refused():
    with pytest.raises(ValueError, match="embeddings/weight"):
        whisper_decoder({"layer_norm/gamma": torch.zeros(1)})
