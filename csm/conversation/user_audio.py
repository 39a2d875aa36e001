"""The newest audio of the user, at the rates at which it is read, by samples of the conversation's clock."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from csm.audio.resampling import BlockResampler

MARGIN_S = 0.2  # audio before the detected onset and after the end: voice activity begins late


class UserAudio:
    """Keeps the newest audio of one user.

    Args:
        rate: Samples per second of the clock, and of the audio that the voice's model reads.
        listened: Samples per second of the audio that the listener and the recogniser read.
        longest: Seconds that are kept.
    """

    def __init__(self, rate: int, listened: int, longest: float) -> None:
        self._rate, self._listened, self._longest = rate, listened, longest
        self._source = 0
        self._resamplers: list[BlockResampler] = []
        self._past = {kept: torch.zeros(0) for kept in (rate, listened)}
        self._begin = {kept: 0 for kept in self._past}  # sample at which the kept past begins

    def push(self, samples: Float[Tensor, " S"], rate: int) -> Float[Tensor, " L"]:
        """Takes the next samples, full scale = 1.

        Returns:
            What they add at the rate of the listener.

        Raises:
            ValueError: The samples have another shape, are not finite, or the rate is out of range.
        """
        if samples.ndim != 1 or not bool(samples.isfinite().all()):
            raise ValueError(f"audio has shape {tuple(samples.shape)}: expected [S] of finite samples")
        if not 4_000 <= rate <= 192_000:
            raise ValueError(f"rate is {rate}: expected 4000 to 192000 Hz")
        if rate != self._source:
            self._source = rate
            self._resamplers = [self._resampler(rate, target) for target in self._past]
        for (kept, past), resampler in zip(list(self._past.items()), self._resamplers, strict=True):
            new = resampler.push(samples.float())
            self._past[kept] = torch.cat([past, new])
        return new

    def between(self, start: int, end: int) -> tuple[Float[Tensor, " S"], Float[Tensor, " L"]]:
        """Returns an interval of the clock, in samples, with a margin on both sides: at both rates."""
        return self._kept(self._rate, start, end), self._kept(self._listened, start, end)

    def forget(self) -> None:
        """Drops what is older than the audio that is kept."""
        for rate, past in self._past.items():
            extra = len(past) - round(self._longest * rate)
            if extra > rate:
                self._past[rate], self._begin[rate] = past[extra:].clone(), self._begin[rate] + extra

    def _resampler(self, source: int, target: int) -> BlockResampler:
        """Returns the one of a rate: the listener gets audio earlier at a lower quality."""
        return BlockResampler(source, target, quality="LQ" if target != self._rate else "HQ")

    def _kept(self, rate: int, start: int, end: int) -> Tensor:
        margin = round(MARGIN_S * rate)
        first = start * rate // self._rate - margin - self._begin[rate]
        return self._past[rate][max(0, first) : max(1, end * rate // self._rate + margin - self._begin[rate])]
