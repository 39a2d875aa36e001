"""Whether speech after a silence is the reply that was interrupted, or another one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SAME = 0.9  # likeness from which two stretches are one recording
LONGEST_S, SHORTEST_S, FADE_S = 0.4, 0.1, 0.01


def likeness(stretch: Float[Tensor, " N"], reply: Float[Tensor, " S"]) -> float:
    """Returns the largest normalised correlation of a stretch with one of the same length in a reply.

    Returns:
        1 where the reply contains the stretch at some loudness; 0 for silence, and where it is longer.
    """
    count = len(stretch)
    if not 0 < count <= len(reply) or not bool(stretch.any()):
        return 0.0
    stretch, reply = stretch.double(), reply.double()
    size = len(reply) + count - 1
    spectrum = torch.fft.rfft(reply, size) * torch.fft.rfft(stretch.flip(0), size)
    products = torch.fft.irfft(spectrum, size)[count - 1 : len(reply)]
    sums = torch.cat([reply.new_zeros(1), reply.square().cumsum(0)])
    powers = sums[count:] - sums[:-count]
    # Quieter than a hundredth of the reply's mean is silence, and as like as rounding makes it.
    floor = 1e-4 * float(reply.square().mean()) * count
    found = products / (stretch.norm() * powers.clamp_min(max(floor, 1e-12)).sqrt())
    return float(found.max())


def stretch_after(audio: Float[Tensor, " S"], begin: float, limit: float, rate: int) -> Float[Tensor, " N"]:
    """Returns the speech that begins at a time: at most 0.4 s and up to `limit`, but at least 0.1 s.

    Args:
        audio: Audio of the voice.
        begin: Seconds of its first audible sample.
        limit: Seconds at which it falls silent.
        rate: Samples per second.
    """
    end = max(begin + SHORTEST_S, min(limit, begin + LONGEST_S))
    return audio[round((begin + FADE_S) * rate) : round(end * rate)]
