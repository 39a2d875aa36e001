"""Full-Duplex-Bench (Lin et al. 2025): its folders, and its four axes without the errors of its scorer.

A sample is a folder with input.wav, the user's side, and the annotation of its axis: pause.json,
turn_taking.json, interrupt.json, or none for backchannels. A system's side is output.wav, as long as the
input, and where a recogniser was run output.json: {"text", "chunks": [{"text", "timestamp": [start, end]}]}.

Where its scorer differs from its paper, the paper is followed: a latency below zero stays below zero, the
Jensen-Shannon divergence is not its square root, a segment that takes the floor is not forgotten when a short
one follows, and a sample without an output counts as failed and not as absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from csm.evaluation.conversation.bench import Outcome
from csm.evaluation.metrics.turn_taking import Interval

Axis = Literal["pause_handling", "backchannel", "smooth_turn_taking", "user_interruption"]
ANNOTATIONS: dict[str, Axis] = {
    "pause.json": "pause_handling",
    "turn_taking.json": "smooth_turn_taking",
    "interrupt.json": "user_interruption",
}
# Seconds and words up to which speech takes no floor, and the seconds from which a segment does; its v1.0.
SHORT_S, FEW_WORDS, LONG_S, BACKCHANNEL_WORDS = 1.0, 3, 3.0, 2
WINDOW_S = 0.2
REFERENCE = "icc_gt_distribution.json"


class Sample(NamedTuple):
    """One sample: its name, axis and folder, and the annotated interval in seconds, if the axis has one."""

    name: str
    axis: Axis
    folder: Path
    event: Interval | None


class SystemSide(NamedTuple):
    """What a system said: intervals of speech, the file's length in seconds, and words; None if unknown."""

    speech: Sequence[Interval]
    duration: float
    words: Sequence[Interval] | None = None


class Scored(NamedTuple):
    """Figures of one sample.

    Attributes:
        sample: Its name. axis: Its axis.
        failure: Why there are none; "" where there are.
        takes_over: Whether the system takes the floor.
        latency_ms: From the annotated end of the user's turn to the system's first sound; negative if it
            began before. None if it does not take the floor, or on the first two axes.
        stop_ms: From an interruption's begin to the end of the speech that it met; None if it met none.
        per_second: Backchannels a second. None on the other axes.
        divergence: Jensen-Shannon divergence, base 2, of their times from people's; 1, the largest, where
            there is no backchannel. None without a reference.
    """

    sample: str
    axis: Axis
    failure: str = ""
    takes_over: bool = False
    latency_ms: float | None = None
    stop_ms: float | None = None
    per_second: float | None = None
    divergence: float | None = None


def read_samples(root: Path) -> list[Sample]:
    """Returns the samples of a folder: of one axis, or of folders of several.

    Raises:
        ValueError: There is none, or an annotation is damaged.
    """
    found = [_sample(path.parent, root) for path in sorted(root.rglob("input.wav"))]
    if not found:
        raise ValueError(f"no samples in {root}: expected AXIS/ID/input.wav, as Full-Duplex-Bench has it")
    return found


def _sample(folder: Path, root: Path) -> Sample:
    name = folder.relative_to(root).as_posix()
    for file, axis in ANNOTATIONS.items():
        path = folder / file
        if path.is_file():
            try:
                start, end = json.loads(path.read_text(encoding="utf-8"))[0]["timestamp"]
                return Sample(name, axis, folder, (float(start), float(end)))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise ValueError(f"{path} has no [{{'timestamp': [start, end]}}] ({error!r})") from error
    return Sample(name, "backchannel", folder, None)


def read_words(path: Path) -> list[Interval]:
    """Returns the times of the words of an output.json; a word without an end ends where it begins.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        chunks = json.loads(path.read_text(encoding="utf-8"))["chunks"]
        times = [chunk["timestamp"] for chunk in chunks]
        return [(float(a), float(a if b is None else b)) for a, b in times if a is not None]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no chunks with timestamps ({error!r})") from error


def score(sample: Sample, side: SystemSide, reference: Sequence[float] | None = None) -> Scored:
    """Scores one sample.

    Args:
        sample: The sample.
        side: What the system said.
        reference: For backchannels, the distribution of people's times over the file.
    """
    if sample.axis == "backchannel":
        return _backchannels(sample, side, reference)
    begin = sample.event[0] if sample.event and sample.axis == "user_interruption" else 0.0
    speech = [(a, b) for a, b in side.speech if a >= begin]
    words = None if side.words is None else [word for word in side.words if word[0] >= begin]
    takes = _takes_floor(speech, words)
    if sample.axis == "pause_handling" or sample.event is None:
        return Scored(sample.name, sample.axis, takes_over=takes)
    end = sample.event[1] if sample.axis == "user_interruption" else sample.event[0]
    first = min(a for a, _ in words or speech) if takes else None
    met = [b for a, b in side.speech if a < begin < b]
    return Scored(
        sample.name,
        sample.axis,
        takes_over=takes,
        latency_ms=None if first is None else 1000 * (first - end),
        stop_ms=1000 * (met[0] - begin) if met else None,
    )


def _takes_floor(speech: Sequence[Interval], words: Sequence[Interval] | None) -> bool:
    spans = words if words is not None else speech
    if not spans:
        return False
    longer = max(b for _, b in spans) - min(a for a, _ in spans) >= SHORT_S
    return longer or (words is not None and len(words) > FEW_WORDS)


def _backchannels(sample: Sample, side: SystemSide, reference: Sequence[float] | None) -> Scored:
    short = [one for one in side.speech if _is_backchannel(one, side.words)]
    if len(short) < len(side.speech):
        short = []  # who takes the floor is no listener
    divergence = None
    if reference is not None:
        divergence = _divergence(short, side.duration, reference) if short else 1.0
    return Scored(
        sample.name,
        "backchannel",
        takes_over=len(short) < len(side.speech),
        per_second=len(short) / side.duration,
        divergence=divergence,
    )


def _is_backchannel(segment: Interval, words: Sequence[Interval] | None) -> bool:
    within = [word for word in words or () if word[0] < segment[1] and word[1] > segment[0]]
    return segment[1] - segment[0] < SHORT_S and len(within) <= BACKCHANNEL_WORDS


def _divergence(segments: Sequence[Interval], duration: float, reference: Sequence[float]) -> float:
    counts = np.zeros(math.ceil(duration / WINDOW_S) + 1)
    for start, end in segments:
        counts[int(start / WINDOW_S) : int(end / WINDOW_S) + 1] += 1
    places = np.linspace(0, 1, len(counts))
    people = np.interp(places, np.linspace(0, 1, len(reference)), reference)
    shares = [counts / counts.sum(), people / people.sum()]
    mixed = (shares[0] + shares[1]) / 2
    return 0.5 * sum(float((p[p > 0] * np.log2(p[p > 0] / mixed[p > 0])).sum()) for p in shares)


def score_all(samples: Iterable[Sample], side_of: Callable[[Sample], SystemSide], root: Path) -> list[Scored]:
    """Scores samples; one whose output cannot be read counts as failed, with the reason.

    Args:
        samples: The samples.
        side_of: Returns what the system said; raises ValueError where that cannot be read.
        root: Folder that may hold the reference of backchannels.
    """
    path = root / REFERENCE
    references = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    scored = []
    for sample in samples:
        try:
            scored.append(score(sample, side_of(sample), references.get(Path(sample.name).name)))
        except ValueError as error:
            scored.append(Scored(sample.name, sample.axis, failure=" ".join(str(error).split())))
    return scored


def of_bench(outcomes: Iterable[Outcome]) -> list[Scored]:
    """Returns the outcomes of the interruption bench on the axes that they belong to.

    A hesitating speaker is a pause, a user who only listens a change of turns, an interruption one. The voice
    gives no backchannels, so the bench has none to count.
    """
    rows = []
    for one in outcomes:
        name, failure = one.user, one.failure
        if one.kind == "hesitation":
            rows.append(Scored(name, "pause_handling", failure, takes_over=(one.answered or 0) < 0))
        elif one.kind == "silence":
            taken = one.answered is not None
            rows.append(Scored(name, "smooth_turn_taking", failure, taken, latency_ms=one.answered))
        elif one.kind == "barge_in":
            taken = one.again is not None
            rows.append(Scored(name, "user_interruption", failure, taken, one.again, one.stopped))
    return rows


def axes(scored: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """Returns the figures of each axis that has samples: n_in = n_ok + n_failed, means over what is there."""
    found = {}
    for axis in get_args(Axis):
        rows = [row for row in scored if row.axis == axis]
        good = [row for row in rows if not row.failure]
        if not rows:
            continue
        found[axis] = {
            "n_in": len(rows),
            "n_ok": len(good),
            "failed": {row.sample: row.failure for row in rows if row.failure},
            "take_over_rate": _mean([float(row.takes_over) for row in good]),
            "latency_ms": _mean([row.latency_ms for row in good]),
            "stop_ms": _mean([row.stop_ms for row in good]),
            "backchannels_per_second": _mean([row.per_second for row in good]),
            "divergence": _mean([row.divergence for row in good]),
        }
    return found


def _mean(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"n": len(known), "mean": round(sum(known) / len(known), 4)} if known else None
