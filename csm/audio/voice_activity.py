"""Speech of one channel by silero-vad: the one definition of an interval of speech, block by block.

An interval begins at the first window with a probability of 0.5, ends before a silence (below 0.35) of 0.1 s,
and has more than 0.1 s. It is not padded: padding moves every onset and offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from csm.audio.resampling import BlockResampler

RATE = 16_000  # required by silero-vad
WINDOW = 512
SPEECH, SILENCE = 0.5, 0.35  # probabilities
SHORTEST_SILENCE, SHORTEST_SPEECH = 0.1, 0.1  # seconds

Interval = tuple[float, float]


def load_detector() -> Any:
    """Returns a new silero-vad, which holds the state of one stream; its weights travel in the package.

    Raises:
        ImportError: The package is missing.
    """
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    detector = load_silero_vad()
    torch.set_num_threads(threads)  # importing it sets one thread for the whole process
    return detector


class SpeechProbabilities:
    """Probability of speech, and mean power, of each window of 32 ms of one channel.

    Args:
        detector: `load_detector`, of this stream alone.
        sample_rate: Rate of the channel in Hz.
    """

    def __init__(self, detector: Any, sample_rate: int) -> None:
        self._detector = detector
        self._detector.reset_states()
        self._resampler = BlockResampler(sample_rate, RATE)
        self._rest = torch.zeros(0)
        self.values: list[float] = []
        self.powers: list[float] = []  # mean square of each window
        self.samples = 0  # at 16 kHz

    def push(self, block: Tensor) -> None:
        """Takes the next samples float32 [S], any S."""
        self._take(self._resampler.push(block), last=False)

    def finish(self) -> None:
        """Completes the last window with silence."""
        self._take(self._resampler.finish(), last=True)

    def intervals(self) -> list[Interval]:
        """Returns the speech, in seconds."""
        return speech_intervals(self.values, self.samples)

    @torch.no_grad()
    def _take(self, signal: Tensor, *, last: bool) -> None:
        self.samples += len(signal)
        signal = torch.cat([self._rest, signal])
        if last:
            signal = torch.nn.functional.pad(signal, (0, -len(signal) % WINDOW))
        whole = len(signal) // WINDOW * WINDOW
        self._rest = signal[whole:]
        for window in signal[:whole].split(WINDOW) if whole else ():
            self.values.append(float(self._detector(window, RATE)))
            self.powers.append(float(window.square().mean()))


def speech_intervals(probabilities: Sequence[float], samples: int) -> list[Interval]:
    """Returns the speech of a channel.

    Args:
        probabilities: Probability of speech in each window.
        samples: Length of the channel at 16 kHz.

    Returns:
        (start, end) in seconds, in order: those of silero-vad's `get_speech_timestamps` without padding.
    """
    found: list[tuple[int, int]] = []
    start = quiet = -1  # samples; -1 is none
    for number, probability in enumerate(probabilities):
        now = number * WINDOW
        if probability >= SPEECH:
            quiet = -1
            start = now if start < 0 else start
        elif probability < SILENCE and start >= 0:
            quiet = now if quiet < 0 else quiet
            if now - quiet >= SHORTEST_SILENCE * RATE:
                found.append((start, quiet))
                start = quiet = -1
    if start >= 0:
        found.append((start, samples))
    return [(a / RATE, min(b, samples) / RATE) for a, b in found if b - a > SHORTEST_SPEECH * RATE]
