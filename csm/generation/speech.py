"""Generated speech: its audio and codes, why each of its turns ended, and when its audio arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.spoken_turn import Ending
from csm.generation.voices import Voice

# The first sample above this share of a speech's peak is its first audible one: -40 dB.
AUDIBLE = 10 ** (-40 / 20)


class Timing(NamedTuple):
    """When the audio of a speech arrived, and how the speech ended. Times are seconds from the request.

    Attributes:
        first_audio_s: Time of the first chunk; the time of the end for a speech without audio.
        first_sound_s: Time of the chunk with the first sample above -40 dB of the speech's peak; None for
            silence.
        generation_s: Time at which the stream ended.
        audio_s: Length of the audio, in seconds.
        frames: Number of frames of codes, pauses between sentences included.
        ended: "limit" if a turn was cut off, else "stopped" if the stream was closed during a turn, else
            "end_code".
    """

    first_audio_s: float
    first_sound_s: float | None
    generation_s: float
    audio_s: float
    frames: int
    ended: Ending


class StreamClock:
    """Records when the chunks of a stream arrive.

    Args:
        clock: Returns seconds; the request is made when this object is constructed.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._began = clock, clock()
        self._ended: float | None = None
        self._arrivals: list[float] = []
        self._peaks: list[Tensor] = []
        self._samples = 0

    def add(self, chunk: Float[Tensor, "1 S"]) -> None:
        """Records the arrival of a chunk of at least one sample."""
        self._arrivals.append(self._clock() - self._began)
        self._peaks.append(chunk.abs().amax())
        self._samples += chunk.shape[1]

    def stop(self) -> None:
        """Records the end of the stream; only the first call counts."""
        if self._ended is None:
            self._ended = self._clock() - self._began

    def timing(self, sample_rate: int, frames: int, ended: Ending) -> Timing:
        """Returns the times of the stream, which ends now if `stop` was not called."""
        self.stop()
        assert self._ended is not None
        first_sound = None
        if self._peaks and float(max(self._peaks)) > 0:
            peaks = torch.stack(self._peaks)
            first_sound = round(self._arrivals[int((peaks > AUDIBLE * peaks.max()).int().argmax())], 4)
        return Timing(
            first_audio_s=round(self._arrivals[0] if self._arrivals else self._ended, 4),
            first_sound_s=first_sound,
            generation_s=round(self._ended, 4),
            audio_s=round(self._samples / sample_rate, 4),
            frames=frames,
            ended=ended,
        )


class Speech(NamedTuple):
    """Generated speech.

    Attributes:
        waveform: float32 [1, S] on the CPU, full scale = 1.
        codes: int64 [K, T], the frames that the waveform was decoded from, pauses between sentences included.
        sample_rate: Sample rate in Hz.
        voice: Voice of the speech.
        endings: Reason why each turn ended; one turn per sentence.
        timing: Times from the request on.
    """

    waveform: Tensor
    codes: Tensor
    sample_rate: int
    voice: Voice
    endings: tuple[Ending, ...]
    timing: Timing


def joined_codes(frames: Sequence[Int[Tensor, " K"]], num_codebooks: int) -> Int[Tensor, "K T"]:
    """Returns frames side by side; T may be 0."""
    return torch.stack([*frames], dim=1) if frames else torch.zeros(num_codebooks, 0, dtype=torch.int64)


def speech_ending(endings: Iterable[Ending]) -> Ending:
    """Returns "limit" if it occurs, else "stopped" if it occurs, else "end_code"."""
    found = {*endings}
    return "limit" if "limit" in found else "stopped" if "stopped" in found else "end_code"
