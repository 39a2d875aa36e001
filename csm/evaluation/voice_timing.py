"""When speech comes out of a stream of audio: its first chunk, its first audible sound, its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# The first sample above this share of the line's peak is its first audible one.
AUDIBLE = 10 ** (-40 / 20)


class Timing(NamedTuple):
    """How long a line took, in seconds from the request, measured on the stream of its audio.

    Attributes:
        first_chunk_s: When the first chunk of audio came.
        first_sound_s: When the chunk came that holds the first sample above -40 dB of the line's peak; None
            for a silent line.
        generation_s: When the last chunk came. audio_s: Seconds of audio.
    """

    first_chunk_s: float
    first_sound_s: float | None
    generation_s: float
    audio_s: float


def timed(stream: Iterator[Tensor], sample_rate: int, clock: Callable[[], float]) -> tuple[Tensor, Timing]:
    """Everything that a stream hands out, [1, S], and when.

    Args:
        stream: Waveforms [1, S].
        sample_rate: Hz.
        clock: Seconds since the request.
    """
    chunks, came = [], []
    for chunk in stream:
        chunks.append(chunk)
        came.append(clock())
    waveform = torch.cat(chunks, dim=1)
    loud = waveform[0].abs()
    first_sound = None
    if float(loud.max()) > 0:
        first = int((loud > AUDIBLE * loud.max()).int().argmax())
        ends = torch.tensor([chunk.shape[1] for chunk in chunks]).cumsum(0)
        first_sound = round(came[int(torch.searchsorted(ends, first, right=True))], 4)
    seconds = round(waveform.shape[1] / sample_rate, 4)
    return waveform, Timing(round(came[0], 4), first_sound, round(came[-1], 4), seconds)
