"""What needs no judge: how long the lines are, whether they ended in time, how long one waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from csm.evaluation.judge import Clip
from csm.evaluation.latency import length_metric, quantiles
from csm.evaluation.statistics import MetricInfo, Score, failed, judged, summarise, summarise_groups
from csm.evaluation.voice_lines import MAIN
from csm.evaluation.voice_material import RECORDING, ClipSet, VoiceMaterial
from csm.evaluation.voice_speech import GENERATED, INT8

NEAR = 0.2  # within a fifth of the recording's length
STOPPED, RAN_ON = 0.5, 1.6  # shares of the recording's length below and above which something went wrong
TIMES = {"first_chunk": "first_audio_s", "first_sound": "first_sound_s", "rtf": "generation_s"}


def lengths(material: VoiceMaterial) -> list[dict[str, Any]]:
    """Length over the recording's, its median, the share near it, and the share that stopped or ran on."""
    entries = []
    for one in material.spoken:
        recorded = material.of(one.group, RECORDING)
        assert recorded is not None
        ratios = [_ratio(clip, real) for clip, real in zip(one.clips, recorded.clips, strict=True)]
        entries.append(_summary(material, length_metric(), one, ratios))
        entries.append(_median(material, one, ratios))
        near = [_share(score, abs((score.value or 0.0) - 1.0) <= NEAR) for score in ratios]
        wrong = [
            _share(score, facts.get("cut_off", False) or not STOPPED <= (score.value or 0.0) <= RAN_ON)
            for score, facts in zip(ratios, one.facts, strict=True)
        ]
        entries.append(_summary(material, length_metrics()["length_near"], one, near))
        entries.append(_summary(material, length_metrics()["ended_wrong"], one, wrong))
    return entries


def _ratio(clip: Clip, real: Clip) -> Score:
    if not clip.duration:
        return failed(clip.id, clip.conversation, clip.reason or "no audio")
    if not real.duration:
        return failed(clip.id, clip.conversation, f"recording: {real.reason or 'no audio'}")
    return judged(clip.id, clip.conversation, clip.duration / real.duration)


def _share(score: Score, holds: bool) -> Score:
    if score.value is None:
        return score
    return judged(score.clip, score.conversation, float(holds))


def _summary(
    material: VoiceMaterial, info: MetricInfo, one: ClipSet, scores: Sequence[Score]
) -> dict[str, Any]:
    return summarise(
        info,
        scores,
        condition=one.version,
        subset=one.group,
        repeats=material.repeats,
        seed=material.seed,
    )


def _median(material: VoiceMaterial, one: ClipSet, ratios: Sequence[Score]) -> dict[str, Any]:
    groups: dict[str, list[float]] = {}
    failures: dict[str, int] = {}
    for score in ratios:
        if score.value is None:
            failures[str(score.reason)] = failures.get(str(score.reason), 0) + 1
        else:
            groups.setdefault(score.conversation, []).append(score.value)
    return summarise_groups(
        length_metrics()["length_median"],
        list(groups.values()),
        lambda picked: float(np.median([value for group in picked for value in group])),
        condition=one.version,
        subset=one.group,
        n_in=len(ratios),
        failures=failures,
        repeats=material.repeats,
        seed=material.seed,
    )


def waits(material: VoiceMaterial) -> list[dict[str, Any]]:
    """Time to the first chunk and to the first audible sound, and real-time factor, of the main voice."""
    entries = []
    for version in (GENERATED, INT8):
        one = material.of(MAIN, version)
        if one is None:
            continue
        machines = sorted({facts["hardware"] for facts in one.facts if "hardware" in facts})
        for name, info in waiting_metrics(" and ".join(machines)).items():
            scores = [_wait(name, clip, facts) for clip, facts in zip(one.clips, one.facts, strict=True)]
            entry = _summary(material, info, one, scores)
            values = [score.value for score in scores if score.value is not None]
            entries.append({**entry, "quantiles": quantiles(values)} if values else entry)
    return entries


def _wait(name: str, clip: Clip, facts: Mapping[str, Any]) -> Score:
    if "timing" not in facts:
        return failed(clip.id, clip.conversation, facts.get("reason") or "no audio")
    value = facts["timing"][TIMES[name]]
    if value is None:
        return failed(clip.id, clip.conversation, "the audio is silent")
    return judged(clip.id, clip.conversation, value / facts["timing"]["audio_s"] if name == "rtf" else value)


def length_metrics() -> dict[str, MetricInfo]:
    """Median length, the share of lines near the recording's, and the share that did not end in time."""
    shared: dict[str, Any] = {"area": "length", "evaluator": "csm.evaluation.voice_measures"}
    ratio = "seconds of generated speech / seconds of the recording of the same words"
    return {
        "length_median": MetricInfo(
            name="length_median",
            title="Median length over the recording's",
            unit="ratio",
            direction="nearer_to_recording",
            definition=f"median of {ratio}",
            **shared,
        ),
        "length_near": MetricInfo(
            name="length_near",
            title="Length within 20 %",
            unit="share of lines",
            direction="higher",
            worst=0.0,
            definition=f"{ratio} is {1 - NEAR} to {1 + NEAR}",
            **shared,
        ),
        "ended_wrong": MetricInfo(
            name="ended_wrong",
            title="Stopped early or ran on",
            unit="share of lines",
            direction="lower",
            worst=1.0,
            definition=f"{ratio} is below {STOPPED} or above {RAN_ON}, or a sentence was cut off",
            **shared,
        ),
    }


def waiting_metrics(hardware: str) -> dict[str, MetricInfo]:
    """Times measured on the stream; the only values of a report that speaking the lines again may change."""
    shared: dict[str, Any] = {
        "area": "latency",
        "direction": "lower",
        "evaluator": f"timed on the audio stream, one thread, after a line to warm up, on {hardware}",
    }
    return {
        "first_chunk": MetricInfo(
            name="first_chunk",
            title="Time to the first chunk",
            unit="s",
            definition="request to the first chunk of audio, which may be silent",
            **shared,
        ),
        "first_sound": MetricInfo(
            name="first_sound",
            title="Time to the first audible sound",
            unit="s",
            definition="request to the chunk that holds the first sample above -40 dB of the line's peak",
            **shared,
        ),
        "rtf": MetricInfo(
            name="rtf",
            title="Real-time factor",
            unit="s of work per s of speech",
            definition="generation time / audio time; below 1 is faster than speech",
            **shared,
        ),
    }
