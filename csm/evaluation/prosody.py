"""How it is said: pitch, loudness and pauses, compared frame by frame or as distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csm.evaluation.codec import equal_lengths
from csm.evaluation.judge import JUDGE_SAMPLE_RATE, Clip, optional_import, package_version, prepared
from csm.evaluation.statistics import MetricInfo, Score, failed, judged

FRAME = 0.01  # seconds
FLOOR_HZ, CEILING_HZ = 60.0, 600.0
SHORTEST_PAUSE = 0.2  # seconds; under it a closure of a consonant, not a pause
ENERGY_FLOOR_DB = -80.0


@dataclass(frozen=True, kw_only=True)
class Contour:
    """Pitch and loudness of one clip every 10 ms.

    ``f0`` [T] in Hz, 0 where unvoiced; ``energy`` [T] in dB of full scale; same frames.
    """

    f0: np.ndarray
    energy: np.ndarray

    @property
    def voiced(self) -> np.ndarray:
        """Which frames [T] are voiced."""
        return self.f0 > 0

    @property
    def log_f0(self) -> np.ndarray:
        """Pitch of the voiced frames in cents above 1 Hz (1200 log2 F0)."""
        return 1200.0 * np.log2(self.f0[self.voiced])


def contour(waveform: np.ndarray, sample_rate: int = JUDGE_SAMPLE_RATE) -> Contour:
    """Pitch (Praat's autocorrelation method, Boersma 1993, 60 to 600 Hz) and energy of ``waveform`` [S].

    Raises:
        JudgeUnavailable: praat-parselmouth is missing.
        ValueError: the clip is shorter than three pitch periods at the floor (0.05 s).
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


def paired_prosody(reference: Contour, other: Contour) -> dict[str, float]:
    """Frame-by-frame differences of two contours aligned in time.

    Pitch is compared only on frames voiced in both; a frame that one calls unvoiced has no pitch, and
    counting its 0 Hz would measure voicing twice. F0 numbers are NaN (a failure to whoever counts)
    where fewer than 5 frames are voiced in both.

    Returns:
        ``f0_rmse`` in cents, ``f0_correlation`` of log-F0, ``gross_pitch_error`` (share of common
        frames more than 20 % off), ``voicing_error`` (share of frames where voicing differs),
        ``energy_correlation``.
    """
    length = min(len(reference.f0), len(other.f0))
    voiced, other_voiced = reference.voiced[:length], other.voiced[:length]
    common = voiced & other_voiced
    result = {
        "f0_rmse": math.nan,
        "f0_correlation": math.nan,
        "gross_pitch_error": math.nan,
        "voicing_error": float(np.mean(voiced != other_voiced)),
        "energy_correlation": _correlation(reference.energy[:length], other.energy[:length]),
    }
    if common.sum() >= 5:
        ratio = other.f0[:length][common] / reference.f0[:length][common]
        result["f0_rmse"] = float(np.sqrt(np.mean((1200.0 * np.log2(ratio)) ** 2)))
        result["gross_pitch_error"] = float(np.mean(np.abs(ratio - 1.0) > 0.2))
        result["f0_correlation"] = _correlation(
            np.log(reference.f0[:length][common]), np.log(other.f0[:length][common])
        )
    return result


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    if len(left) < 3 or left.std() == 0 or right.std() == 0:
        return math.nan
    return float(np.corrcoef(left, right)[0, 1])


def pause_lengths(shape: Contour) -> np.ndarray:
    """Pauses inside the clip in seconds: runs of 200 ms or more, 25 dB under the loudest frame."""
    quiet = shape.energy < shape.energy.max() - 25.0
    loud = np.flatnonzero(~quiet)
    quiet = quiet[loud[0] : loud[-1] + 1]  # leading and trailing silence are no pauses
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    lengths = (edges[1::2] - edges[::2]) * FRAME
    return lengths[lengths >= SHORTEST_PAUSE]


def clip_statistics(shape: Contour) -> dict[str, float]:
    """Median pitch (Hz), range (5th to 95th percentile, cents), voiced share, energy spread (dB).

    Raises:
        ValueError: fewer than 5 voiced frames.
    """
    if shape.voiced.sum() < 5:
        raise ValueError("fewer than 5 voiced frames")
    low, high = np.percentile(shape.log_f0, [5, 95])
    loud = shape.energy > shape.energy.max() - 40.0
    return {
        "f0_median": float(np.median(shape.f0[shape.voiced])),
        "f0_range": float(high - low),
        "voiced_share": float(shape.voiced.mean()),
        "energy_spread": float(shape.energy[loud].std()),
    }


def clip_contours(clips: Sequence[Clip]) -> list[Contour | str]:
    """The contour of each clip, or the reason why there is none."""
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


def statistic_scores(clips: Sequence[Clip], contours: Sequence[Contour | str]) -> dict[str, list[Score]]:
    """Scores of ``f0_median``, ``f0_range`` and ``voiced_share`` for each clip."""
    names = ("f0_median", "f0_range", "voiced_share")
    result: dict[str, list[Score]] = {name: [] for name in names}
    for clip, shape in zip(clips, contours, strict=True):
        try:
            if isinstance(shape, str):
                raise ValueError(shape)
            values = clip_statistics(shape)
        except ValueError as error:
            for name in names:
                result[name].append(failed(clip.id, clip.conversation, str(error)))
            continue
        for name in names:
            result[name].append(judged(clip.id, clip.conversation, values[name]))
    return result


def paired_scores(
    recordings: Sequence[Clip],
    others: Sequence[Clip],
    contours: Sequence[tuple[Contour | str, Contour | str]],
) -> dict[str, list[Score]]:
    """Scores of every value of :func:`paired_prosody`, resynthesis against recording."""
    names = ("f0_rmse", "f0_correlation", "gross_pitch_error", "voicing_error", "energy_correlation")
    result: dict[str, list[Score]] = {name: [] for name in names}
    for recording, clip, (reference, shape) in zip(recordings, others, contours, strict=True):
        try:
            if isinstance(reference, str):
                raise ValueError(f"recording: {reference}")
            if isinstance(shape, str):
                raise ValueError(shape)
            first, second = prepared(recording), prepared(clip)
            assert first.waveform is not None and second.waveform is not None
            equal_lengths(first.waveform, second.waveform, JUDGE_SAMPLE_RATE)
            values = paired_prosody(reference, shape)
        except ValueError as error:
            for name in names:
                result[name].append(failed(clip.id, clip.conversation, str(error)))
            continue
        for name in names:
            value = values[name]
            result[name].append(
                judged(clip.id, clip.conversation, value)
                if math.isfinite(value)
                else failed(clip.id, clip.conversation, "fewer than 5 frames voiced in both")
            )
    return result


def prosody_metrics() -> dict[str, MetricInfo]:
    """Pitch statistics, and the frame-by-frame comparison of resynthesis with recording."""
    shared: dict[str, Any] = {
        "area": "prosody",
        "evaluator": f"praat-parselmouth {package_version('praat-parselmouth')}, 60 to 600 Hz",
        "sample_rate": JUDGE_SAMPLE_RATE,
    }
    rows: list[tuple[str, str, str, str, float | None, str]] = [
        ("f0_median", "Median pitch", "Hz", "nearer_to_recording", None, "median F0 of voiced frames"),
        ("f0_range", "Pitch range", "cents", "nearer_to_recording", None, "5th to 95th percentile of F0"),
        ("voiced_share", "Voiced share", "share of frames", "nearer_to_recording", None, "voiced frames"),
        ("f0_rmse", "F0 RMSE", "cents", "lower", None, "on frames voiced in both only"),
        ("f0_correlation", "F0 correlation", "-1 to 1", "higher", -1.0, "log-F0, frames voiced in both"),
        ("gross_pitch_error", "Gross pitch error", "share of frames", "lower", 1.0, "frames over 20 % off"),
        ("voicing_error", "Voicing error", "share of frames", "lower", 1.0, "voiced in one only"),
        ("energy_correlation", "Energy correlation", "-1 to 1", "higher", -1.0, "energy in dB, all frames"),
    ]
    return {
        name: MetricInfo(
            name=name,
            title=title,
            unit=unit,
            direction=direction,
            worst=worst,
            definition=definition,
            **shared,
        )
        for name, title, unit, direction, worst, definition in rows
    }


def distance_metrics() -> list[tuple[MetricInfo, Callable[[Contour], np.ndarray]]]:
    """Wasserstein-1 distances between two sets of clips, and the values of a clip that each pools."""
    shared: dict[str, Any] = {
        "area": "prosody",
        "direction": "lower",
        "evaluator": f"praat-parselmouth {package_version('praat-parselmouth')}, 60 to 600 Hz",
        "sample_rate": JUDGE_SAMPLE_RATE,
    }

    def ranges(shape: Contour) -> np.ndarray:
        return np.diff(np.percentile(shape.log_f0, [5, 95])) if shape.voiced.sum() >= 5 else np.zeros(0)

    return [
        (
            MetricInfo(
                name="f0_distance",
                title="Pitch distribution, W1",
                unit="cents",
                definition="Wasserstein-1 of log-F0 of all voiced frames, from the recordings",
                **shared,
            ),
            lambda shape: shape.log_f0,
        ),
        (
            MetricInfo(
                name="f0_range_distance",
                title="Pitch range, W1",
                unit="cents",
                definition="Wasserstein-1 of the clips' pitch ranges, from the recordings",
                **shared,
            ),
            ranges,
        ),
        (
            MetricInfo(
                name="pause_distance",
                title="Pause length, W1",
                unit="ms",
                definition="Wasserstein-1 of the lengths of pauses of 200 ms or more inside clips, from the "
                "recordings",
                **shared,
            ),
            lambda shape: 1000.0 * pause_lengths(shape),
        ),
    ]
