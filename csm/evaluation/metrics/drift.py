"""Drift of a voice over the turns of a conversation: the slope of its similarity to its mean voice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csm.evaluation.core.statistics import bootstrap_repeats, interval, seed_for


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Slope of similarity over the turns of voices.

    Attributes:
        slope: Change of the cosine per turn. ci95: Its 95 % interval, None with too few turns.
        turns: Number of turns. voices: Number of (dialogue, speaker) pairs with at least two turns.
    """

    slope: float
    ci95: list[float] | None
    turns: int
    voices: int


def drift(
    series: Sequence[Sequence[tuple[float, float]]], *, repeats: int = 1000, seed: int = 0
) -> Drift | None:
    """Computes the common slope of several voices, each with its own level.

    Least squares on (turn number, similarity) after removing each voice's mean of both; the interval is a
    bootstrap of turns inside each voice, which leaves the number of turns of a voice as it is.

    Args:
        series: `(turn, similarity)` pairs of each voice of each dialogue.
        repeats, seed: Repeats and seed of the bootstrap.

    Returns:
        None where no voice has two turns.
    """
    voices = [np.array(points, dtype=np.float64) for points in series if len(points) >= 2]
    slope = _common_slope(voices)
    if slope is None:
        return None
    generator = np.random.default_rng(seed_for(seed, "drift"))

    def resampled(_: list[int]) -> float | None:
        return _common_slope([voice[generator.integers(0, len(voice), len(voice))] for voice in voices])

    draws = bootstrap_repeats([0], resampled, repeats=repeats, seed=seed)
    enough = sum(len(voice) for voice in voices) - len(voices) >= 3
    return Drift(
        slope=slope,
        ci95=interval(draws) if enough else None,
        turns=sum(len(voice) for voice in voices),
        voices=len(voices),
    )


def _common_slope(voices: Sequence[np.ndarray]) -> float | None:
    centred = [voice - voice.mean(axis=0) for voice in voices]
    below = sum(float((voice[:, 0] ** 2).sum()) for voice in centred)
    above = sum(float((voice[:, 0] * voice[:, 1]).sum()) for voice in centred)
    return above / below if below > 0 else None
