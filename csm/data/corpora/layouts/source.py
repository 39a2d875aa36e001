"""What a layout gives: conversations of turns that point into the user's files, and how it is recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from csm.data.corpora.layouts.tree import Tree
from csm.data.manifest import Segment
from csm.data.word_times import Word


@dataclass(frozen=True, kw_only=True)
class SourceTurn:
    """A turn in a source, or one word of it.

    Attributes:
        speaker: Name of the speaker.
        text: Transcript, not empty.
        audio: Path of the file.
        start, end: Boundaries in that file in seconds; `end` None is the end of the file.
        channel: Channel in that file, from 0.
        emotion: Emotion label, if the source has one.
        words: Words with their times in that file, where the source has them.
        id: Id that the source gives; None is CONVERSATION-NUMBER.
        overlap: Whether another speaker is known to speak at the same time on the same channel.
        backchannel: Whether it is known to be a backchannel, of a turn in a file of its own.
    """

    speaker: str
    text: str
    audio: Path
    start: float = 0.0
    end: float | None = None
    channel: int = 0
    emotion: str | None = None
    words: tuple[Word, ...] = ()
    id: str | None = None
    overlap: bool = False
    backchannel: bool = False


@dataclass(kw_only=True)
class SourceConversation:
    """A conversation in a source.

    Attributes:
        id: Id, unique in the source.
        turns: Turns in the order of the source.
        timeline: Whether start and end of all turns count from one moment: one file, or files that were
            recorded at the same time. Then turns are ordered by time, overlaps and backchannels marked.
        join: Whether turns are words or parts of turns, joined into turns by their pauses (`to_turns`).
        split: Split that the source states; None is decided by the id.
        synthetic: Whether unrelated recordings were composed.
    """

    id: str
    turns: list[SourceTurn] = field(default_factory=list)
    timeline: bool = False
    join: bool = False
    split: str | None = None
    synthetic: bool = False


class UntimedText(NamedTuple):
    """A text of a recording: its speaker and channel, None where they are unknown."""

    text: str
    speaker: str | None = None
    channel: int | None = None


@dataclass(frozen=True, kw_only=True)
class Untranscribed:
    """A recording whose words the source does not hold.

    Attributes:
        id: Id, unique in the source.
        audio: Path of the file.
        speakers: Name of each channel's speaker; empty where they are unknown.
        emotion: Emotion label of the whole recording.
        texts: What is said, in order and without times, as far as it is known.
        spans: Who speaks when, without texts; empty where that is unknown.
    """

    id: str
    audio: Path
    speakers: tuple[str, ...] = ()
    emotion: str | None = None
    texts: tuple[UntimedText, ...] = ()
    spans: tuple[Segment, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout.

    Attributes:
        name: Name for --layout.
        looks_for: The files that it is recognised by, one line.
        recognise: Returns one line about what was found in the tree, None if the layout is not this one.
        read: Yields the conversations; turns and files that it cannot use go to the tree's ledger.
    """

    name: str
    looks_for: str
    recognise: Callable[[Tree], str | None]
    read: Callable[[Tree], Iterator[SourceConversation | Untranscribed]]
