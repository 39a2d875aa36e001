"""Audio of a reply on its way to the loudspeaker: a jitter buffer that counts what was played."""

from __future__ import annotations

from collections import deque

import torch
from jaxtyping import Float
from torch import Tensor

from csm.conversation.speaker import Chunk

SILENCE = 10 ** (-45 / 20)  # of full scale


class Playout:
    """Plays chunks in order; where none is there in time it plays silence and counts an underrun.

    Args:
        start: Samples that must be waiting before a reply begins, unless it is whole.
        fade: Samples over which the audio comes back after a hold, and that stay before its first sound.

    Attributes:
        played: Samples of each clause that were played.
        held: Whether the reply is paused.
        released: Whether the reply may be played.
        whole: Whether no more chunks will come.
        underruns: Times at which the audio ran out in this reply.
        skipped: Samples of silence before the first sound, which count as played.
    """

    def __init__(self, start: int, fade: int) -> None:
        self._start, self._fade = start, fade
        self._chunks: deque[Chunk] = deque()
        self.played: list[int] = []
        self.held = self.released = self.whole = self.begun = False
        self.underruns = self.skipped = 0
        self._dry = self._resumed = self._sounded = False

    @property
    def waiting(self) -> int:
        """Samples that wait."""
        return sum(len(chunk.samples) for chunk in self._chunks)

    @property
    def over(self) -> bool:
        """Whether everything was played."""
        return self.whole and not self._chunks

    def resume(self) -> None:
        """Plays on after a hold."""
        self.held, self._resumed = False, True

    def add(self, chunk: Chunk) -> None:
        """Appends audio; the silence that a reply begins with counts as played."""
        if not self._sounded:
            loud = (chunk.samples.abs() > SILENCE).nonzero()
            first = max(0, int(loud[0]) - self._fade) if len(loud) else len(chunk.samples)
            self._sounded = bool(len(loud))
            self._count(chunk.clause, first)
            self.skipped += first
            chunk = Chunk(chunk.clause, chunk.samples[first:])
        if len(chunk.samples):
            self._chunks.append(chunk)

    def play(self, count: int) -> Float[Tensor, " S"]:
        """Returns the next `count` samples; silence where there are none, or none may be played."""
        silent = self.held or not self.released or not self._filled()
        parts: list[Tensor] = []
        left = 0 if silent else count
        while left and self._chunks:
            chunk = self._chunks.popleft()
            part, rest = chunk.samples[:left], chunk.samples[left:]
            if len(rest):
                self._chunks.appendleft(Chunk(chunk.clause, rest))
            self._count(chunk.clause, len(part))
            parts.append(part)
            left -= len(part)
        self.begun = self.begun or bool(parts)
        if left and not self.whole:
            self._dry = True
            self.underruns += 1
        audio = torch.cat([*parts, torch.zeros(count - sum(map(len, parts)))])
        if self._resumed and parts:
            self._resumed = False
            fade = min(self._fade, count)
            audio[:fade] *= torch.linspace(0, 1, fade)
        return audio

    def _count(self, clause: int, samples: int) -> None:
        self.played += [0] * (clause + 1 - len(self.played))
        self.played[clause] += samples

    def _filled(self) -> bool:
        """Whether enough audio waits: once it ran out it is collected again."""
        if (self._dry or not self.begun) and not self.whole and self.waiting < self._start:
            return False
        self._dry = False
        return True
