"""Who speaks when: inter-pausal units, gaps, overlaps and floor-transfer offsets.

An inter-pausal unit (IPU) is one speaker's activity with gaps under 200 ms merged; a pause is a
silence inside a speaker's turn, a gap one between speakers; overlap-between ends in a change of
floor, overlap-within does not. Floor-transfer offset FTO = onset of the next speaker minus offset
of the previous one, in milliseconds, signed: an early start stays negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from csm.evaluation.distributions import jensen_shannon_divergence, kolmogorov_smirnov, wasserstein_1
from csm.evaluation.judge import JUDGE_SAMPLE_RATE, at_rate, optional_import, package_version

MERGE_UNDER = 0.2  # seconds
FTO_LOW, FTO_HIGH, FTO_BIN = -2000.0, 2000.0, 50.0  # milliseconds
Interval = tuple[float, float]


class VoiceActivity:
    """silero-vad (weights inside the package), one channel at a time.

    Raises:
        JudgeUnavailable: silero-vad is missing.
    """

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        self._library = optional_import("silero_vad", package="silero-vad", metric="turn taking")
        torch.set_num_threads(threads)  # importing it sets one thread for the whole process
        self._model: Any = self._library.load_silero_vad()
        self.evaluator = f"silero-vad {package_version('silero-vad')}"

    def intervals(self, waveform: np.ndarray, sample_rate: int) -> list[Interval]:
        """Speech in ``waveform`` [S] as (start, end) in seconds.

        The package's padding of 30 ms on both sides is switched off, since it shifts every offset.
        """
        speech = self._library.get_speech_timestamps(
            torch.from_numpy(np.ascontiguousarray(at_rate(waveform, sample_rate))),
            self._model,
            sampling_rate=JUDGE_SAMPLE_RATE,
            speech_pad_ms=0,
            min_silence_duration_ms=100,
            min_speech_duration_ms=100,
        )
        return [(part["start"] / JUDGE_SAMPLE_RATE, part["end"] / JUDGE_SAMPLE_RATE) for part in speech]


def inter_pausal_units(intervals: Sequence[Interval], merge_under: float = MERGE_UNDER) -> list[Interval]:
    """Intervals of one speaker in order, with gaps shorter than ``merge_under`` seconds merged."""
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
    """Events of one dialogue; lengths in milliseconds, ``fto`` signed, ``duration`` in seconds."""

    duration: float
    units: tuple[tuple[Interval, ...], ...]
    ipu: list[float] = field(default_factory=list)
    pause: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    overlap_between: list[float] = field(default_factory=list)
    overlap_within: list[float] = field(default_factory=list)
    fto: list[float] = field(default_factory=list)
    backchannels: int = 0

    def per_minute(self, count: int) -> float:
        """Events per minute of dialogue."""
        return 60.0 * count / self.duration


def turn_taking(channels: Sequence[Sequence[Interval]], duration: float) -> TurnTaking:
    """Events of a dialogue from the speech of each speaker.

    The floor is held by the unit that ends last so far. A unit of another speaker that ends inside
    the holder's is overlap-within and takes no floor; one that outlasts it takes the floor, and its
    FTO is its onset minus the holder's offset.

    Args:
        channels: (start, end) in seconds, one list a speaker.
        duration: seconds of the whole dialogue.

    Raises:
        ValueError: fewer than two speakers or no duration.
    """
    if len(channels) < 2:
        raise ValueError(f"turn taking needs the speech of two speakers, got {len(channels)} channel(s)")
    if not duration > 0:
        raise ValueError(f"duration is {duration} s; it must be positive")
    units = tuple(tuple(inter_pausal_units(channel)) for channel in channels)
    result = TurnTaking(
        duration=duration, units=units, backchannels=sum(count_backchannels(part) for part in units)
    )
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


def count_backchannels(units: Sequence[Interval]) -> int:
    """Units of at most 1 s with at least 1 s of the speaker's own silence on both sides."""
    count = 0
    for number, (start, end) in enumerate(units):
        before = start - units[number - 1][1] if number else float("inf")
        after = units[number + 1][0] - end if number + 1 < len(units) else float("inf")
        count += end - start <= 1.0 and before >= 1.0 and after >= 1.0
    return count


def listen(vad: VoiceActivity, channels: np.ndarray, sample_rate: int) -> TurnTaking:
    """Events of a dialogue recorded with one speaker a channel, ``channels`` [C, S].

    Raises:
        ValueError: not at least two channels.
    """
    if channels.ndim != 2 or channels.shape[0] < 2:
        raise ValueError(f"dialogue has shape {tuple(channels.shape)}; expected [2 channels, samples]")
    speech = [vad.intervals(channel, sample_rate) for channel in channels]
    return turn_taking(speech, channels.shape[1] / sample_rate)


def compare_offsets(generated: Sequence[float], real: Sequence[float]) -> dict[str, float]:
    """W1 in ms, Jensen-Shannon divergence base 2 on 50 ms bins in [-2, 2] s, and KS of two sets of FTO.

    Raises:
        ValueError: one of them is empty.
    """
    left, right = list(generated), list(real)
    return {
        "wasserstein_1": wasserstein_1(left, right),
        "jensen_shannon_divergence": jensen_shannon_divergence(
            left, right, low=FTO_LOW, high=FTO_HIGH, width=FTO_BIN
        ),
        "kolmogorov_smirnov": kolmogorov_smirnov(left, right),
    }
