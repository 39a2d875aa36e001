"""Timing of a stream of audio: its first chunk, its first audible sound, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# A sample above this share of the line's peak is audible.
AUDIBLE = 10 ** (-40 / 20)


class Timing(NamedTuple):
    """Times of a line in seconds from the request, measured on the stream of its audio.

    Attributes:
        first_chunk_s: Time of the first chunk of audio.
        first_sound_s: Time of the chunk with the first sample above -40 dB of the line's peak; None for a
            silent line.
        generation_s: Time of the last chunk. audio_s: Seconds of audio.
    """

    first_chunk_s: float
    first_sound_s: float | None
    generation_s: float
    audio_s: float


def timed(stream: Iterator[Tensor], sample_rate: int, clock: Callable[[], float]) -> tuple[Tensor, Timing]:
    """Reads a whole stream; returns its audio [1, S] and its timing.

    Args:
        stream: Chunks of audio [1, S].
        sample_rate: Rate in Hz.
        clock: Returns the seconds since the request.
    """
    chunks, times = [], []
    for chunk in stream:
        chunks.append(chunk)
        times.append(clock())
    waveform = torch.cat(chunks, dim=1)
    loud = waveform[0].abs()
    first_sound = None
    if float(loud.max()) > 0:
        first = int((loud > AUDIBLE * loud.max()).int().argmax())
        ends = torch.tensor([chunk.shape[1] for chunk in chunks]).cumsum(0)
        first_sound = round(times[int(torch.searchsorted(ends, first, right=True))], 4)
    seconds = round(waveform.shape[1] / sample_rate, 4)
    return waveform, Timing(round(times[0], 4), first_sound, round(times[-1], 4), seconds)
