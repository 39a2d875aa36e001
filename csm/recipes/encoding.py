"""Encodes a corpus with a tokenizer: every turn as codes, in one or several time shifts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csm.audio.prosody import frame_prosody
from csm.data.code_shards import EncodedTurn
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import encoder_batches, read_turn
from csm.system.files import file_sha256
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.opening import VoiceTokenizer


def sha256_of_weights(folder: Path) -> str:
    """Returns the SHA-256 of model.safetensors, or that of the SHA-256s of its shards."""
    whole = folder / "model.safetensors"
    if whole.is_file():
        return file_sha256(whole)
    digests = [file_sha256(path) for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@torch.no_grad()
def encoded_turns(
    corpus: Corpus, turns: Sequence[Turn], tokenizer: VoiceTokenizer, time_shifts: int = 1
) -> Iterator[EncodedTurn]:
    """Yields codes, prosody and speaker embedding (of width 0 with Mimi) of turns, the longest first.

    Each comes in `time_shifts` encodings, with silence of another part of a frame before it, as many frames
    as the turn has without the silence.
    """
    for group in encoder_batches(turns):  # the codes do not depend on them
        waveforms = [read_turn(corpus, turn, tokenizer.config.sample_rate) for turn in group]
        early = [tokenizer.config.samples_per_frame * n // time_shifts for n in range(1, time_shifts)]
        shifted = [_shifted_codes(waveforms, tokenizer, samples) for samples in early]
        for row, turn in enumerate(_encoded_group(group, waveforms, tokenizer)):
            yield turn._replace(shifted=tuple(codes[row] for codes in shifted))


def _encoded_group(
    turns: Sequence[Turn], waveforms: Sequence[Tensor], tokenizer: VoiceTokenizer
) -> list[EncodedTurn]:
    config = tokenizer.config
    codes, info = _encode(waveforms, tokenizer)
    encoded = []
    for row, (turn, waveform) in enumerate(zip(turns, waveforms, strict=True)):
        with one_thread():
            prosody = frame_prosody(waveform, config.sample_rate, frame_rate=config.frame_rate)
        frames = _frames(waveform, tokenizer)
        speaker = info.speaker[row].cpu()
        encoded.append(EncodedTurn(turn.id, codes[row, :, :frames].cpu(), prosody[:frames], speaker))
    return encoded


def _shifted_codes(waveforms: Sequence[Tensor], tokenizer: VoiceTokenizer, early: int) -> list[Tensor]:
    """Returns the codes of each clip after `early` samples of silence."""
    codes, _ = _encode(waveforms, tokenizer, early)
    return [row[:, : _frames(clip, tokenizer)].cpu() for row, clip in zip(codes, waveforms, strict=True)]


def _encode(waveforms: Sequence[Tensor], tokenizer: VoiceTokenizer, before: int = 0) -> tuple[Tensor, Any]:
    lengths = torch.tensor([waveform.shape[1] for waveform in waveforms]) + before
    return tokenizer.encode(_padded(waveforms, before).to(tokenizer.device), lengths)


def _frames(waveform: Tensor, tokenizer: VoiceTokenizer) -> int:
    return -(-waveform.shape[1] // tokenizer.config.samples_per_frame)


def _padded(waveforms: Sequence[Tensor], before: int = 0) -> Float[Tensor, "B 1 S"]:
    longest = max(waveform.shape[1] for waveform in waveforms)
    return torch.stack([F.pad(w, (before, longest - w.shape[1])) for w in waveforms])


def codebook_report(tokenizer: ConversationalRVQ, codes: Iterable[Tensor]) -> dict[str, object]:
    """Returns usage, perplexity 2^H and dead codes of every codebook over codes [K, T] of a corpus."""
    size, codebooks = tokenizer.config.codebook_size, tokenizer.config.n_codebooks
    counts, frames = torch.zeros(codebooks, size, dtype=torch.int64), 0
    for part in codes:
        frames += part.shape[1]
        counts += torch.stack([torch.bincount(row.cpu().long(), minlength=size) for row in part])
    usage, perplexity, dead = [], [], []
    for count in counts.double():
        share = count[count > 0] / count.sum()
        usage.append(round(float((count > 0).double().mean()), 4))
        perplexity.append(round(float(torch.exp(-(share * share.log()).sum())), 2))
        dead.append(int((count == 0).sum()))
    return {
        "codebook_size": size,
        "frames": frames,
        "usage": usage,
        "perplexity": perplexity,
        "dead": dead,
    }
