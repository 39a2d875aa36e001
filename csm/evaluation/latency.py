"""How long one waits: time to first audio, as it is heard, and real-time factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csm.evaluation.judge import Clip, at_rate, prepared
from csm.evaluation.statistics import MetricInfo, Score, failed, judged

QUANTILES = (50, 90, 99)


def leading_silence(waveform: np.ndarray, sample_rate: int) -> float:
    """Seconds before the first sound: the first 10 ms frame within 35 dB of the loudest one.

    Raises:
        ValueError: no frame is above -60 dB of full scale.
    """
    waveform = at_rate(waveform, sample_rate, sample_rate)
    step = max(1, round(0.01 * sample_rate))
    frames = np.pad(waveform.astype(np.float64), (0, -len(waveform) % step)).reshape(-1, step)
    level = 10.0 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-12))
    if level.max() < -60.0:
        raise ValueError("the audio is silent")
    return float(np.argmax(level >= level.max() - 35.0)) * step / sample_rate


def response_latency(previous_end: float, onset: float) -> float:
    """Seconds from the end of what was said to the onset of the answer; an early answer is negative."""
    return onset - previous_end


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """``n`` and the 50th, 90th and 99th percentile (linear interpolation).

    Raises:
        ValueError: no values, or one that is not a number. Negative values stay negative.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("quantiles need at least one value, all of them finite")
    return {"n": float(array.size), **{f"p{q}": float(np.percentile(array, q)) for q in QUANTILES}}


def latency_scores(
    clips: Sequence[Clip], timings: Sequence[Mapping[str, Any] | None]
) -> dict[str, list[Score]]:
    """Audible time to first audio, leading silence and real-time factor of each generated clip.

    Args:
        clips: generated speech.
        timings: ``first_audio_s`` (request to first chunk), ``generation_s`` and ``audio_s`` of each.
    """
    result: dict[str, list[Score]] = {"ttfa": [], "leading_silence": [], "rtf": []}
    for item, timing in zip(clips, timings, strict=True):
        clip = prepared(item, item.sample_rate)
        silence: float | None = None
        reason = clip.reason or "no audio"
        if clip.waveform is not None:
            try:
                silence = leading_silence(clip.waveform, clip.sample_rate)
            except ValueError as error:
                reason = str(error)
        known = timing or {}
        first, spent, length = (known.get(key) for key in ("first_audio_s", "generation_s", "audio_s"))
        values: dict[str, tuple[float | None, str]] = {
            "ttfa": (None, "the generator gave no timing" if first is None else reason),
            "leading_silence": (silence, reason),
            "rtf": (None, "the generator gave no timing" if clip.waveform is not None else reason),
        }
        if first is not None and silence is not None:
            values["ttfa"] = (first + silence, "")
        if spent is not None and length and clip.waveform is not None:
            values["rtf"] = (spent / length, "")
        for name, (value, why) in values.items():
            result[name].append(
                failed(clip.id, clip.conversation, why)
                if value is None
                else judged(clip.id, clip.conversation, value)
            )
    return result


def latency_metrics(hardware: str) -> dict[str, MetricInfo]:
    """Times measured by the generator; the only values of a report that a re-run of it may change."""
    shared: dict[str, Any] = {"area": "latency", "direction": "lower"}
    return {
        "ttfa": MetricInfo(
            name="ttfa",
            title="Time to first audible sound",
            unit="s",
            evaluator=f"timing of the generator, on {hardware}",
            definition="request to first chunk, plus the silence that the clip begins with",
            **shared,
        ),
        "leading_silence": MetricInfo(
            name="leading_silence",
            title="Leading silence",
            unit="s",
            evaluator="csm.evaluation.latency",
            definition="silence before the first 10 ms frame within 35 dB of the loudest",
            **shared,
        ),
        "rtf": MetricInfo(
            name="rtf",
            title="Real-time factor",
            unit="s of work per s of speech",
            evaluator=f"timing of the generator, on {hardware}",
            definition="generation time / audio time; below 1 is faster than speech",
            **shared,
        ),
    }


def length_metric() -> MetricInfo:
    """Length of generated speech over that of the recording of the same words."""
    return MetricInfo(
        name="length_ratio",
        title="Length over the recording's",
        area="latency",
        unit="ratio",
        direction="nearer_to_recording",
        evaluator="csm.evaluation.latency",
        definition="seconds of generated speech / seconds of the recording of the same words; 1 is as long",
    )
