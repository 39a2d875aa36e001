"""Events of turn taking: inter-pausal units, gaps, overlaps and floor-transfer offsets.

An inter-pausal unit (IPU) is one speaker's activity with gaps under 200 ms merged; a pause is a
silence inside a speaker's turn, a gap one between speakers; overlap-between ends in a change of
floor, overlap-within does not. Floor-transfer offset FTO = onset of the next speaker minus offset
of the previous one, in milliseconds, signed: an early start stays negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from csm.audio.voice_activity import Interval, SpeechProbabilities, load_detector
from csm.evaluation.core.clips import EVALUATION_RATE, Clip, at_rate
from csm.evaluation.core.evaluators import EvaluatorUnavailable, package_version
from csm.system.extras import missing_package

MERGE_UNDER = 0.2  # seconds
SIDE, LONGEST_BACKCHANNEL = 1.0, 1.0  # seconds, of voice activity projection


class VoiceActivity:
    """silero-vad (weights inside the package), one channel at a time.

    Raises:
        EvaluatorUnavailable: silero-vad is not installed.
    """

    def __init__(self) -> None:
        try:
            self._detector = load_detector()
        except ImportError as error:
            raise EvaluatorUnavailable(missing_package("silero-vad", "turn taking")) from error
        self.evaluator = f"silero-vad {package_version('silero-vad')}"

    def intervals(self, waveform: np.ndarray, sample_rate: int) -> list[Interval]:
        """Finds speech in a waveform [S], as (start, end) in seconds."""
        speech = SpeechProbabilities(self._detector, EVALUATION_RATE)
        speech.push(torch.from_numpy(np.ascontiguousarray(at_rate(waveform, sample_rate))))
        speech.finish()
        return speech.intervals()


def inter_pausal_units(intervals: Sequence[Interval], merge_under: float = MERGE_UNDER) -> list[Interval]:
    """Sorts intervals of one speaker and merges those with gaps shorter than `merge_under` seconds."""
    units: list[Interval] = []
    for start, end in sorted(intervals):
        if not end > start:
            raise ValueError(f"interval ({start}, {end}) ends before it starts")
        if units and start - units[-1][1] < merge_under:
            units[-1] = (units[-1][0], max(units[-1][1], end))
        else:
            units.append((start, end))
    return units


@dataclass(frozen=True, kw_only=True)
class TurnTaking:
    """Events of one dialogue: lengths in milliseconds, `fto` signed, `duration` in seconds.

    `shifts`, `holds` and `backchannels` are counts of `floor_events`, 0 for more than two speakers.
    """

    duration: float
    units: tuple[tuple[Interval, ...], ...]
    ipu: list[float] = field(default_factory=list)
    pause: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    overlap_between: list[float] = field(default_factory=list)
    overlap_within: list[float] = field(default_factory=list)
    fto: list[float] = field(default_factory=list)
    shifts: int = 0
    holds: int = 0
    backchannels: int = 0

    def per_minute(self, count: int) -> float:
        """Converts a count to events per minute of dialogue."""
        return 60.0 * count / self.duration


def turn_taking(channels: Sequence[Sequence[Interval]], duration: float) -> TurnTaking:
    """Finds the events of a dialogue from the speech of each speaker.

    The floor is held by the unit that ends last so far. A unit of another speaker that ends inside
    the holder's is overlap-within and takes no floor; one that outlasts it takes the floor, and its
    FTO is its onset minus the holder's offset.

    Args:
        channels: (start, end) in seconds, one list for each speaker.
        duration: Seconds of the whole dialogue.

    Raises:
        ValueError: There are fewer than two speakers, or there is no duration.
    """
    if len(channels) < 2:
        raise ValueError(f"turn taking needs the speech of two speakers, got {len(channels)} channel(s)")
    if not duration > 0:
        raise ValueError(f"duration is {duration} s: expected a number above 0")
    units = tuple(tuple(inter_pausal_units(channel)) for channel in channels)
    counted = [len(events) for events in floor_events(channels, duration)] if len(channels) == 2 else [0] * 3
    shifts, holds, backchannels = counted
    result = TurnTaking(duration=duration, units=units, shifts=shifts, holds=holds, backchannels=backchannels)
    holder: tuple[int, float] | None = None
    for start, end, speaker in sorted((s, e, who) for who, part in enumerate(units) for s, e in part):
        result.ipu.append(1000.0 * (end - start))
        if holder is None:
            holder = (speaker, end)
            continue
        who, offset = holder
        milliseconds = 1000.0 * (start - offset)
        if speaker == who:
            result.pause.append(milliseconds)  # own units never overlap: they would have been merged
        elif end <= offset:
            result.overlap_within.append(1000.0 * (end - start))
            continue
        else:
            result.fto.append(milliseconds)
            if milliseconds >= 0:
                result.gap.append(milliseconds)
            else:
                result.overlap_between.append(-milliseconds)
        holder = (speaker, end)
    return result


class FloorEvents(NamedTuple):
    """Events of two speakers as voice activity projection counts them (Ekstedt & Skantze 2022).

    Attributes:
        shifts: Mutual silences, (start, end) in seconds, between a second of one speaker alone and a second
            of the other alone.
        holds: The same, between two seconds of one speaker alone.
        backchannels: Activity of at most 1 s, between at least 1 s of the speaker's own silence on both
            sides.
    """

    shifts: list[Interval]
    holds: list[Interval]
    backchannels: list[Interval]


def floor_events(channels: Sequence[Sequence[Interval]], duration: float) -> FloorEvents:
    """Finds shifts, holds and backchannels.

    A speaker's own pauses, in which the other is silent too, are filled before backchannels are counted: a
    word before a pause is no backchannel. What lies beyond the file is not silence: an event at its edge is
    none.

    Args:
        channels: Activity of the two speakers, (start, end) in seconds; gaps under 200 ms are merged.
        duration: Seconds of the recording.

    Raises:
        ValueError: There are not two speakers.
    """
    if len(channels) != 2:
        raise ValueError(f"floor events need two speakers, got {len(channels)} channel(s)")
    units = [inter_pausal_units(channel) for channel in channels]
    filled = [_filled(own, other) for own, other in (units, units[::-1])]
    found = FloorEvents([], [], [])
    for start, end in _mutual_silences(units, duration):
        before, after = (_alone(units, *side) for side in ((start - SIDE, start), (end, end + SIDE)))
        if before is not None and after is not None and start >= SIDE and end + SIDE <= duration:
            (found.holds if before == after else found.shifts).append((start, end))
    found.backchannels.extend(sorted(unit for own in filled for unit in _backchannels(own, duration)))
    return found


def _mutual_silences(units: Sequence[Sequence[Interval]], duration: float) -> list[Interval]:
    both = inter_pausal_units([unit for own in units for unit in own], 0.0)
    edges = [0.0, *(time for unit in both for time in unit), duration]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


def _alone(units: Sequence[Sequence[Interval]], start: float, end: float) -> int | None:
    """Returns who alone is active in a whole interval up to 1 ms; None where neither or both are."""
    active = [any(a < end and b > start for a, b in own) for own in units]
    if sum(active) != 1:
        return None
    who = active.index(True)
    covered = sum(min(b, end) - max(a, start) for a, b in units[who] if a < end and b > start)
    return who if covered >= end - start - 1e-3 else None


def _filled(own: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """Joins units of a speaker between which the other is silent."""
    joined: list[Interval] = []
    for start, end in own:
        if joined and not any(a < start and b > joined[-1][1] for a, b in other):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _backchannels(units: Sequence[Interval], duration: float) -> list[Interval]:
    edges = [0.0, *(time for unit in units for time in unit), duration]
    silences = [end - start for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return [
        (start, end)
        for number, (start, end) in enumerate(units)
        if end - start <= LONGEST_BACKCHANNEL and min(silences[number : number + 2]) >= SIDE
    ]


def events_of(activity: VoiceActivity, clip: Clip) -> TurnTaking | str:
    """Finds the events of a dialogue recorded with one speaker per channel, or why there are none."""
    if clip.waveform is None:
        return clip.reason or "no audio"
    if clip.waveform.ndim != 2 or clip.waveform.shape[0] < 2:
        return f"dialogue has shape {clip.waveform.shape}; expected [2 channels, samples]"
    try:
        speech = [activity.intervals(channel, clip.sample_rate) for channel in clip.waveform]
        if silent := [number for number, one in enumerate(speech) if not one]:
            return f"channel {silent[0]} holds no speech"
        return turn_taking(speech, clip.duration)
    except ValueError as error:
        return str(error)
