"""Two subjects whose scores are known: one ignores its users, one stops at every sound."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

RATE = 16_000
SOUND = 0.003  # RMS


class _Stub:
    """Answers a sound 1 s after it ends, with a tone, each time a higher one.

    Args:
        longest: Seconds of one reply.
    """

    rate = RATE

    def __init__(self, longest: float = 8.0) -> None:
        self._longest = round(longest * RATE)
        self._heard, self._quiet, self._left, self._time, self._pitch = False, 0, 0, 0, 150

    def step(self, samples: Float[Tensor, " S"], rate: int) -> Float[Tensor, " S"]:
        """Returns as many samples of the voice."""
        sound = bool(samples.square().mean().sqrt() > SOUND)
        count = round(len(samples) * RATE / rate)
        voice = torch.zeros(count)
        if self._left > 0:
            time = torch.arange(self._time, self._time + count) / RATE
            voice = 0.1 * torch.sin(2 * math.pi * self._pitch * time)
            self._left -= count
        self._time += count
        self._follow(sound, count)
        return voice

    def close(self) -> None:
        """Ends nothing."""

    def _follow(self, sound: bool, count: int) -> None:
        self._heard = self._heard or sound
        self._quiet = 0 if sound else self._quiet + count
        if self._heard and self._left <= 0 and self._quiet >= RATE:
            self._heard, self._left, self._pitch = False, self._longest, self._pitch + 50


class IgnoresUsers(_Stub):
    """Never yields."""


class AlwaysStops(_Stub):
    """Yields to every sound in the step after it."""

    def _follow(self, sound: bool, count: int) -> None:
        if sound:
            self._left = 0
        super()._follow(sound, count)
