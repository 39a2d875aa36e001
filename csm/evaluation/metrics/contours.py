"""Pitch and loudness contours of clips, and what is read from one contour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np

from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, prepared
from csm.evaluation.core.evaluators import optional_import

FRAME = 0.01  # seconds
FLOOR_HZ, CEILING_HZ = 60.0, 600.0
SHORTEST_PAUSE = 0.2  # seconds; a shorter one is the closure of a consonant
ENERGY_FLOOR_DB = -80.0
QUIET_DB = 25.0  # under the loudest frame: a pause, where it lasts
FEWEST_VOICED = 5  # frames, for statistics of pitch
TOO_UNVOICED = f"fewer than {FEWEST_VOICED} voiced frames"


@dataclass(frozen=True, kw_only=True)
class Contour:
    """Pitch and loudness of one clip every 10 ms.

    Attributes:
        f0: Pitch [T] in Hz, 0 where unvoiced.
        energy: Energy [T] of the same frames in dB of full scale.
    """

    f0: np.ndarray
    energy: np.ndarray

    @property
    def voiced(self) -> np.ndarray:
        """Whether each frame [T] is voiced."""
        return self.f0 > 0

    @property
    def log_f0(self) -> np.ndarray:
        """Pitch of the voiced frames in cents above 1 Hz (1200 log2 F0)."""
        return 1200.0 * np.log2(self.f0[self.voiced])


def contour(waveform: np.ndarray, sample_rate: int = EVALUATION_RATE) -> Contour:
    """Computes pitch (Praat's autocorrelation method, Boersma 1993, 60 to 600 Hz) and energy of a waveform
    [S].

    Raises:
        EvaluatorUnavailable: praat-parselmouth is not installed.
        ValueError: The clip is shorter than three pitch periods at the floor (0.05 s).
    """
    library = optional_import("parselmouth", package="praat-parselmouth", metric="pitch")
    if len(waveform) / sample_rate < 3.0 / FLOOR_HZ + 2 * FRAME:
        raise ValueError("the clip is too short for a pitch contour")
    pitch = library.Sound(waveform.astype(np.float64), sample_rate).to_pitch_ac(
        time_step=FRAME, pitch_floor=FLOOR_HZ, pitch_ceiling=CEILING_HZ
    )
    f0 = np.asarray(pitch.selected_array["frequency"], dtype=np.float64)
    centres = np.rint(pitch.xs() * sample_rate).astype(int)
    half = round(0.0125 * sample_rate)
    padded = np.pad(waveform.astype(np.float64), half)
    total = np.concatenate([[0.0], np.cumsum(padded**2)])
    power = (total[centres + 2 * half] - total[centres]) / (2 * half)
    return Contour(f0=f0, energy=10.0 * np.log10(np.maximum(power, 10.0 ** (ENERGY_FLOOR_DB / 10.0))))


class Pause(NamedTuple):
    """A pause: its length in seconds, and the share of the clip's speech before it, pauses not counted."""

    length: float
    place: float


def pauses(shape: Contour) -> list[Pause]:
    """Finds pauses inside the clip: runs of 200 ms or more, 25 dB under the loudest frame."""
    quiet = shape.energy < shape.energy.max() - QUIET_DB
    loud = np.flatnonzero(~quiet)
    quiet = quiet[loud[0] : loud[-1] + 1]  # leading and trailing silence are no pauses
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    spoken = np.concatenate([[0], np.cumsum(~quiet)])
    return [
        Pause(length=float((end - start) * FRAME), place=float(spoken[start] / spoken[-1]))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        if (end - start) * FRAME >= SHORTEST_PAUSE
    ]


def pause_lengths(shape: Contour) -> np.ndarray:
    """Returns the lengths of `pauses` in seconds."""
    return np.array([pause.length for pause in pauses(shape)])


def clip_statistics(shape: Contour) -> dict[str, float]:
    """Computes median pitch (Hz), range (5th to 95th percentile, cents), voiced share, energy spread (dB).

    Raises:
        ValueError: The clip has fewer than 5 voiced frames.
    """
    if shape.voiced.sum() < FEWEST_VOICED:
        raise ValueError(TOO_UNVOICED)
    low, high = np.percentile(shape.log_f0, [5, 95])
    loud = shape.energy > shape.energy.max() - 40.0
    return {
        "f0_median": float(np.median(shape.f0[shape.voiced])),
        "f0_range": float(high - low),
        "voiced_share": float(shape.voiced.mean()),
        "energy_spread": float(shape.energy[loud].std()),
    }


def clip_contours(clips: Sequence[Clip]) -> list[Contour | str]:
    """Computes the contour of each clip, or the reason why there is none."""
    contours: list[Contour | str] = []
    for item in clips:
        clip = prepared(item)
        if clip.waveform is None:
            contours.append(clip.reason or "no audio")
            continue
        try:
            contours.append(contour(clip.waveform, clip.sample_rate))
        except ValueError as error:
            contours.append(str(error))
    return contours


class Contours:
    """Contours of clip sets, computed once for all metrics that read them."""

    def __init__(self) -> None:
        self._found: dict[ClipSet, list[Contour | str]] = {}
        self._lock = Lock()

    def of(self, clips: ClipSet) -> list[Contour | str]:
        """Returns the contour of each clip of the set, or the reason why there is none."""
        with self._lock:  # metrics run in parallel
            if clips not in self._found:
                self._found[clips] = clip_contours(clips.clips)
            return self._found[clips]
