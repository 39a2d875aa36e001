"""Another sample rate for audio that comes in blocks: no seams, and the same bits however it is cut."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# torchaudio's defaults: zero crossings on each side, and the cutoff as a share of the lower rate's half.
ZERO_CROSSINGS, ROLLOFF = 6, 0.99
BLOCK_SAMPLES = 1 << 18  # of one block of `resample`: its places and products take some 10 MB


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """A whole signal [S] at another rate: float32 [ceil(S * target / source)], as BlockResampler has it."""
    resampler = BlockResampler(source, target)
    return torch.cat([*map(resampler.push, waveform.split(BLOCK_SAMPLES)), resampler.finish()])


class BlockResampler:
    """Windowed-sinc resampling of one signal, block by block.

    Every output sample is the same sum of the same products in the same order wherever the blocks begin and
    end, written as separate multiplications and additions: the bits do not depend on the cutting. The formula
    is that of torchaudio.transforms.Resample (Hann window), to 1e-6; only taps inside the window are kept, so
    that rates without a common divisor cost no more than others (44,101 to 24,000 Hz: 2 MB of filters and
    not 4 GB). Memory: a block and its output.

    Args:
        source, target: Rates in Hz, whole numbers.

    Raises:
        ValueError: A rate that is not above 0.
    """

    def __init__(self, source: int, target: int) -> None:
        if source < 1 or target < 1:
            raise ValueError(f"rates {source} -> {target}: expected whole numbers of Hz above 0")
        divisor = math.gcd(source, target)
        self.source, self.target = source // divisor, target // divisor
        self._filters, self._place = _filters(self.source, self.target)
        self._span = int(self._place[-1]) + len(self._filters)
        # The first filter looks back on silence.
        self._kept = torch.zeros(math.ceil(_half_window(self.source, self.target)))
        self._read = self._written = 0

    def push(self, block: Tensor) -> Tensor:
        """The next samples, float32 [S], any S; returns those at the target rate that are known by now."""
        if self.source == self.target:
            return block
        self._read += len(block)
        self._kept = torch.cat([self._kept, block])
        return self._groups(max(0, (len(self._kept) - self._span) // self.source + 1))

    def finish(self) -> Tensor:
        """The rest, as if silence followed: of S samples in, ceil(S * target / source) are out then."""
        if self.source == self.target:
            return self._kept[:0]
        rest = -(-self._read * self.target // self.source) - self._written
        groups = -(-rest // self.target)
        lacking = max(0, (groups - 1) * self.source + self._span - len(self._kept))
        self._kept = torch.nn.functional.pad(self._kept, (0, lacking))
        return self._groups(groups)[:rest]

    def _groups(self, count: int) -> Tensor:
        """The next `count` groups of outputs; the samples that no later one needs are dropped."""
        place = torch.arange(count).unsqueeze(1) * self.source + self._place
        total = torch.zeros(place.shape)
        if count:
            for tap, weights in enumerate(self._filters):
                # Not addcmul: it rounds once or twice, depending on where in the tensor a sample stands.
                total += torch.take(self._kept[tap:], place) * weights
        self._kept = self._kept[count * self.source :].clone()
        self._written += total.numel()
        return total.flatten()


def _half_window(source: int, target: int) -> float:
    """Half the window's length in source samples."""
    return ZERO_CROSSINGS * source / (ROLLOFF * min(source, target))


@lru_cache(maxsize=16)
def _filters(source: int, target: int) -> tuple[Tensor, Tensor]:
    """The filters of one group, [taps, target]: `target` outputs later, `source` samples on, they come back.

    And int64 [target], the place of each output's first tap, counted from the first filter's oldest sample.
    """
    lower, half = ROLLOFF * min(source, target), _half_window(source, target)
    first = (torch.arange(target, dtype=torch.float64) * source / target - half).ceil()
    taps = torch.arange(math.floor(2 * half) + 1).unsqueeze(1)
    # torchaudio rounds an output's place in its group to fp32; so do we, to be alike to 1e-6 and not to 1e-5.
    shift = torch.arange(target) / target
    distance = ((first + taps) / source - shift) * lower
    distance = distance.clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(distance * (math.pi / 2 / ZERO_CROSSINGS)).square()
    weights = torch.sinc(distance) * window * (lower / source)
    return weights.float(), first.long() + math.ceil(half)
