"""Sample-rate conversion of audio in blocks: the output bits do not depend on the block boundaries."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# torchaudio's defaults: zero crossings on each side, cutoff as a share of the lower Nyquist frequency.
ZERO_CROSSINGS, ROLLOFF = 6, 0.99
BLOCK_SAMPLES = 1 << 18  # in one block of `resample`, whose temporaries take about 10 MB


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """Resamples a whole signal [S] with `BlockResampler`; returns float32 [ceil(S * target / source)]."""
    resampler = BlockResampler(source, target)
    return torch.cat([*map(resampler.push, waveform.split(BLOCK_SAMPLES)), resampler.finish()])


class BlockResampler:
    """Windowed-sinc resampling of one signal, block by block.

    Every output sample is the same sum of the same products in the same order, computed by separate
    multiplications and additions, wherever the blocks begin and end. The formula equals that of
    torchaudio.transforms.Resample (Hann window) to 1e-6; only taps inside the window are stored, so rates
    without a common divisor cost no more than others (44,101 to 24,000 Hz: 2 MB of filters instead of 4 GB).
    The memory is that of one block and its output.

    Args:
        source, target: Sample rates in Hz, whole numbers.

    Raises:
        ValueError: A rate is not above 0.
    """

    def __init__(self, source: int, target: int) -> None:
        if source < 1 or target < 1:
            raise ValueError(
                f"rates are {source} -> {target}: expected whole numbers of Hz above 0; correct them"
            )
        divisor = math.gcd(source, target)
        self.source, self.target = source // divisor, target // divisor
        self._filters, self._first = _filters(self.source, self.target)
        self._span = int(self._first[-1]) + len(self._filters)
        # The first filter begins before the signal, where there is silence.
        self._kept = torch.zeros(math.ceil(_half_window(self.source, self.target)))
        self._read = self._written = 0

    def push(self, block: Tensor) -> Tensor:
        """Takes the next samples float32 [S], any S; returns the output samples that they complete."""
        if self.source == self.target:
            return block
        self._read += len(block)
        self._kept = torch.cat([self._kept, block])
        return self._groups(max(0, (len(self._kept) - self._span) // self.source + 1))

    def finish(self) -> Tensor:
        """Returns the last output samples, as if silence followed; ceil(S * target / source) in total."""
        if self.source == self.target:
            return self._kept[:0]
        rest = -(-self._read * self.target // self.source) - self._written
        groups = -(-rest // self.target)
        lacking = max(0, (groups - 1) * self.source + self._span - len(self._kept))
        self._kept = torch.nn.functional.pad(self._kept, (0, lacking))
        return self._groups(groups)[:rest]

    def _groups(self, count: int) -> Tensor:
        """Returns the next `count` groups of outputs; drops the input samples that no later group needs."""
        index = torch.arange(count).unsqueeze(1) * self.source + self._first
        total = torch.zeros(index.shape)
        if count:
            for tap, weights in enumerate(self._filters):
                # Not addcmul: it rounds once or twice, depending on the position in the tensor.
                total += torch.take(self._kept[tap:], index) * weights
        self._kept = self._kept[count * self.source :].clone()
        self._written += total.numel()
        return total.flatten()


def _half_window(source: int, target: int) -> float:
    """Returns half the window's length in source samples."""
    return ZERO_CROSSINGS * source / (ROLLOFF * min(source, target))


@lru_cache(maxsize=16)
def _filters(source: int, target: int) -> tuple[Tensor, Tensor]:
    """Returns the filters of one group of `target` outputs, which advance the input by `source` samples.

    Returns:
        Filters float32 [taps, target], and the index int64 [target] of each output's first tap, counted from
        the first filter's oldest sample.
    """
    lower, half = ROLLOFF * min(source, target), _half_window(source, target)
    first = (torch.arange(target, dtype=torch.float64) * source / target - half).ceil()
    taps = torch.arange(math.floor(2 * half) + 1).unsqueeze(1)
    # fp32 as in torchaudio: float64 here would make the results differ from its by 1e-5 instead of 1e-6.
    shift = torch.arange(target) / target
    distance = ((first + taps) / source - shift) * lower
    distance = distance.clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(distance * (math.pi / 2 / ZERO_CROSSINGS)).square()
    weights = torch.sinc(distance) * window * (lower / source)
    return weights.float(), first.long() + math.ceil(half)
