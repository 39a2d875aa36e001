"""Prosodic style of a clip: seven numbers, standardised per speaker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.metrics.contours import FEWEST_VOICED, FRAME, TOO_UNVOICED, Contour

STYLE = ("pitch", "pitch_range", "final_rise", "loudness", "loudness_spread", "voiced_share", "tempo")
AROUSAL = (0, 1, 3, 6)  # pitch, pitch range, loudness, tempo rise with arousal (Scherer 2003)
FEWEST_TURNS = 8  # of a speaker, to standardise by the speaker and not by all speakers


def style(shape: Contour) -> np.ndarray:
    """Computes seven prosodic numbers [7] of a clip, named in `STYLE`.

    Raises:
        ValueError: The clip has fewer than 5 voiced frames.
    """
    if shape.voiced.sum() < FEWEST_VOICED:
        raise ValueError(TOO_UNVOICED)
    cents = shape.log_f0
    low, high = np.percentile(cents, [5, 95])
    cut = max(1, (2 * len(cents)) // 3)
    final = cents[cut:] if len(cents[cut:]) else cents
    loud = shape.energy[shape.energy > shape.energy.max() - 40.0]
    starts = int((np.diff(shape.voiced.astype(np.int8)) == 1).sum()) + int(shape.voiced[0])
    return np.array(
        [
            np.median(cents),
            high - low,
            np.median(final) - np.median(cents[:cut]),
            loud.mean(),
            loud.std(),
            shape.voiced.mean(),
            starts / (len(shape.f0) * FRAME),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class StyleScale:
    """Mean and standard deviation of style: of each speaker with enough turns, and of all speakers."""

    speakers: dict[str, tuple[np.ndarray, np.ndarray]]
    all_speakers: tuple[np.ndarray, np.ndarray]

    def standardised(self, values: np.ndarray, speaker: str) -> np.ndarray:
        """Standardises a style [7] by the speaker's mean and standard deviation; limited to 4 deviations."""
        mean, spread = self.speakers.get(speaker, self.all_speakers)
        return np.clip((values - mean) / spread, -4.0, 4.0)


def style_scale(styles: Sequence[tuple[str, np.ndarray]]) -> StyleScale:
    """Computes the scale from `(speaker, style [7])` of training turns.

    Raises:
        NotMeasurable: There are fewer than `FEWEST_TURNS` turns.
    """
    if len(styles) < FEWEST_TURNS:
        raise NotMeasurable(
            f"style of replies: {len(styles)} training turns; standardising style needs {FEWEST_TURNS}"
        )
    values = np.array([value for _, value in styles])
    spread = values.std(axis=0) + 1e-6
    by_speaker: dict[str, list[np.ndarray]] = {}
    for speaker, value in styles:
        by_speaker.setdefault(speaker, []).append(value)
    return StyleScale(
        speakers={
            name: (np.mean(own, axis=0), np.maximum(np.std(own, axis=0), 0.3 * spread))
            for name, own in by_speaker.items()
            if len(own) >= FEWEST_TURNS
        },
        all_speakers=(values.mean(axis=0), spread),
    )


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Computes the cosine of two vectors; NaN where one is zero."""
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size > 0 else math.nan


def arousal(standardised: np.ndarray) -> float:
    """Computes the mean of standardised pitch, pitch range, loudness and tempo of a style [7]."""
    return float(standardised[list(AROUSAL)].mean())


def concordance(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Computes the concordance correlation coefficient (Lin 1989), -1 to 1; None where nothing varies."""
    first, second = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if len(first) != len(second) or len(first) < 2:
        return None
    below = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    covariance = ((first - first.mean()) * (second - second.mean())).mean()
    return float(2.0 * covariance / below) if below > 0 else None
