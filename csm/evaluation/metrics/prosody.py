"""Prosody: pitch statistics, frame-by-frame comparison with the recording, distances of distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, prepared
from csm.evaluation.core.evaluators import optional_import, package_version
from csm.evaluation.core.metric import Measurement, Metric, MetricInfo, Pooled, Score, Scores, failed, scored
from csm.evaluation.core.statistics import pairs_by_conversation
from csm.evaluation.metrics.contours import (
    FEWEST_VOICED,
    TOO_UNVOICED,
    Contour,
    Contours,
    clip_statistics,
    pause_lengths,
)
from csm.evaluation.metrics.distributions import wasserstein_1
from csm.evaluation.metrics.fidelity import equal_lengths

STATISTICS = ("f0_median", "f0_range", "voiced_share")
PAIRED = ("f0_rmse", "f0_correlation", "gross_pitch_error", "voicing_error", "energy_correlation")
DISTANCE_REPEATS = 200  # each repeat of the bootstrap sorts every frame again


class Prosody(Metric):
    """Pitch statistics of all clips; resynthesis against the recording by frame; distances of distributions.

    Args:
        contours: Contours, shared with other metrics.
    """

    def __init__(self, contours: Contours) -> None:
        super().__init__()
        optional_import("parselmouth", package="praat-parselmouth", metric="prosody")
        self.contours, self.infos = contours, prosody_infos()

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Measurement]:
        """Yields statistics and, for all but the recording, the comparison with it."""
        shapes = self.contours.of(clips)
        for name, scores in statistic_scores(clips.clips, shapes).items():
            yield Scores(info=self.infos[name], scores=scores)
        if recording is None or clips is recording:
            return
        real = self.contours.of(recording)
        if not clips.generated:  # generated speech is not aligned in time with the recording
            for name, scores in paired_scores(recording.clips, clips.clips, real, shapes).items():
                yield Scores(info=self.infos[name], scores=scores)
        groups, failures = pairs_by_conversation(clips.clips, real, [_voiced(shape) for shape in shapes])
        for info, values in distance_infos():
            yield Pooled(
                info=info,
                groups=groups,
                statistic=_distance(values),
                n_in=len(clips.clips),
                failures=failures,
                most_repeats=DISTANCE_REPEATS,
            )


def _voiced(shape: Contour | str) -> Contour | str:
    """Returns a contour, or the reason why it has no pitch: a distance over all clips has no value of it."""
    return TOO_UNVOICED if isinstance(shape, Contour) and shape.voiced.sum() < FEWEST_VOICED else shape


def _distance(values: Callable[[Contour], np.ndarray]) -> Callable[[list], float | None]:
    """Wasserstein-1 distance of the values that the contours of a list of groups hold."""

    def distance(picked: list[list[tuple[Contour, Contour]]]) -> float | None:
        pairs = [pair for group in picked for pair in group]
        left = np.concatenate([values(first) for first, _ in pairs])
        right = np.concatenate([values(second) for _, second in pairs])
        return wasserstein_1(left, right) if left.size and right.size else None

    return distance


def paired_prosody(reference: Contour, other: Contour) -> dict[str, float]:
    """Compares two contours, aligned in time, frame by frame.

    Pitch is compared only on frames voiced in both: a frame that is unvoiced in one has no pitch there, and
    counting its 0 Hz would measure voicing twice.

    Returns:
        "f0_rmse" in cents, "f0_correlation" of log-F0, "gross_pitch_error" (share of common frames more than
        20 %
        off), "voicing_error" (share of frames where voicing differs), "energy_correlation". Those of F0 are
        NaN where fewer than 5 frames are voiced in both.
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


def statistic_scores(clips: Sequence[Clip], contours: Sequence[Contour | str]) -> dict[str, list[Score]]:
    """Scores the `STATISTICS` of each clip."""

    def values(clip: Clip, shape: Contour) -> dict[str, float]:
        return clip_statistics(shape)

    return _scores_by_name(STATISTICS, clips, contours, values)


def paired_scores(
    recordings: Sequence[Clip],
    clips: Sequence[Clip],
    real: Sequence[Contour | str],
    contours: Sequence[Contour | str],
) -> dict[str, list[Score]]:
    """Scores every value of `paired_prosody`, clip by clip."""
    known = {
        clip.id: (recording, shape) for clip, recording, shape in zip(clips, recordings, real, strict=True)
    }

    def values(clip: Clip, shape: Contour) -> dict[str, float]:
        recording, reference = known[clip.id]
        if isinstance(reference, str):
            raise ValueError(f"recording: {reference}")
        if shape.voiced.sum() < FEWEST_VOICED <= reference.voiced.sum():
            raise ValueError(TOO_UNVOICED)
        first, second = prepared(recording), prepared(clip)
        assert first.waveform is not None and second.waveform is not None
        equal_lengths(first.waveform, second.waveform, EVALUATION_RATE)
        return paired_prosody(reference, shape)

    return _scores_by_name(PAIRED, clips, contours, values)


def _scores_by_name(
    names: Sequence[str],
    clips: Sequence[Clip],
    contours: Sequence[Contour | str],
    values: Callable[[Clip, Contour], dict[str, float]],
) -> dict[str, list[Score]]:
    result: dict[str, list[Score]] = {name: [] for name in names}
    for clip, shape in zip(clips, contours, strict=True):
        try:
            if isinstance(shape, str):
                raise ValueError(shape)
            found = values(clip, shape)
        except ValueError as error:
            for name in names:
                result[name].append(failed(clip, str(error)))
            continue
        for name in names:
            finite = math.isfinite(found[name])
            why = "fewer than 5 frames voiced in both"
            result[name].append(scored(clip, found[name]) if finite else failed(clip, why))
    return result


def _shared() -> dict[str, Any]:
    return {
        "area": "prosody",
        "evaluator": f"praat-parselmouth {package_version('praat-parselmouth')}, 60 to 600 Hz",
        "sample_rate": EVALUATION_RATE,
    }


def prosody_infos() -> dict[str, MetricInfo]:
    """Describes pitch statistics and the frame-by-frame comparison with the recording."""
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
            **_shared(),
        )
        for name, title, unit, direction, worst, definition in rows
    }


def distance_infos() -> list[tuple[MetricInfo, Callable[[Contour], np.ndarray]]]:
    """Describes Wasserstein-1 distances from the recordings, each with the values of a clip that it pools."""

    def ranges(shape: Contour) -> np.ndarray:
        return np.diff(np.percentile(shape.log_f0, [5, 95])) if shape.voiced.sum() >= 5 else np.zeros(0)

    def info(name: str, title: str, unit: str, what: str) -> MetricInfo:
        definition = f"Wasserstein-1 of {what}, from the recordings"
        return MetricInfo(
            name=name, title=title, unit=unit, direction="lower", definition=definition, **_shared()
        )

    pauses = "the lengths of pauses of 200 ms or more inside clips"
    return [
        (
            info("f0_distance", "Pitch distribution, W1", "cents", "log-F0 of all voiced frames"),
            lambda shape: shape.log_f0,
        ),
        (info("f0_range_distance", "Pitch range, W1", "cents", "the clips' pitch ranges"), ranges),
        (
            info("pause_distance", "Pause length, W1", "ms", pauses),
            lambda shape: 1000.0 * pause_lengths(shape),
        ),
    ]
