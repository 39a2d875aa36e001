"""A tokenizer whose semantic codes come from an encoder of their own keeps every promise of the tokenizer."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ, centred_norm
from csm.tokenizer.io.export import export_encoder
from csm.tokenizer.io.export_programs import DecoderProgram
from csm.tokenizer.spectrum import COMPRESSION
from csm_kernels import rvq_search

FRAME = 1280
CONFIG = TokenizerConfig(
    sample_rate=16_000,
    n_codebooks=6,
    codebook_size=32,
    semantic_codebooks=3,
    codebook_dim=16,
    hops_per_frame=4,
    strides=(2, 2),
    encoder_widths=(24, 32, 40),
    encoder_depths=(1, 1, 1),
    decoder_widths=(40, 32, 24),
    decoder_depths=(1, 1, 1),
    recover_phase=True,
    semantic_layers=2,
    semantic_width=32,
    semantic_heads=2,
    semantic_past_frames=3,
    prediction_frames=3,
    prediction_hidden=12,
)


def speech(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Noise of slowly changing loudness and colour [B, 1, S]: every frame differs from the others."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 1, frames * FRAME, generator=generator)
    loudness = torch.randn(batch, 1, frames * FRAME // 400 + 2, generator=generator).exp()
    return 0.05 * noise * torch.nn.functional.interpolate(loudness, frames * FRAME, mode="linear")


def made(block_frames: int = 1, acoustic_dim: int = 0) -> ConversationalRVQ:
    torch.manual_seed(0)
    sizes = {"semantic_block_frames": block_frames, "acoustic_dim": acoustic_dim}
    tokenizer = ConversationalRVQ(dataclasses.replace(CONFIG, **sizes)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        audio = speech(4, 16)[:, 0]
        rows, quantizer = tokenizer.semantic_rows(audio), tokenizer.quantizer
        quantizer.semantic.fit(rows.flatten(0, 1), generator)
        torch.nn.init.normal_(quantizer.semantic_out.contract.weight, std=0.3)
        predicted = quantizer.predicted_projection(rows).flatten(0, 1)
        quantizer.fit(tokenizer.encoder(audio)[0].flatten(0, 1), generator, predicted=predicted)
    return tokenizer


@pytest.mark.parametrize("block_frames", [1, 2])
@torch.no_grad()
def test_a_stream_in_blocks_equals_the_whole(block_frames: int) -> None:
    tokenizer, audio = made(block_frames), speech(2, 12, seed=1)
    codes, _ = tokenizer.encode(audio)
    assert codes.shape == (2, 6, 12) and codes.unique().numel() > 16
    with tokenizer.streaming(2):
        parts = [tokenizer.encode(part)[0] for part in audio.split(2 * FRAME, dim=-1)]
    assert torch.equal(torch.cat(parts, dim=-1), codes)


@torch.no_grad()
def test_both_sides_of_one_stream_predict_from_pasts_of_their_own() -> None:
    tokenizer, audio = made(block_frames=2), speech(1, 12, seed=8)
    codes, other = tokenizer.encode(audio)[0], tokenizer.encode(speech(1, 12, seed=9))[0]
    whole = tokenizer.decode(other)
    with tokenizer.streaming(1):
        found, sound = [], []
        for encoded, decoded in zip(audio.split(2 * FRAME, dim=-1), other.split(2, dim=-1), strict=True):
            found.append(tokenizer.encode(encoded)[0])
            sound.append(tokenizer.decode(decoded))
        sound.append(tokenizer.flush())
    assert torch.equal(torch.cat(found, dim=-1), codes)
    assert torch.equal(torch.cat(sound, dim=-1), whole)


@torch.no_grad()
def test_an_item_has_the_codes_that_it_has_alone_and_any_prefix_is_found_alone() -> None:
    tokenizer, audio = made(), speech(3, 9, seed=2)
    codes, _ = tokenizer.encode(audio)
    assert torch.equal(tokenizer.encode(audio[1:2])[0][0], codes[1])
    for count in range(1, 7):
        prefix, info = tokenizer.encode(audio, num_codebooks=count)
        assert torch.equal(prefix, codes[:, :count])
        torch.testing.assert_close(tokenizer.quantizer.decode(prefix), info.latent, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_semantic_codes_depend_on_the_semantic_encoder_alone_and_acoustic_ones_on_both() -> None:
    tokenizer, audio = made(), speech(1, 9, seed=3)
    codes, _ = tokenizer.encode(audio)
    tokenizer.encoder.shortcut.weight.mul_(1.5)
    other = tokenizer.encode(audio)[0]
    assert torch.equal(other[:, :3], codes[:, :3]) and not torch.equal(other[:, 3:], codes[:, 3:])
    tokenizer.semantic_encoder.fold.weight.mul_(-1)
    assert not torch.equal(tokenizer.encode(audio)[0][:, :3], codes[:, :3])


@torch.no_grad()
def test_a_change_reaches_no_code_of_an_earlier_frame() -> None:
    tokenizer, audio = made(), speech(1, 10, seed=4)
    changed = audio.clone()
    changed[..., 6 * FRAME + 100] += 0.9
    codes, moved = tokenizer.encode(audio)[0], tokenizer.encode(changed)[0]
    assert torch.equal(codes[..., :6], moved[..., :6]) and not torch.equal(codes[..., 6:], moved[..., 6:])


@torch.no_grad()
def test_a_saved_tokenizer_has_the_same_codes_and_its_packaged_form_almost(tmp_path) -> None:
    tokenizer, audio = made(), speech(2, 9, seed=5)
    tokenizer.save_pretrained(tmp_path / "full")
    tokenizer.save_pretrained(tmp_path / "half", half=True)
    codes = tokenizer.encode(audio)[0]
    assert torch.equal(ConversationalRVQ.from_pretrained(tmp_path / "full").encode(audio)[0], codes)
    half = ConversationalRVQ.from_pretrained(tmp_path / "half").encode(audio)[0]
    assert (half[:, 0] == codes[:, 0]).float().mean() > 0.8


@torch.no_grad()
def test_an_exported_encoder_gives_the_same_codes_at_any_length(tmp_path) -> None:
    tokenizer = made(block_frames=2)
    export_encoder(tokenizer, tmp_path, 6, onnx=True)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "encoder.onnx")
    for batch, samples in ((1, 1), (1, FRAME), (2, 3 * FRAME - 7), (1, 21 * FRAME + 5)):
        audio = speech(batch, 22, seed=6)[..., :samples]
        codes, _ = tokenizer.encode(audio)
        assert torch.equal(program(audio), codes)
        assert torch.equal(torch.from_numpy(session.run(None, {"audio": audio.numpy()})[0]), codes)


@torch.no_grad()
def test_the_decoder_to_export_computes_the_magnitudes_of_both_halves() -> None:
    tokenizer = made()
    codes, own = tokenizer.encode(speech(2, 9, seed=6))[0], tokenizer.decoder
    compressed = own.compressed(own.frames(tokenizer.quantizer.decode(codes)))
    expected = own.magnitude_head.linear_magnitudes(compressed) ** COMPRESSION
    found = DecoderProgram(tokenizer, 6, fourier_matrix=True)(codes) ** COMPRESSION
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrong", [{"sample_rate": 8000}, {"semantic_layers": -1}])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="semantic_layers"):
        dataclasses.replace(CONFIG, **wrong)


@torch.no_grad()
def test_a_residual_search_over_the_code_vectors_finds_the_codes_of_both_halves() -> None:
    tokenizer, audio = made(acoustic_dim=24), speech(2, 9, seed=3)
    codes, info = tokenizer.encode(audio)
    q, vectors = tokenizer.quantizer, tokenizer.code_vectors()
    assert vectors.shape == (6, 32, 16 + 24)
    semantic = tokenizer.semantic_rows(audio[:, 0])
    latent = tokenizer.encoder(audio[:, 0])[0]
    acoustic = q.acoustic_in(latent) - q.semantic_out(info.semantic)
    norms = [centred_norm(part.codebooks[0]) for part in (q.semantic, q.acoustic)]
    rows = torch.cat([semantic / norms[0], acoustic / norms[1]], dim=-1).flatten(0, 1)
    found = rvq_search(rows, vectors).codes
    assert torch.equal(found.unflatten(0, (2, 9)).transpose(1, 2), codes)
    first = [centred_norm(vectors[index]) for index in (0, 3)]
    torch.testing.assert_close(first, [torch.tensor(1.0)] * 2)
