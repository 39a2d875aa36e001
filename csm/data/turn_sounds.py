"""The sound of turns as 16-bit samples, the newest of them held in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from csm.audio.prosody import frame_prosody, prosody_statistics
from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.system.threads import one_thread

# What is held at most: 13 hours at 11,025 Hz, 6 at 24 kHz.
HELD_BYTES = 2**30


class Sound(NamedTuple):
    """The sound of a turn.

    Attributes:
        samples: int16 [S].
        statistics: float32 [6], those of its prosody.
    """

    samples: Tensor
    statistics: Tensor


class TurnSounds:
    """The sounds of turns by their place; one that is not held is read from its file.

    Args:
        corpus: Corpus of the turns.
        turns: Turns.
        sample_rate: Sample rate in Hz.

    Attributes:
        lengths: Samples of each turn, by its times; of those that are read a few may differ.
        fit: Whether all of them may be held.
    """

    def __init__(self, corpus: Corpus, turns: Sequence[Turn], sample_rate: int) -> None:
        self.corpus, self.turns, self.sample_rate = corpus, turns, sample_rate
        self._held: OrderedDict[int, Sound] = OrderedDict()
        self._bytes = 0
        self.lengths = [round(turn.duration * sample_rate) for turn in turns]
        self.fit = 2 * sum(self.lengths) <= HELD_BYTES

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
        return Sound((waveform[0].clamp(-1, 1) * 32767).round().to(torch.int16), statistics)
