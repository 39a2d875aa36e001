"""Turns of a recording: voice activity, inter-pausal units, turns with their overlaps and backchannels.

The definitions are those of the evaluation: an inter-pausal unit (IPU) is one speaker's activity with gaps
below 200 ms merged; a backchannel is at most 1 s of activity with at least 1 s of silence of the same speaker
on both sides; overlap is simultaneous activity of two speakers. Short activity and overlaps are kept and
marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from csm.audio.files import AudioInfo, iter_blocks
from csm.audio.voice_activity import SpeechProbabilities, load_detector, speech_intervals
from csm.data.corpora.crosstalk import Leak, without_crosstalk
from csm.data.manifest import Recording, Segment, Turn
from csm.system.extras import missing_package
from csm.system.log import log

_BLOCK_S = 20


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Thresholds of units, turns and backchannels, in seconds.

    Attributes:
        merge_gap: Gaps of one speaker below this length are inside an IPU.
        longest_pause: IPUs of one speaker with a longer pause between them are different turns.
        longest_turn: Longest turn that is joined from IPUs.
        backchannel_longest: Longest backchannel.
        backchannel_silence: Shortest silence of the same speaker before and after a backchannel.
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
                    f"SegmentationConfig.{name} is {getattr(self, name)}: expected 0 or more seconds"
                )
        if self.merge_gap > self.longest_pause:
            raise ValueError(
                f"SegmentationConfig.merge_gap is {self.merge_gap}: expected at most longest_pause, "
                f"{self.longest_pause}; lower it"
            )


def detect_segments(path: str | Path, info: AudioInfo, speakers: Sequence[str]) -> list[Segment]:
    """Detects the voice activity of each channel of a recording with silero-vad, block by block.

    Speech of one channel that leaks into another one is not activity of that one (`without_crosstalk`).

    Args:
        path: Path of the recording.
        info: Statistics of `check_audio`.
        speakers: Name of each channel's speaker.

    Returns:
        Segments without texts, ordered by channel, then time.

    Raises:
        ValueError: silero-vad is missing, the numbers of speakers and channels differ, or two channels hold
            the same speech.
    """
    found, leaks = detect_speech(path, info, speakers)
    for leak in leaks:
        log.warning("%s: %s", Path(path).name, leak_line(leak))
    return found


def detect_speech(
    path: str | Path, info: AudioInfo, speakers: Sequence[str]
) -> tuple[list[Segment], list[Leak]]:
    """As `detect_segments`; returns the speech that leaks into other channels, too."""
    if len(speakers) != info.channels:
        raise ValueError(
            f"speakers are {len(speakers)}: expected one for each of {info.channels} channels; name as many"
        )
    try:
        channels = [SpeechProbabilities(load_detector(), info.sample_rate) for _ in speakers]
    except ImportError as error:
        raise ValueError(
            f"{missing_package('silero-vad', 'finding speech in a recording without times')}, or give "
            "start and end of each turn in NAME.json"
        ) from error
    for block in iter_blocks(path, _BLOCK_S * info.sample_rate):
        for index, channel in enumerate(channels):
            channel.push(torch.from_numpy(block[:, index].copy()))
    for channel in channels:
        channel.finish()
    powers = np.array([channel.powers for channel in channels])
    kept, leaks = without_crosstalk(np.array([channel.values for channel in channels]), powers)
    segments = [
        Segment(speaker=speakers[index], start=start, end=min(end, info.duration), channel=index)
        for index, channel in enumerate(channels)
        for start, end in speech_intervals(kept[index].tolist(), channel.samples)
        if start < info.duration
    ]
    return segments, leaks


def leak_line(leak: Leak) -> str:
    """Returns one line about a leak."""
    return (
        f"{leak.seconds:.1f} s of speech on channel {leak.channel} are that of channel {leak.source} at "
        f"{leak.decibel:.0f} dB: they make no turns"
    )


def merge_units(segments: Sequence[Segment], gap: float) -> list[Segment]:
    """Merges segments of one speaker and channel that overlap or are less than `gap` seconds apart.

    Texts are joined with a space in temporal order. The result is ordered by start, then speaker.
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

    Two IPUs are joined if no other speaker starts between them, the pause is at most `longest_pause` and the
    turn at most `longest_turn`. A backchannel is neither joined nor does it end the other speaker's turn.
    """
    activity = Activity(units)
    turns: list[Segment] = []
    floor = -1  # index in `turns` of the turn that holds the floor
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
    """The IPUs of a recording, indexed by time."""

    def __init__(self, units: Sequence[Segment]) -> None:
        self._starts = np.array([unit.start for unit in units])
        self._ends = np.array([unit.end for unit in units])
        self._speakers = np.array([unit.speaker for unit in units], dtype=object)
        self.speakers = len(set(self._speakers))

    def is_backchannel(self, segment: Segment, config: SegmentationConfig) -> bool:
        """Returns whether a segment is a backchannel; the edges of the recording count as silence."""
        if segment.duration > config.backchannel_longest:
            return False
        beyond = (self._starts < segment.start) | (self._ends > segment.end)
        near = self._within(
            segment.start - config.backchannel_silence, segment.end + config.backchannel_silence
        )
        return not (beyond & near & (self._speakers == segment.speaker)).any()

    def overlaps_other(self, segment: Segment) -> bool:
        """Returns whether another speaker is active during a part of `segment`."""
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
    """Makes the turns of a recording and marks overlaps and backchannels.

    Args:
        recording: The recording; its `audio` is the path inside the corpus.
        segments: Segments in any order, of any number of speakers.
        config: Thresholds; None is the default.
        join: True merges gaps and joins IPUs into turns (detected activity); False keeps every segment as one
            turn (annotated turns).

    Returns:
        Turns ordered by start, then end, then speaker, with indices from 0 and ids "RECORDING-0000".

    Raises:
        ValueError: A segment is outside the recording or its channels.
    """
    config = config or SegmentationConfig()
    for segment in segments:
        if segment.end > recording.duration + 0.01 or not 0 <= segment.channel < recording.channels:
            raise ValueError(
                f"{recording.id}: segment {segment.start}-{segment.end} s on channel {segment.channel} is "
                f"outside the recording: expected at most {recording.duration:.3f} s, {recording.channels} "
                f"channels; correct it"
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


def _join(first: Segment, second: Segment) -> Segment:
    text = f"{first.text} {second.text}".strip()
    return replace(first, end=max(first.end, second.end), text=text)
