"""Waiting times: time to the first audible sound, leading silence, and real-time factor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets, at_rate, prepared
from csm.evaluation.core.evaluators import hardware
from csm.evaluation.core.metric import Metric, MetricInfo, Score, Scores, failed, scored
from csm.evaluation.core.speechless import FRAME, SILENCE_DB, frame_levels

# Names of the times in a stream's record.
STREAM_TIMES = {"first_chunk": "first_audio_s", "first_sound": "first_sound_s", "rtf": "generation_s"}


class GenerationTimes(Metric):
    """Times of speech that was written to files: `facts["timing"]` of a run's clips."""

    def choose(self, sets: ClipSets) -> list[ClipSet]:
        """Returns the generated sets."""
        return [one for one in sets.mono if one.generated]

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Yields times with their percentiles."""
        infos = generation_infos(hardware())
        for name, scores in latency_scores(clips.clips).items():
            yield Scores(info=infos[name], scores=scores, quantiles=True)


class StreamTimes(Metric):
    """Times measured on the audio stream while a voice speaks.

    Args:
        group: Group that is timed. conditions: Its conditions.
    """

    def __init__(self, group: str, conditions: Sequence[str]) -> None:
        super().__init__()
        self.group, self.conditions = group, conditions

    def choose(self, sets: ClipSets) -> list[ClipSet]:
        """Returns the timed sets that exist."""
        found = [sets.of(self.group, condition) for condition in self.conditions]
        return [one for one in found if one is not None]

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Yields times with their percentiles."""
        machines = sorted({clip.facts["hardware"] for clip in clips.clips if "hardware" in clip.facts})
        for name, info in stream_infos(" and ".join(machines)).items():
            yield Scores(info=info, scores=[stream_score(name, c) for c in clips.clips], quantiles=True)


def leading_silence(waveform: np.ndarray, sample_rate: int) -> float:
    """Measures the seconds before the first 10 ms frame within 35 dB of the loudest one.

    Raises:
        ValueError: No frame is above -60 dB of full scale.
    """
    waveform = at_rate(waveform, sample_rate, sample_rate)
    level = frame_levels(waveform, sample_rate)
    if level.max() <= SILENCE_DB:
        raise ValueError("the audio is silent")
    step = max(1, round(FRAME * sample_rate))
    return float(np.argmax(level >= level.max() - 35.0)) * step / sample_rate


def latency_scores(clips: Sequence[Clip]) -> dict[str, list[Score]]:
    """Scores audible time to first audio, leading silence and real-time factor of each generated clip.

    Args:
        clips: Generated speech; `facts["timing"]` has "first_audio_s" (request to first chunk),
            "generation_s" and "audio_s".
    """
    result: dict[str, list[Score]] = {"ttfa": [], "leading_silence": [], "rtf": []}
    for item in clips:
        clip = prepared(item, item.sample_rate)
        silence: float | None = None
        reason = clip.reason or "no audio"
        if clip.waveform is not None:
            try:
                silence = leading_silence(clip.waveform, clip.sample_rate)
            except ValueError as error:
                reason = str(error)
        timing = clip.facts.get("timing") or {}
        first, spent, length = (timing.get(key) for key in ("first_audio_s", "generation_s", "audio_s"))
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
            result[name].append(failed(clip, why) if value is None else scored(clip, value))
    return result


def stream_score(name: str, clip: Clip) -> Score:
    """Scores one of `STREAM_TIMES` of a clip."""
    timing = clip.facts.get("timing")
    if timing is None or clip.reason is not None:
        return failed(clip, clip.reason)
    value = timing[STREAM_TIMES[name]]
    if value is None:
        return failed(clip, "the audio is silent")
    return scored(clip, value / timing["audio_s"] if name == "rtf" else value)


def _info(name: str, title: str, unit: str, evaluator: str, definition: str) -> MetricInfo:
    shared: dict[str, Any] = {"area": "latency", "direction": "lower"}
    return MetricInfo(name=name, title=title, unit=unit, evaluator=evaluator, definition=definition, **shared)


def _real_time_factor(evaluator: str) -> MetricInfo:
    definition = "generation time / audio time; below 1 is faster than speech"
    return _info("rtf", "Real-time factor", "s of work per s of speech", evaluator, definition)


def generation_infos(machine: str) -> dict[str, MetricInfo]:
    """Describes times measured by the generator; only they may change when a run speaks again."""
    timing = f"timing of the generator, on {machine}"
    to_sound = "request to first chunk, plus the silence that the clip begins with"
    silence = "silence before the first 10 ms frame within 35 dB of the loudest"
    return {
        "ttfa": _info("ttfa", "Time to first audible sound", "s", timing, to_sound),
        "leading_silence": _info(
            "leading_silence", "Leading silence", "s", "csm.evaluation.metrics.latency", silence
        ),
        "rtf": _real_time_factor(timing),
    }


def stream_infos(machine: str) -> dict[str, MetricInfo]:
    """Describes times measured on the stream; only they may change when a voice speaks again."""
    timing = f"timed on the audio stream, one thread, after a line to warm up, on {machine}"
    chunk = "request to the first chunk of audio, which may be silent"
    sound = "request to the chunk that holds the first sample above -40 dB of the line's peak"
    return {
        "first_chunk": _info("first_chunk", "Time to the first chunk", "s", timing, chunk),
        "first_sound": _info("first_sound", "Time to the first audible sound", "s", timing, sound),
        "rtf": _real_time_factor(timing),
    }
