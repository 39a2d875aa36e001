"""Checks of the waveforms and codes that a user gives to a tokenizer: one for every tokenizer here."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class CodecSizes(Protocol):
    """The fields of a tokenizer's config that the checks compare with."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in Hz."""

    @property
    def n_codebooks(self) -> int:
        """Codebooks per frame."""

    @property
    def codebook_size(self) -> int:
        """Vectors per codebook."""


def check_audio(audio: Tensor, config: CodecSizes) -> None:
    """Checks waveforms before they are encoded.

    Raises:
        ValueError: The tensor is not [B, 1, S] with B and S above 0, not floating point, or not finite.
    """
    if audio.ndim != 3 or audio.shape[1] != 1 or audio.shape[0] == 0:
        raise ValueError(
            f"audio has shape {tuple(audio.shape)}: expected [B, 1, S] at {config.sample_rate} Hz; mix "
            f"channels down or encode them one by one"
        )
    if audio.shape[-1] == 0:
        raise ValueError("audio has no samples: expected at least one; drop the empty recording")
    if not audio.is_floating_point():
        raise ValueError(f"audio is {audio.dtype}: expected floating point; scale it to full scale = 1")
    if not bool(torch.isfinite(audio).all()):
        raise ValueError("audio holds NaN or infinite samples: repair or drop the recording first")


def checked_lengths(lengths: Tensor | None, audio: Tensor) -> Tensor:
    """Returns the samples of each item of audio [B, 1, S] before padding, int64 [B].

    Args:
        lengths: Given lengths; None stands for S everywhere.
        audio: Checked waveforms.

    Raises:
        ValueError: The lengths are not one per item, or not in 1..S.
    """
    if lengths is None:
        return torch.full((audio.shape[0],), audio.shape[-1], device=audio.device)
    if lengths.shape != audio.shape[:1] or int(lengths.min()) < 1 or int(lengths.max()) > audio.shape[-1]:
        raise ValueError(
            f"lengths is {lengths.tolist()}: expected one per item of audio {tuple(audio.shape)}, from 1 to "
            f"{audio.shape[-1]} samples"
        )
    return lengths


def check_codes(codes: Tensor, config: CodecSizes, *, fewest: int = 1) -> None:
    """Checks codes before they are decoded.

    Args:
        codes: Given codes.
        config: Sizes of the tokenizer.
        fewest: Smallest number of codebooks that can be decoded.

    Raises:
        ValueError: The codes are not [B, K, T] with at least one item and frame, K is outside
            fewest..n_codebooks, or a code is no int64 in 0..codebook_size - 1.
    """
    if codes.ndim != 3 or not fewest <= codes.shape[1] <= config.n_codebooks or 0 in codes.shape:
        raise ValueError(
            f"codes have shape {tuple(codes.shape)}: expected [B, K, T] with {fewest} <= K <= "
            f"{config.n_codebooks} and at least one frame"
        )
    if codes.dtype != torch.int64:
        raise ValueError(f"codes are {codes.dtype}: expected int64, as `encode` returns them")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= config.codebook_size:
        raise ValueError(
            f"codes range over {low}..{high}: expected 0..{config.codebook_size - 1}; cut end-of-speech rows "
            f"and padding off before decoding"
        )
