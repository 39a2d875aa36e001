"""Recordings to turns: voice activity, inter-pausal units, turns with their overlaps and backchannels.

Words as in the evaluation: an inter-pausal unit (IPU) is one speaker's activity with gaps under 200 ms
merged; a backchannel is at most 1 s of activity with at least 1 s of own silence on both sides; overlap is
activity of two speakers at once. Nothing is dropped for being short, and overlaps are kept, only marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import resample

from csm.data.audio import AudioInfo, iter_blocks
from csm.data.manifest import Recording, Segment, Turn
from csm.system.extras import missing_package

_VAD_RATE = 16_000  # silero-vad's own
_VAD_WINDOW = 512
_BLOCK_S = 20  # a whole number of windows at 16 kHz, so that no time drifts in ten hours


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """When one speaker's activity is one unit, one turn, a backchannel. All in seconds.

    Attributes:
        merge_gap: Gaps of one speaker shorter than this are inside an IPU.
        longest_pause: IPUs of one speaker further apart than this are different turns.
        longest_turn: IPUs are not joined beyond this.
        backchannel_longest: Longest activity that may be a backchannel.
        backchannel_silence: Own silence that must lie before and after it.
    """

    merge_gap: float = 0.2
    longest_pause: float = 2.0
    longest_turn: float = 30.0
    backchannel_longest: float = 1.0
    backchannel_silence: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "merge_gap",
            "longest_pause",
            "longest_turn",
            "backchannel_longest",
            "backchannel_silence",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"SegmentationConfig.{name}={getattr(self, name)}; expected seconds, 0 or more"
                )
        if self.merge_gap > self.longest_pause:
            raise ValueError(
                f"SegmentationConfig.merge_gap={self.merge_gap} is above longest_pause={self.longest_pause}"
            )


def detect_segments(path: str | Path, info: AudioInfo, speakers: Sequence[str]) -> list[Segment]:
    """Voice activity of each channel of a recording, by silero-vad, in constant memory.

    Speech that leaks from one channel into the other is activity there too: record the channels apart.

    Args:
        path: The recording; channel i carries speakers[i].
        info: What `check_audio` found in it.
        speakers: One name per channel.

    Returns:
        Segments without text, ordered by channel, then time.

    Raises:
        ValueError: silero-vad is not installed, or the number of names is not the number of channels.
    """
    if len(speakers) != info.channels:
        raise ValueError(
            f"{info.channels} channels, but {len(speakers)} speakers are named; name one per channel"
        )
    try:
        from silero_vad import VADIterator, load_silero_vad
    except ImportError as error:
        raise ValueError(
            f"{missing_package('silero-vad', 'finding speech in a recording without times')}, or give "
            "start and end of each turn in NAME.json"
        ) from error
    detectors = [VADIterator(load_silero_vad(), sampling_rate=_VAD_RATE) for _ in speakers]
    edges: list[list[tuple[str, float]]] = [[] for _ in speakers]
    with torch.no_grad():
        for block in iter_blocks(path, _BLOCK_S * info.sample_rate):
            resampled = resample(torch.from_numpy(block.T.copy()), info.sample_rate, _VAD_RATE)
            resampled = torch.nn.functional.pad(resampled, (0, -resampled.shape[1] % _VAD_WINDOW))
            for channel, detector in enumerate(detectors):
                for window in resampled[channel].split(_VAD_WINDOW):
                    found = detector(window) or {}
                    edges[channel] += [(kind, sample / _VAD_RATE) for kind, sample in found.items()]
    return [
        Segment(speaker=speakers[channel], start=start, end=end, channel=channel)
        for channel in range(info.channels)
        for start, end in _pairs(edges[channel], info.duration)
    ]


def merge_units(segments: Sequence[Segment], gap: float) -> list[Segment]:
    """Merges segments of one speaker (and channel) that overlap or lie less than `gap` seconds apart.

    Texts are joined with a space in the order of time. Returned ordered by start, then speaker.
    """
    merged: list[Segment] = []
    latest: dict[tuple[str, int], int] = {}
    for segment in sorted(segments, key=lambda s: (s.start, s.end, s.speaker)):
        key = (segment.speaker, segment.channel)
        index = latest.get(key)
        if index is not None and segment.start - merged[index].end < gap:
            merged[index] = _join(merged[index], segment)
        else:
            latest[key] = len(merged)
            merged.append(segment)
    return merged


def join_turns(units: Sequence[Segment], config: SegmentationConfig) -> list[Segment]:
    """Joins consecutive IPUs of one speaker into turns.

    Two are joined when no other speaker starts to speak between them (backchannels take no turn: they are
    neither joined nor do they divide), the pause is at most `longest_pause` and the whole stays within
    `longest_turn`.
    """
    activity = Activity(units)
    turns: list[Segment] = []
    floor = -1  # place in `turns` of the one that holds the floor
    for unit in sorted(units, key=lambda s: (s.start, s.end, s.speaker)):
        if activity.speakers > 1 and activity.is_backchannel(unit, config):
            turns.append(unit)
            continue
        if floor >= 0 and _continues(turns[floor], unit, config):
            turns[floor] = _join(turns[floor], unit)
        else:
            floor = len(turns)
            turns.append(unit)
    return turns


class Activity:
    """All IPUs of a recording, to ask what happens around a stretch."""

    def __init__(self, units: Sequence[Segment]) -> None:
        self._starts = np.array([unit.start for unit in units])
        self._ends = np.array([unit.end for unit in units])
        self._speakers = np.array([unit.speaker for unit in units], dtype=object)
        self.speakers = len(set(self._speakers))

    def is_backchannel(self, segment: Segment, config: SegmentationConfig) -> bool:
        """At most 1 s of activity and at least 1 s of own silence, or the recording's edge, on both sides."""
        if segment.duration > config.backchannel_longest:
            return False
        beyond = (self._starts < segment.start) | (self._ends > segment.end)
        near = self._within(
            segment.start - config.backchannel_silence, segment.end + config.backchannel_silence
        )
        return not (beyond & near & (self._speakers == segment.speaker)).any()

    def overlaps_other(self, segment: Segment) -> bool:
        """True when another speaker is active during a part of `segment`."""
        return bool((self._within(segment.start, segment.end) & (self._speakers != segment.speaker)).any())

    def _within(self, start: float, end: float) -> np.ndarray:
        return (self._starts < end) & (self._ends > start)


def to_turns(
    recording: Recording,
    segments: Sequence[Segment],
    *,
    config: SegmentationConfig | None = None,
    join: bool = True,
) -> list[Turn]:
    """Makes the turns of a recording, overlaps and backchannels marked.

    Args:
        recording: Where they lie; its `audio` is the path inside the corpus.
        segments: In any order, of any number of speakers.
        config: The definitions' numbers.
        join: True merges gaps and joins IPUs into turns (activity found by machine); False keeps every
            segment as a turn of its own (turns written by a person).

    Returns:
        Turns ordered by start, then end, then speaker, indices from 0, ids "RECORDING-0000".

    Raises:
        ValueError: A segment lies beyond the recording or on a channel that it has not.
    """
    config = config or SegmentationConfig()
    for segment in segments:
        if segment.end > recording.duration + 0.01 or not 0 <= segment.channel < recording.channels:
            raise ValueError(
                f"{recording.id}: segment {segment.start}-{segment.end} s on channel {segment.channel} lies "
                f"outside the recording ({recording.duration:.3f} s, {recording.channels} channels)"
            )
    units = merge_units(segments, config.merge_gap)
    activity = Activity(units)
    chosen = join_turns(units, config) if join else list(segments)
    return [
        Turn(
            id=f"{recording.id}-{index:04d}",
            conversation=recording.id,
            index=index,
            speaker=segment.speaker,
            text=segment.text,
            audio=recording.audio,
            start=round(segment.start, 6),
            end=round(min(segment.end, recording.duration), 6),
            channel=segment.channel,
            emotion=segment.emotion,
            overlap=activity.overlaps_other(segment),
            backchannel=activity.is_backchannel(segment, config),
        )
        for index, segment in enumerate(sorted(chosen, key=lambda s: (s.start, s.end, s.speaker)))
    ]


def _continues(turn: Segment, unit: Segment, config: SegmentationConfig) -> bool:
    return (
        (turn.speaker, turn.channel) == (unit.speaker, unit.channel)
        and unit.start - turn.end <= config.longest_pause
        and unit.end - turn.start <= config.longest_turn
    )


def _pairs(edges: Sequence[tuple[str, float]], duration: float) -> list[tuple[float, float]]:
    """("start", s), ("end", s), ... -> (start, end) inside the recording; the last may be left open."""
    pairs: list[tuple[float, float]] = []
    start: float | None = None
    for kind, second in edges:
        if kind == "start":
            start = max(second, pairs[-1][1] if pairs else 0.0)
        elif start is not None:
            pairs.append((start, min(second, duration)))
            start = None
    if start is not None:
        pairs.append((start, duration))
    return [(first, last) for first, last in pairs if last > first]


def _join(first: Segment, second: Segment) -> Segment:
    text = f"{first.text} {second.text}".strip()
    return replace(first, end=max(first.end, second.end), text=text)
