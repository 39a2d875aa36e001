"""The log of a conversation: what happened when, in samples of the conversation's clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

# user_begins, user_ends: a turn of the user; `at` is when it was detected, `since` the sample it refers to.
# pause: a pause of the user was classified, with the probability that it ends the turn: "shift", or "hold".
# backchannel: speech of the user that ended before it was a turn. hold, resume: the voice pauses while it is
# open whether speech is a backchannel. barge_in: the voice is stopped. voice_begins, voice_ends: first and
# last sample of a reply. underrun: a reply had no audio in time. heard: recognised words of the user's turn.
# said: words of a reply as far as they were played. failed: a replier or recogniser raised an error.
Kind = Literal[
    "user_begins",
    "user_ends",
    "pause",
    "backchannel",
    "hold",
    "resume",
    "barge_in",
    "voice_begins",
    "voice_ends",
    "underrun",
    "heard",
    "said",
    "failed",
]


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        at: Sample of the clock at which the conversation learnt of it.
        kind: What happened.
        since: Sample at which it began: the onset of the speech that was detected at `at`, for one.
        text: Words, or the reason of a failure.
        source: Recogniser of the user's words, or what classified a pause.
    """

    at: int
    kind: Kind
    since: int
    text: str = ""
    source: str = ""


class EventLog:
    """Events in the order in which they were logged.

    Args:
        rate: Samples per second of the clock.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._events: list[Event] = []

    def add(self, at: int, kind: Kind, *, since: int | None = None, text: str = "", source: str = "") -> None:
        """Appends an event; `since` None is `at`."""
        assert kind in get_args(Kind), kind
        self._events.append(Event(at, kind, at if since is None else since, text, source))

    def of(self, *kinds: Kind) -> list[Event]:
        """Returns the events of these kinds."""
        return [event for event in self._events if event.kind in kinds]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def after(self, number: int) -> list[Event]:
        """Returns the events after the first `number`."""
        return self._events[number:]
