"""The plain operations that are exported, before any export, against the tokenizer they stand for."""

import pytest
import torch

from csm.tokenizer.io.export_programs import BandedAttention, DecoderProgram, EncoderProgram
from csm.tokenizer.spectrum import COMPRESSION
from csm.tokenizer.transformer import WindowAttention

# Batch, samples: one sample, one frame, part of a window, whole windows, and many.
SIZES = [(1, 1), (1, 640), (2, 641), (3, 4480), (1, 16 * 640), (2, 45 * 640 + 7)]


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 24, 61])
@torch.no_grad()
def test_windows_side_by_side_are_the_loop_over_windows(steps):
    torch.manual_seed(0)
    attention = WindowAttention(24, 4, 8)
    attention.distance_bias.normal_()
    x = torch.randn(3, steps, 24)
    torch.testing.assert_close(BandedAttention(attention)(x), attention(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fourier_matrix", [False, True])
@pytest.mark.parametrize("num_codebooks", [3, 8])
@torch.no_grad()
def test_the_plain_operations_compute_what_the_tokenizer_does(
    windowed, speech, fourier_matrix, num_codebooks
):
    encoder = EncoderProgram(windowed, num_codebooks, fourier_matrix=fourier_matrix)
    decoder = DecoderProgram(windowed, num_codebooks, fourier_matrix=fourier_matrix)
    for batch, samples in SIZES:
        audio = speech(batch, samples + 400)[..., :samples]
        codes, _ = windowed.encode(audio, num_codebooks=num_codebooks)
        assert torch.equal(encoder(audio), codes)
        torch.testing.assert_close(decoder(codes), windowed.decode(codes), atol=1e-5, rtol=0)


@torch.no_grad()
def test_where_phases_are_recovered_the_decoder_gives_the_magnitudes_they_are_recovered_from(
    recovering, speech
):
    program, decoder = DecoderProgram(recovering, 8, fourier_matrix=True), recovering.decoder
    for batch, samples in SIZES:
        codes, _ = recovering.encode(speech(batch, samples + 400)[..., :samples])
        frames = decoder.frames(recovering.quantizer.decode(codes))
        expected = decoder.magnitude_head.linear_magnitudes(decoder.compressed(frames))
        torch.testing.assert_close(program(codes) ** COMPRESSION, expected**COMPRESSION, atol=1e-5, rtol=0)
