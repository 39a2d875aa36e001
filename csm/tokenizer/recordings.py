"""Encodes and decodes whole recordings of any length, sample rate and number of channels, block by block."""

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

BLOCK_FRAMES = 250  # 20 s at 12.5 frames per second; larger blocks are not faster


def encode_recording(
    tokenizer: ConversationalRVQ,
    source: str | Path | np.ndarray | Tensor,
    *,
    sample_rate: int | None = None,
    channel: int | Literal["mean"] = "mean",
    num_codebooks: int | None = None,
    block_frames: int = BLOCK_FRAMES,
) -> Int[Tensor, "1 K T"]:
    """Reads a recording, resamples it to the tokenizer's rate and encodes it in blocks.

    All channels are averaged unless `channel` selects one; two speakers on two channels are better encoded
    separately. Only the codes grow with the length, by 11.5 MB per hour with 32 codebooks; `iter_codes`
    yields them block by block.

    For every block_frames the encoder reads the samples of `read_audio` bit for bit, and its convolutions and
    attention carry their state from block to block, so the codes are those of the whole recording. The
    exception is a tie between two code vectors: a matrix product may round differently for another number of
    rows, so another block_frames may select the other vector.

    Args:
        tokenizer: Tokenizer in eval mode on any device, not yet streaming.
        source: A file that libsndfile reads, or a floating-point waveform [C, S], full scale = 1.
        sample_rate: Sample rate of a waveform in Hz; None for a file, which states its own.
        channel: Channel, from 0, or "mean" for the average of all.
        num_codebooks: Number of first codebooks; None means all.
        block_frames: Frames per call of the encoder.

    Returns:
        Codes int64 [1, K, T] on the CPU, T = ceil(S2 / samples_per_frame), S2 = ceil(S * rate / sample_rate);
        the last frame is padded with silence.

    Raises:
        ValueError: The file is unreadable, there are no samples, the channel does not exist, or a sample is
        NaN
            or infinite; the message gives the time of the first one.
    """
    blocks = iter_codes(
        tokenizer,
        source,
        sample_rate=sample_rate,
        channel=channel,
        num_codebooks=num_codebooks,
        block_frames=block_frames,
    )
    # int32 until all blocks are encoded: the concatenation then needs half the memory.
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
    """Yields the codes of `encode_recording` block by block; the tokenizer streams until the last one."""
    if block_frames < 1:
        raise ValueError(f"block_frames is {block_frames}: expected at least 1; raise it")
    rate, blocks = _opened(source, sample_rate)
    config, device = tokenizer.config, _device(tokenizer)
    mono = _mixed(blocks, rate, channel, _name(source))
    resampled = _resampled(mono, BlockResampler(rate, config.sample_rate))
    with tokenizer.streaming(1):
        for samples in _reblocked(resampled, block_frames * config.samples_per_frame):
            with torch.no_grad():  # for this call only: the caller's code runs between blocks
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
    """Decodes codes block by block into an audio file at the tokenizer's rate.

    Args:
        tokenizer: Tokenizer in eval mode on any device, not yet streaming.
        codes: Codes int64 [1, K, T], or consecutive blocks of them.
        path: Path of the file, 16-bit WAV, or FLAC for a name that ends in .flac; written atomically.
        samples: Number of samples of the file, to cut the padding of the last frame; None writes whole
        frames. speaker, emotion: Embeddings [1, E] and [1, M] of `ConversationalRVQ.encode`, None if unknown.
        block_frames: Frames per call of the decoder.

    Returns:
        Number of samples written.

    Raises:
        ValueError: The codes have another shape, dtype or range, there are none, or the file cannot be
        written.
    """
    device, rate = _device(tokenizer), tokenizer.config.sample_rate
    left = samples
    written = 0
    conditions = [None if given is None else given.to(device) for given in (speaker, emotion)]
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
                    f"codes have shape {tuple(block.shape)}: expected [1, K, T]; decode one recording a call"
                )
            for part in block.split(block_frames, dim=-1):
                write(tokenizer.decode(part.to(device), speaker=conditions[0], emotion=conditions[1]))
        write(tokenizer.flush())
        if written == 0:
            raise ValueError(f"{path}: codes have no frames: expected at least one; nothing was written")
    return written


def _opened(
    source: str | Path | np.ndarray | Tensor, sample_rate: int | None
) -> tuple[int, Iterator[np.ndarray]]:
    """Returns the rate in Hz and the blocks float32 [S, C] of a file or a waveform."""
    if isinstance(source, (str, Path)):
        if sample_rate is not None:
            raise ValueError(
                f"sample_rate is {sample_rate}: expected None with a file, which states it; leave it out"
            )
        return sample_rate_of(source), iter_blocks(source)
    samples = torch.as_tensor(source)
    if samples.ndim != 2 or not samples.is_floating_point():
        raise ValueError(
            f"samples are {samples.dtype} {tuple(samples.shape)}: expected floating point "
            f"[channels, samples], full scale = 1; convert them"
        )
    if sample_rate is None or sample_rate < 1:
        raise ValueError(f"sample_rate is {sample_rate}: expected Hz above 0; give the rate of the samples")
    starts = range(0, samples.shape[1], BLOCK_SAMPLES)
    return sample_rate, (samples[:, i : i + BLOCK_SAMPLES].T.float().cpu().numpy() for i in starts)


def _mixed(
    blocks: Iterator[np.ndarray], rate: int, channel: int | Literal["mean"], name: str
) -> Iterator[Tensor]:
    """Yields one channel or the mean [S] of each block [S, C]; refuses samples that are not finite."""
    read = 0
    for block in blocks:
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            sample, where = bad[0]
            raise ValueError(
                f"{name}: the sample at {(read + sample) / rate:.6f} s (number {read + sample}, channel "
                f"{where}) is {block[sample, where]}: expected a finite one; repair the recording"
            )
        read += len(block)
        if channel == "mean":
            yield torch.from_numpy(block.mean(axis=1))
        elif isinstance(channel, int) and 0 <= channel < block.shape[1]:
            yield torch.from_numpy(block[:, channel].copy())
        else:
            raise ValueError(
                f"{name}: channel is {channel!r}: expected 'mean' or 0 to {block.shape[1] - 1}; choose one"
            )
    if read == 0:
        raise ValueError(f"{name}: holds no audio: expected at least one sample; record it again")


def _resampled(blocks: Iterator[Tensor], resampler: BlockResampler) -> Iterator[Tensor]:
    for block in blocks:
        yield resampler.push(block)
    yield resampler.finish()


def _reblocked(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yields the same samples in blocks of `size`; the last one may be shorter."""
    pending: list[Tensor] = []
    for block in blocks:
        pending.append(block)
        if sum(map(len, pending)) >= size:
            joined = torch.cat(pending)
            whole = len(joined) // size * size
            yield from joined[:whole].split(size)
            pending = [joined[whole:].clone()]
    if sum(map(len, pending)):
        yield torch.cat(pending)


def _device(tokenizer: ConversationalRVQ) -> torch.device:
    return next(tokenizer.parameters()).device


def _name(source: str | Path | np.ndarray | Tensor) -> str:
    if isinstance(source, (str, Path)):
        return os.fsencode(Path(source).name).decode("utf-8", "backslashreplace")
    return "samples"
