"""Whole recordings to codes and back, of any length, rate and number of channels, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.audio.files import BLOCK_SAMPLES, AtomicAudioWriter, iter_blocks, sample_rate_of
from csm.audio.resampling import BlockResampler
from csm.tokenizer.conversational_rvq import ConversationalRVQ

BLOCK_FRAMES = 250  # 20 s at 12.5 frames per second: large enough for full speed


def encode_recording(
    tokenizer: ConversationalRVQ,
    source: str | Path | np.ndarray | Tensor,
    *,
    sample_rate: int | None = None,
    channel: int | Literal["mean"] = "mean",
    num_codebooks: int | None = None,
    block_frames: int = BLOCK_FRAMES,
) -> Int[Tensor, "1 K T"]:
    """Codes of a recording: read, brought to the tokenizer's rate and encoded in blocks.

    Several channels are mixed down to their mean unless `channel` picks one: two speakers on two channels
    are better encoded one by one. Beside the codes, 11.5 MB an hour with 32 codebooks, memory does not grow
    with the length; `iter_codes` hands them out block by block.

    The samples that the encoder reads are those of `read_audio`, bit for bit, for any block_frames, and its
    convolutions and attention carry their past from block to block: the codes are those of the whole. What is
    left is the last bit of a matrix product, which may round differently for another number of rows: where
    two vectors are equally near, another block_frames may find the other one.

    Args:
        tokenizer: In eval mode, on any device, not streaming already.
        source: A file that libsndfile reads, or samples [C, S] in floating point, full scale = 1.
        sample_rate: Hz of `source`; must be given with samples, and not with a file, which states its own.
        channel: Which one, from 0, or "mean" of all.
        num_codebooks: Only the first ones. None: all.
        block_frames: Codec frames of one call of the encoder.

    Returns:
        int64 [1, K, T] on the CPU, T = ceil(S2 / samples_per_frame), S2 = ceil(S * rate / sample_rate); a
        last frame that is not full is filled with silence.

    Raises:
        ValueError: A file that cannot be read, no samples, no such channel, or a sample that is NaN or
            infinite; the message names the time of the first one.
    """
    blocks = iter_codes(
        tokenizer,
        source,
        sample_rate=sample_rate,
        channel=channel,
        num_codebooks=num_codebooks,
        block_frames=block_frames,
    )
    # Kept as int32 until all are there: what joining copies is then half as large.
    return torch.cat([codes.int() for codes in blocks], dim=-1).long()


def iter_codes(
    tokenizer: ConversationalRVQ,
    source: str | Path | np.ndarray | Tensor,
    *,
    sample_rate: int | None = None,
    channel: int | Literal["mean"] = "mean",
    num_codebooks: int | None = None,
    block_frames: int = BLOCK_FRAMES,
) -> Iterator[Int[Tensor, "1 K T"]]:
    """The codes of `encode_recording`, block by block; the tokenizer is streaming until the last is taken."""
    if block_frames < 1:
        raise ValueError(f"block_frames is {block_frames}: expected at least 1")
    rate, blocks = _opened(source, sample_rate)
    config, device = tokenizer.config, _device(tokenizer)
    mono = _mixed(blocks, rate, channel, _name(source))
    resampled = _resampled(mono, BlockResampler(rate, config.sample_rate))
    with tokenizer.streaming(1):
        for samples in _reblocked(resampled, block_frames * config.samples_per_frame):
            with torch.no_grad():  # around the call alone: the caller's own code runs between blocks
                codes, _ = tokenizer.encode(samples.to(device)[None, None], num_codebooks=num_codebooks)
            yield codes.cpu()


def decode_recording(
    tokenizer: ConversationalRVQ,
    codes: Int[Tensor, "1 K T"] | Iterable[Int[Tensor, "1 K T2"]],
    path: str | Path,
    *,
    samples: int | None = None,
    speaker: Float[Tensor, "1 E"] | None = None,
    emotion: Float[Tensor, "1 M"] | None = None,
    block_frames: int = BLOCK_FRAMES,
) -> int:
    """Decodes codes into an audio file at the tokenizer's rate, block by block in constant memory.

    Args:
        tokenizer: In eval mode, on any device, not streaming already.
        codes: int64 [1, K, T], or blocks of them one after the other.
        path: WAV, or FLAC by its name; 16 bits, written whole or not at all.
        samples: The file ends after so many, where the last frame was not full. None: with the last frame.
        speaker, emotion: [1, E] and [1, M] of `ConversationalRVQ.encode`, where known.
        block_frames: Codec frames of one call of the decoder.

    Returns:
        Samples written.

    Raises:
        ValueError: Codes of another shape, dtype or range, none at all, or a target that cannot be written.
    """
    device, rate = _device(tokenizer), tokenizer.config.sample_rate
    left = samples
    written = 0
    known = [None if given is None else given.to(device) for given in (speaker, emotion)]
    with AtomicAudioWriter(path, rate, 1) as writer, tokenizer.streaming(1), torch.no_grad():

        def write(waveform: Tensor) -> None:
            nonlocal left, written
            kept = waveform[0, 0, :left].cpu()
            writer.write(kept.unsqueeze(1).numpy())
            written += len(kept)
            left = None if left is None else left - len(kept)

        for block in [codes] if isinstance(codes, Tensor) else codes:
            if block.ndim != 3 or block.shape[0] != 1:
                raise ValueError(
                    f"codes have shape {tuple(block.shape)}: expected [1, K, T], one recording a call"
                )
            for part in block.split(block_frames, dim=-1):
                write(tokenizer.decode(part.to(device), speaker=known[0], emotion=known[1]))
        write(tokenizer.flush())
        if written == 0:
            raise ValueError(f"{path}: there are no codes to decode; nothing was written")
    return written


def _opened(
    source: str | Path | np.ndarray | Tensor, sample_rate: int | None
) -> tuple[int, Iterator[np.ndarray]]:
    """Rate in Hz and blocks float32 [S, C] of a file or of samples."""
    if isinstance(source, (str, Path)):
        if sample_rate is not None:
            raise ValueError(
                f"sample_rate={sample_rate} was given with a file: leave it out, the file states it"
            )
        return sample_rate_of(source), iter_blocks(source)
    samples = torch.as_tensor(source)
    if samples.ndim != 2 or not samples.is_floating_point():
        raise ValueError(
            f"samples are {samples.dtype} {tuple(samples.shape)}: expected floating point "
            f"[channels, samples], full scale = 1"
        )
    if sample_rate is None or sample_rate < 1:
        raise ValueError(f"sample_rate is {sample_rate}: say at how many Hz the samples were taken")
    starts = range(0, samples.shape[1], BLOCK_SAMPLES)
    return sample_rate, (samples[:, i : i + BLOCK_SAMPLES].T.float().cpu().numpy() for i in starts)


def _mixed(
    blocks: Iterator[np.ndarray], rate: int, channel: int | Literal["mean"], name: str
) -> Iterator[Tensor]:
    """One channel, float32 [S] a block, of blocks [S, C]; refuses what is not finite."""
    read = 0
    for block in blocks:
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            place, where = bad[0]
            raise ValueError(
                f"{name}: the sample at {(read + place) / rate:.6f} s (number {read + place}, channel "
                f"{where}) is {block[place, where]}: repair the recording, or cut it before that"
            )
        read += len(block)
        if channel == "mean":
            yield torch.from_numpy(block.mean(axis=1))
        elif isinstance(channel, int) and 0 <= channel < block.shape[1]:
            yield torch.from_numpy(block[:, channel].copy())
        else:
            raise ValueError(
                f"channel is {channel!r}: expected 'mean' or 0 to {block.shape[1] - 1} with {name}"
            )
    if read == 0:
        raise ValueError(f"{name}: holds no audio: expected at least one sample")


def _resampled(blocks: Iterator[Tensor], resampler: BlockResampler) -> Iterator[Tensor]:
    for block in blocks:
        yield resampler.push(block)
    yield resampler.finish()


def _reblocked(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """The same samples in blocks of `size`; the last may be shorter."""
    waiting: list[Tensor] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= size:
            joined = torch.cat(waiting)
            whole = len(joined) // size * size
            yield from joined[:whole].split(size)
            waiting = [joined[whole:].clone()]
    if sum(map(len, waiting)):
        yield torch.cat(waiting)


def _device(tokenizer: ConversationalRVQ) -> torch.device:
    return next(tokenizer.parameters()).device


def _name(source: str | Path | np.ndarray | Tensor) -> str:
    if isinstance(source, (str, Path)):
        return os.fsencode(Path(source).name).decode("utf-8", "backslashreplace")
    return "samples"
