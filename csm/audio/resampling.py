"""Sample-rate conversion in blocks by soxr: the output bits do not depend on the block boundaries."""

from __future__ import annotations

from typing import Literal

import soxr
import torch
from torch import Tensor

BLOCK_SAMPLES = 1 << 18  # in one block of `resample`
# "HQ" has 20 bits: what lies above the lower Nyquist frequency is 120 dB down and more, and what lies below
# 0.9 of it stays. "LQ" arrives in half the time, after at most 20 to 44 ms: what lies above is 105 dB down,
# and 2 dB are lost at 0.8 of the Nyquist frequency, 20 dB at 0.9 (docs/MEASURED.md).
Quality = Literal["HQ", "LQ"]


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """Resamples a whole signal [S] with `BlockResampler`; returns float32 [ceil(S * target / source)]."""
    resampler = BlockResampler(source, target)
    return torch.cat([*map(resampler.push, waveform.split(BLOCK_SAMPLES)), resampler.finish()])


class BlockResampler:
    """Resampling of one signal on the CPU, block by block, by the SoX Resampler library (Rob Sykes).

    Every output sample is the same wherever the blocks begin and end. The memory is that of one block and its
    output.

    Args:
        source, target: Sample rates in Hz, whole numbers.
        quality: Of soxr: "HQ" for recordings, "LQ" for live audio that has to arrive early.

    Raises:
        ValueError: A rate is not above 0.
    """

    def __init__(self, source: int, target: int, *, quality: Quality = "HQ") -> None:
        if source < 1 or target < 1:
            raise ValueError(
                f"rates are {source} -> {target}: expected whole numbers of Hz above 0; correct them"
            )
        self.source, self.target = source, target
        self._stream = soxr.ResampleStream(source, target, 1, dtype="float32", quality=quality)
        self._read = self._written = 0

    def push(self, block: Tensor) -> Tensor:
        """Takes the next samples float32 [S], any S; returns the output samples that they complete."""
        if self.source == self.target:
            return block
        self._read += len(block)
        found = torch.from_numpy(self._stream.resample_chunk(block.contiguous().numpy()))
        self._written += len(found)
        return found

    def finish(self) -> Tensor:
        """Returns the last output samples, as if silence followed; ceil(S * target / source) in total."""
        rest = -(-self._read * self.target // self.source) - self._written
        if self.source == self.target or not self._read:
            return torch.zeros(0)
        silence = torch.zeros(self.source // self.target + 2)
        found = torch.from_numpy(self._stream.resample_chunk(silence.numpy(), last=True))
        return found[:rest]
