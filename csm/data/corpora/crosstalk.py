"""Microphones that leak: one speaker's voice on the channel of another one makes no turns there.

Two headsets in one room record both speakers. While one speaks alone, the level of the other channel stands
in a fixed ratio to the speaker's own: a window of speech near that ratio holds the leak, one well above it
another speaker. The ratio is found per recording, so that gains may differ between the channels.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import numpy as np

from csm.audio.voice_activity import RATE, SILENCE, SPEECH, WINDOW

# A window within this of a channel's loudest speech holds its own speaker (or both).
OWN_DB, OWN_QUANTILE = 12.0, 95
ALONE_QUANTILE = 25  # of the ratio over these windows: somebody else speaks in the other ones
FEWEST = 30  # windows of own speech, about a second
# Found on composed conversations (docs/MEASURED.md): a leak varies by this, and two speakers whose ratios are
# nearer than `LEAST_APART_DB` cannot be separated.
MARGIN_DB, LEAST_APART_DB = 6.0, 6.0
NEAR = 3  # windows around the speech of the other channel


class Leak(NamedTuple):
    """Speech of channel `source` on channel `channel`: level relative to the source, seconds."""

    channel: int
    source: int
    decibel: float
    seconds: float


def without_crosstalk(probabilities: np.ndarray, powers: np.ndarray) -> tuple[np.ndarray, list[Leak]]:
    """Sets the probability of speech to 0 where a channel holds the speaker of another one.

    Args:
        probabilities: Probability of speech [C, W] in each window of each channel.
        powers: Mean power of the windows [C, W].

    Returns:
        The probabilities, and the leaks.

    Raises:
        ValueError: Two channels hold the same speakers at the same level.
    """
    levels = 10 * np.log10(_smooth(powers) + 1e-12)
    kept, leaks = probabilities.copy(), []
    for channel, source in permutations(range(len(levels)), 2):
        alone = _ratio(probabilities, levels, source, channel)
        if alone is None:
            continue
        back = _ratio(probabilities, levels, channel, source)
        if back is not None and alone + back > -LEAST_APART_DB and max(alone, back) < LEAST_APART_DB / 2:
            raise ValueError(
                f"channels {min(source, channel)} and {max(source, channel)} hold the same speech at the "
                "same level: expected one speaker a channel; mix them to one channel"
            )
        quieter = levels[channel] - levels[source] < _limit(alone, back)
        leaking = quieter & _near(probabilities[source] >= SILENCE)
        lost = int((leaking & (kept[channel] >= SPEECH)).sum())
        kept[channel][leaking] = 0
        if lost:
            leaks.append(Leak(channel, source, alone, lost * WINDOW / RATE))
    return kept, leaks


def _limit(alone: float, back: float | None) -> float:
    """Returns the level of a channel relative to a source, in dB, below which it holds a leak.

    Args:
        alone: `_ratio` of this channel to the source.
        back: That of the source to this channel, None where this channel has no speech.
    """
    if back is not None and alone + back <= -LEAST_APART_DB:
        return min(alone + MARGIN_DB, (alone - back) / 2)
    return alone + MARGIN_DB if alone < 0 else -np.inf  # only the louder of the two has a speaker


def _ratio(probabilities: np.ndarray, levels: np.ndarray, source: int, channel: int) -> float | None:
    """Returns the level of `channel` relative to `source` in dB while the speaker of `source` is alone."""
    spoken = probabilities[source] >= SPEECH
    if spoken.sum() < FEWEST:
        return None
    own = spoken & (levels[source] > np.percentile(levels[source][spoken], OWN_QUANTILE) - OWN_DB)
    return float(np.percentile((levels[channel] - levels[source])[own], ALONE_QUANTILE))


def _smooth(powers: np.ndarray) -> np.ndarray:
    """Returns the mean of each window and its neighbours."""
    padded = np.pad(powers, ((0, 0), (1, 1)), mode="edge")
    return (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3


def _near(active: np.ndarray) -> np.ndarray:
    return np.convolve(active, np.ones(2 * NEAR + 1), "same") > 0
