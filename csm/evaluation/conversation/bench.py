"""The interruption bench: what a subject does with each scripted user, measured on its audio alone.

A voice that falls silent over an event has stopped if it stays silent for 1.5 s, or if what it says next is
not the reply that it was giving. That whole reply is recorded first: the same opening is played to another
subject of the same kind without an event. A voice that paused says the next part of it; one that was
interrupted answers.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from csm.evaluation.conversation.old_speech import SAME, likeness, stretch_after
from csm.evaluation.conversation.users import RATE, YIELDS, ScriptedUser, audible_span

STEP_S = 0.02
BEFORE_S, EVENT_AFTER_S, AFTER_S = 0.5, 1.0, 4.0
PATIENCE_S = 6.0  # without a reply by then there is none
AUDIBLE = 10 ** (-45 / 20)  # of full scale
STOP_WITHIN_S, STOP_S, PAUSE_S = 2.0, 1.5, 0.3


class Subject(Protocol):
    """What can be talked to, in steps of 20 ms."""

    rate: int

    def step(self, samples: Float[Tensor, " S"], rate: int) -> Float[Tensor, " S"]:
        """Returns the voice's audio of the time in which the user's samples come."""

    def close(self) -> None:
        """Ends the conversation."""


class Outcome(NamedTuple):
    """What one user met. Times in milliseconds; None where it did not happen.

    Attributes:
        user: The user's name.
        kind: Its kind.
        failure: Why there is no outcome; "" if there is.
        answered: Gap between the opening's last sound and the voice's first; negative if it cut in.
        stopped: From the event's first sound to the voice's last before a silence that begins within 2 s and
            lasts at least 1.5 s or ends in other speech than the reply that it was giving.
        paused: Longest silence of the voice that began within 2 s of the event.
        stale: Audible voice between the stop and the event's end.
        again: Gap between the event's last sound and the voice's answer; negative if it cut in.
        error: Frames by which the context differs from what was played; None where the subject reports none.
    """

    user: str
    kind: str
    failure: str = ""
    answered: float | None = None
    stopped: float | None = None
    paused: float = 0.0
    stale: float = 0.0
    again: float | None = None
    error: float | None = None


def run_bench(users: Sequence[ScriptedUser], make: Callable[[], Any]) -> list[Outcome]:
    """Lets every user talk to a new subject; users of one opening share its uninterrupted reply."""
    outcomes: list[Outcome] = []
    replies: dict[int, Tensor] = {}  # by the opening
    for user in users:
        opening = id(user.opening)
        if user.kind not in ("hesitation", "silence") and opening not in replies:
            replies[opening] = _talked(user._replace(event=torch.zeros(RATE)), make, None)[1]
        outcome, audio = _talked(user, make, replies.get(opening))
        outcomes.append(outcome)
        if user.kind == "silence":
            replies[opening] = audio
    return outcomes


def _talked(
    user: ScriptedUser, make: Callable[[], Any], reply: Tensor | None
) -> tuple[Outcome, Float[Tensor, " S"]]:
    subject = make()
    voice = _Voice(subject)
    try:
        return talk(user, voice, reply), voice.audio
    finally:
        subject.close()


@torch.no_grad()
def talk(user: ScriptedUser, voice: _Voice, reply: Float[Tensor, " S"] | None) -> Outcome:
    """Plays a user: the opening, and the event 1 s after the voice began to answer.

    Args:
        user: The user.
        voice: A new subject's.
        reply: The voice's audio of a conversation without an event; None takes this one's.
    """
    opening = torch.cat([torch.zeros(round(BEFORE_S * RATE)), user.opening])
    voice.hear(opening)
    opening_end = (round(BEFORE_S * RATE) + audible_span(user.opening)[1]) / RATE
    first = voice.until_audible(PATIENCE_S)
    if first is None:
        return Outcome(user.name, user.kind, failure=f"no answer in {PATIENCE_S:.0f} s")
    answered = 1000 * (first - opening_end)
    if user.kind == "hesitation":
        return Outcome(user.name, user.kind, answered=answered)
    voice.hear(torch.zeros(max(0, round((first + EVENT_AFTER_S - voice.time) * RATE))))
    if reply is not None and not voice.says(reply, first):
        failure = "another reply to the same opening: its answers cannot be distinguished from it"
        return Outcome(user.name, user.kind, failure, answered)
    begin = voice.time
    onset, end = (begin + sample / RATE for sample in audible_span(user.event))
    voice.hear(torch.cat([user.event, torch.zeros(round(AFTER_S * RATE))]))
    return _outcome(user, voice, voice.audio if reply is None else reply, answered, (onset, max(end, onset)))


def _outcome(
    user: ScriptedUser, voice: _Voice, reply: Tensor, answered: float, event: tuple[float, float]
) -> Outcome:
    onset, end = event
    gaps = [(max(a, onset), b) for a, b in voice.silences() if b > onset and a <= onset + STOP_WITHIN_S]
    stop = next((a for a, b in gaps if b - a >= STOP_S or not voice.says(reply, b)), None)
    again = None
    if YIELDS[user.kind] and stop is not None:
        stretches = [begin for begin, silent in voice.stretches() if begin > stop and silent > end]
        again = next((begin for begin in stretches if not voice.says(reply, begin)), None)
    error = None
    if stop is not None and hasattr(voice.subject, "context_error"):
        error = voice.subject.context_error()
    return Outcome(
        user.name,
        user.kind,
        answered=answered,
        stopped=None if stop is None else 1000 * (stop - onset),
        paused=1000 * max((b - a for a, b in gaps), default=0.0),
        stale=0.0 if stop is None else 1000 * voice.audible_within(stop + 0.001, end),
        again=None if again is None else 1000 * (again - end),
        error=error,
    )


class _Voice:
    """A subject and its audio so far."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._audio: list[Tensor] = []
        self.time = 0.0  # of the user's side, in seconds

    @property
    def audio(self) -> Float[Tensor, " S"]:
        """The voice's audio so far, at its own rate."""
        return torch.cat(self._audio)

    def says(self, reply: Float[Tensor, " S"], begin: float) -> bool:
        """Whether what it says from a time on is part of a reply; also where it says nothing."""
        silent = next((a for a, _ in self.silences() if a > begin), self.time)
        stretch = stretch_after(self.audio, begin, silent, self.subject.rate)
        return not bool(stretch.any()) or likeness(stretch, reply) >= SAME

    def hear(self, samples: Tensor) -> None:
        """Plays user audio in steps."""
        for part in samples.split(round(STEP_S * RATE)):
            self._audio.append(self.subject.step(part, RATE))
            self.time += len(part) / RATE

    def until_audible(self, patience: float) -> float | None:
        """Plays silence until the voice is audible; returns when that began, which may be before."""
        first = self.first_audible(0.0)
        limit = self.time + patience
        while first is None and self.time < limit:
            self.hear(torch.zeros(round(STEP_S * RATE)))
            if bool((self._audio[-1].abs() > AUDIBLE).any()):
                first = self.first_audible(0.0)
        return first

    def first_audible(self, after: float) -> float | None:
        """Seconds of the first audible sample after a time."""
        places = self._loud()
        later = places[places >= after * self.subject.rate]
        return float(later[0]) / self.subject.rate if len(later) else None

    def audible_within(self, start: float, end: float) -> float:
        """Seconds of audible steps of 20 ms in an interval."""
        places = self._loud() / self.subject.rate
        inside = places[(places >= start) & (places < end)]
        return STEP_S * len((inside / STEP_S).long().unique())

    def silences(self) -> list[tuple[float, float]]:
        """Intervals of at least 50 ms between audible samples, and the one after the last."""
        places = self._loud()
        edges = torch.cat([places, torch.tensor([sum(map(len, self._audio))])])
        long = ((edges[1:] - edges[:-1]) > 0.05 * self.subject.rate).nonzero()[:, 0]
        return [(float(edges[i]) / self.subject.rate, float(edges[i + 1]) / self.subject.rate) for i in long]

    def stretches(self) -> list[tuple[float, float]]:
        """Intervals of audible speech between silences, without the first one."""
        gaps = [*self.silences(), (self.time, self.time)]
        return [(begin, silent) for (_, begin), (silent, _) in itertools.pairwise(gaps)]

    def _loud(self) -> Tensor:
        return (self.audio.abs() > AUDIBLE).nonzero()[:, 0]


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Summarises outcomes: rates with their counts, and p50 and p95 of times in milliseconds."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    ok = {kind: [one for one in all_ if not one.failure] for kind, all_ in by_kind.items()}
    return {
        "n": len(outcomes),
        "failed": {one.user: one.failure for one in outcomes if one.failure},
        **_interruptions(ok.get("barge_in", [])),
        "short_interruptions": _interruptions(ok.get("short_interruption", [])),
        "false_stops": {
            kind: _share([one.stopped is not None for one in ok.get(kind, [])]) for kind in _kept()
        },
        "false_pauses": {
            kind: _share([one.paused >= 1000 * PAUSE_S and one.stopped is None for one in ok.get(kind, [])])
            for kind in _kept()
        },
        "response_gap_ms": _quantiles([one.answered for kind in ok if kind in YIELDS for one in ok[kind]]),
        "cut_in_rate": _share([(one.answered or 0) < 0 for one in ok.get("hesitation", [])]),
    }


def _interruptions(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    yielded = [one for one in outcomes if one.stopped is not None]
    return {
        "yield_rate": _share([one.stopped is not None for one in outcomes]),
        "answered": _share([one.again is not None for one in outcomes]),
        "stop_latency_ms": _quantiles([one.stopped for one in yielded]),
        "stale_ms": _quantiles([one.stale for one in yielded]),
        "first_audio_after_ms": _quantiles([one.again for one in yielded]),
        "context_error_frames": _quantiles([one.error for one in yielded]),
    }


def _kept() -> list[str]:
    return [kind for kind, yields in YIELDS.items() if not yields]


def _share(events: Sequence[bool]) -> dict[str, int]:
    return {"count": sum(events), "of": len(events)}


def _quantiles(values: Iterable[float | None]) -> dict[str, float | int] | None:
    """p50 and p95 (nearest rank) with the number of values; None of none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    rank = max(0, -(-95 * len(known) // 100) - 1)
    return {"n": len(known), "p50": round(statistics.median(known), 1), "p95": round(known[rank], 1)}
