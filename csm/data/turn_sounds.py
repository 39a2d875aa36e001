"""Turns and their sound as 16-bit samples, the newest of them held in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csm.audio.prosody import frame_prosody, prosody_statistics
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.system.threads import one_thread

# What is held at most: 13 hours at 11,025 Hz, 6 at 24 kHz.
HELD_BYTES = 2**30


class Sound(NamedTuple):
    """A turn and its sound.

    Attributes:
        turn: The turn.
        samples: int16 [S].
        statistics: float32 [6], those of its prosody.
    """

    turn: Turn
    samples: Tensor
    statistics: Tensor


class TurnSounds:
    """Turns and their sounds by place; what is not held is read: the turn, and its sound from its file.

    Args:
        corpus: Corpus of the turns.
        turns: Turns.
        lengths: int64 [N], samples of each turn by its times; of those that are read a few may differ.
        sample_rate: Sample rate in Hz.

    Attributes:
        fit: Whether all of them may be held.
    """

    def __init__(
        self, corpus: Corpus, turns: Sequence[Turn], lengths: NDArray[np.int64], sample_rate: int
    ) -> None:
        self.corpus, self.sample_rate = corpus, sample_rate
        self._held: OrderedDict[int, Sound] = OrderedDict()
        self._bytes = 0
        self.fit = 2 * int(lengths.sum()) <= HELD_BYTES
        # One turn of a corpus is read with its whole conversation.
        self.turns = tuple(turns) if self.fit else turns

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, place: int) -> Sound:
        if place in self._held:
            self._held.move_to_end(place)
            return self._held[place]
        sound = self._read(self.turns[place])
        self._held[place] = sound
        self._bytes += 2 * len(sound.samples)
        while self._bytes > HELD_BYTES and len(self._held) > 1 and not self.fit:
            self._bytes -= 2 * len(self._held.popitem(last=False)[1].samples)
        return sound

    def _read(self, turn: Turn) -> Sound:
        waveform = read_turn(self.corpus, turn, self.sample_rate)
        with one_thread():
            statistics = prosody_statistics(frame_prosody(waveform, self.sample_rate))
        # Resampling overshoots full scale, where 16 bits would wrap around.
        return Sound(turn, (waveform[0].clamp(-1, 1) * 32767).round().to(torch.int16), statistics)
