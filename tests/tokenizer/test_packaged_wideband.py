"""The packaged tokenizer at 24 kHz: its codes carry sound, its semantic codes words, and both are starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csm.data.corpora.amazon_queen import HELD_OUT_SPEAKERS
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.metrics.text_reader import letters_of
from csm.evaluation.metrics.words import character_error_counts
from csm.evaluation.subjects.codes import read_any_tokenizer
from csm.generation.voice_folder import PACKAGED
from csm.recipes.run_files import WIDEBAND_TOKENIZER
from csm.recipes.steps.train_tokenizer import start_tokenizer
from csm.recipes.wideband import wideband_tokenizer
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer

FOLDER = PACKAGED / WIDEBAND_TOKENIZER


@pytest.fixture(scope="module")
def tokenizer() -> ConversationalRVQ:
    return ConversationalRVQ.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def clips(excerpt: Corpus, tokenizer: ConversationalRVQ) -> list[tuple[Turn, torch.Tensor]]:
    """Turns of speakers that no weight was trained on, and their samples."""
    unseen = (turn for turn in excerpt.turns() if turn.speaker in HELD_OUT_SPEAKERS)
    turns = [turn for turn in unseen if 1.5 < turn.duration < 5 and len(turn.text.split()) > 3]
    return [(turn, read_turn(excerpt, turn, tokenizer.config.sample_rate)[None]) for turn in turns[:12]]


@torch.no_grad()
def test_more_codebooks_leave_less_of_the_vocoders_features(tokenizer, clips) -> None:
    decoder, left = tokenizer.decoder, {}
    for count in (10, 16, 32):
        rest = total = 0.0
        for _, audio in clips:
            audio = tokenizer.pad_to_frames(audio)
            codes, _ = tokenizer.encode(audio, num_codebooks=count)
            frames = decoder.frames(tokenizer.quantizer.decode(codes))
            found = decoder.feature_head(frames, decoder.features(frames))
            wanted = tokenizer.encoder(audio[:, 0])[0].view_as(found)
            rest += float((found - wanted).square().sum())
            total += float((wanted - wanted.mean((0, 1))).square().sum())
        left[count] = rest / total
    assert left[32] < left[16] < left[10] < 0.7 and left[32] < 0.05, left


@torch.no_grad()
def test_decoded_speech_follows_the_recordings_spectrum(tokenizer, clips) -> None:
    """By log spectra of 20 ms below 5 kHz, which a telephone's band has; other clips are the control."""

    def log_spectra(audio: torch.Tensor) -> torch.Tensor:
        power = torch.stft(audio, 480, 240, window=torch.hann_window(480), return_complex=True).abs()
        return (power[:100].reshape(20, 5, -1).mean(1) + 1e-3).log()

    pairs = []
    for _, audio in clips[:6]:
        audio = tokenizer.pad_to_frames(audio)
        pairs.append((audio[0, 0], tokenizer.decode(tokenizer.encode(audio)[0])[0, 0]))

    def similarity(first: torch.Tensor, second: torch.Tensor) -> float:
        steps = min(len(first), len(second)) // 240 * 240
        x, y = (log_spectra(a[:steps]).flatten() for a in (first, second))
        return float(torch.corrcoef(torch.stack([x, y]))[0, 1])

    own = [similarity(first, second) for first, second in pairs]
    other = [similarity(first, second) for (first, _), (_, second) in zip(pairs, pairs[1:], strict=False)]
    assert min(own) > 0.85 and max(other) < 0.75, (own, other)


@torch.no_grad()
def test_words_are_read_from_semantic_codes_alone(tokenizer, clips) -> None:
    """By the letter head, with the texts of other clips as a control."""
    heads, half = SemanticHeads.read(FOLDER), SemanticTokenizer.from_pretrained(FOLDER)
    assert heads is not None
    read = []
    for _, audio in clips:
        codes = half.encode(audio)
        assert torch.equal(codes, tokenizer.encode(audio)[0][:, : codes.shape[1]])
        rows = half.stack.lookup(codes[0].T)
        read.append(letters_of(heads.letter_scores(heads.steps(rows[None]))[0]))
    texts = [turn.text for turn, _ in clips]

    def error_rate(found: list[str]) -> float:
        counts = [character_error_counts(text, other) for text, other in zip(texts, found, strict=True)]
        return sum(errors for errors, _ in counts) / sum(letters for _, letters in counts)

    assert error_rate(read) < 0.45 and error_rate(read[1:] + read[:1]) > 0.7, read


@torch.no_grad()
def test_a_stream_gives_the_codes_of_the_whole(tokenizer, clips) -> None:
    _, audio = clips[0]
    audio = tokenizer.pad_to_frames(audio)
    block = tokenizer.config.semantic_block_frames * tokenizer.config.samples_per_frame
    audio = audio[..., : audio.shape[-1] // block * block]
    whole, _ = tokenizer.encode(audio)
    with tokenizer.streaming(1):
        parts = [tokenizer.encode(part)[0] for part in audio.split(block, dim=-1)]
    joined = torch.cat(parts, dim=-1)
    assert joined.shape == whole.shape and (joined != whole).float().mean() < 0.01


def test_it_fits_40_mb() -> None:
    """Without the heads, which encoding and decoding do not need."""
    assert (FOLDER / "model.safetensors").stat().st_size < 40e6


def test_its_semantic_half_is_the_start_of_another_tokenizer(tokenizer) -> None:
    made = start_tokenizer(replace(wideband_tokenizer(), semantic_start="packaged"))
    own, whole = made.state_dict(), tokenizer.state_dict()
    parts = ("semantic_encoder.", "quantizer.semantic.codebooks")
    names = [name for name in whole if name.startswith(parts)]
    assert len(names) > 20 and all(torch.equal(own[name], whole[name]) for name in names)
    assert not torch.equal(own["quantizer.acoustic.codebooks"], whole["quantizer.acoustic.codebooks"])


def test_an_evaluation_of_codes_reads_the_whole_and_a_semantic_half_as_what_they_are(tmp_path: Path) -> None:
    SemanticTokenizer.from_pretrained(FOLDER).save_pretrained(tmp_path)
    assert isinstance(read_any_tokenizer(FOLDER), ConversationalRVQ)
    assert isinstance(read_any_tokenizer(tmp_path), SemanticTokenizer)
