"""Recording, segment, turn, conversation and corpus, and the files of a corpus folder.

A corpus folder holds:

    manifest.jsonl   one Conversation per line
    words.jsonl      times of words, where they are known (csm/data/word_times.py)
    audio/...        FLAC or WAV at the native sample rate
    rejects.jsonl    one line {"source", "unit", "reason", "seconds"} for each turn or file that was left out
    corpus.json      name, licence, consent, totals; written last, so a folder with this file is complete
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csm.data.id_index import first_repeat, id_hash
from csm.data.lazy_sequence import FileLines, LazySequence, items_of
from csm.system.digests import require_intact
from csm.system.files import full_disk_named

SPLITS = ("train", "validation", "test")
MANIFEST_NAME = "manifest.jsonl"
REJECTS_NAME = "rejects.jsonl"
CORPUS_NAME = "corpus.json"
# Shares of the conversations that are held out unless the source or the user decides.
TEST_SHARE, VALIDATION_SHARE = 0.10, 0.06
HELD_OUT_KEY = "held_out_speakers"  # key in corpus.json

_FILE_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)
}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One audio file of a source; its segments hold the speech.

    Attributes:
        id: Unique id, safe as a file name.
        audio: Path of the file.
        sample_rate: Sample rate in Hz.
        channels: Number of channels; with two, each carries one speaker.
        duration: Duration in seconds.
    """

    id: str
    audio: str
    sample_rate: int
    channels: int
    duration: float

    def __post_init__(self) -> None:
        _require_file_safe("Recording.id", self.id)
        if self.sample_rate <= 0 or self.channels <= 0 or not self.duration > 0:
            raise ValueError(
                f"Recording {self.id}: sample_rate is {self.sample_rate}, channels is {self.channels}, "
                f"duration is {self.duration}: expected each above 0; correct them"
            )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """An interval of one speaker's activity inside a recording.

    Attributes:
        speaker: Name of the speaker.
        start, end: Boundaries in seconds from the beginning of the recording.
        text: Transcript, "" if there is none.
        channel: Channel that carries this speaker, from 0.
        emotion: Emotion label, if there is one.
    """

    speaker: str
    start: float
    end: float
    text: str = ""
    channel: int = 0
    emotion: str | None = None

    def __post_init__(self) -> None:
        _require_times("Segment", self.speaker, self.start, self.end)

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A turn of a conversation, or one line of a turn: its speaker, transcript and audio.

    Attributes:
        id: Id, unique in the corpus and safe as a file name.
        conversation: Id of the conversation.
        index: Position in the conversation, from 0.
        speaker: Name of the speaker.
        text: Transcript, "" if there is none (such a turn only trains the tokenizer).
        audio: Path of the audio file relative to the corpus folder, with POSIX separators.
        start, end: Boundaries in that file in seconds.
        channel: Channel in that file, from 0.
        overlap: Whether another speaker is active during a part of the turn.
        backchannel: Whether the turn is at most 1 s of activity with at least 1 s of silence of the same
            speaker on both sides.
        emotion: Emotion label, if the corpus has one.
        synthetic: Whether the conversation was composed of unrelated recordings.
    """

    id: str
    conversation: str
    index: int
    speaker: str
    text: str
    audio: str
    start: float = 0.0
    end: float
    channel: int = 0
    overlap: bool = False
    backchannel: bool = False
    emotion: str | None = None
    synthetic: bool = False

    def __post_init__(self) -> None:
        _require_file_safe("Turn.id", self.id)
        _require_times("Turn", self.id, self.start, self.end)
        if not self.speaker:
            raise ValueError(f"Turn {self.id}: speaker is empty: expected a name; give the speaker one")
        if self.index < 0 or self.channel < 0:
            raise ValueError(
                f"Turn {self.id}: index is {self.index}, channel is {self.channel}: expected 0 or above; "
                f"count from 0"
            )
        if (
            not self.audio
            or self.audio.startswith("/")
            or ".." in self.audio.split("/")
            or "\\" in self.audio
            or ":" in self.audio
        ):
            raise ValueError(
                f"Turn {self.id}: audio is {self.audio!r}: expected a path relative to the corpus folder, "
                "with '/' between its parts and without '..'; correct the path"
            )

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self.end - self.start


_TURN_FIELDS = frozenset(item.name for item in fields(Turn))


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns in order, all in one split, so that no conversation is used for both training and test.

    Attributes:
        id: Id, unique in the corpus.
        split: Split, "train", "validation" or "test".
        turns: Turns in order; their indices count from 0.
    """

    id: str
    split: str
    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(
                f"Conversation {self.id}: split is {self.split!r}: expected one of {', '.join(SPLITS)}"
            )
        for index, turn in enumerate(self.turns):
            if turn.conversation != self.id or turn.index != index:
                raise ValueError(
                    f"Conversation {self.id}: turn {index} is {turn.id} with conversation "
                    f"{turn.conversation!r}, index {turn.index}: expected {self.id!r}, {index}; number "
                    f"the turns 0, 1, 2, ..."
                )


class Contents(NamedTuple):
    """What is known of conversations without reading them again.

    Attributes:
        splits: Place of each one's split in SPLITS, uint8 [C].
        turns: Number of each one's turns, int32 [C].
        speakers: Sorted names of all speakers.
    """

    splits: NDArray[np.uint8]
    turns: NDArray[np.int32]
    speakers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The contents of a finished corpus folder.

    Attributes:
        root: Path of the folder; a turn's audio file is `root / turn.audio`.
        conversations: Conversations in the order of the manifest; those of a folder are read where they are
            asked for.
        info: Contents of corpus.json: name, licence, held-out speakers, totals.
        parts: Folders of the corpora that were joined, all inside `root`; empty for one corpus.
    """

    root: Path
    conversations: Sequence[Conversation]
    info: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Path, ...] = ()

    @cached_property
    def contents(self) -> Contents:
        """Split and size of every conversation, and the speakers."""
        given = self.conversations
        return given.contents if isinstance(given, LazyConversations) else contents_of(given)

    def held(self) -> Corpus:
        """Returns the corpus in memory, some 1 KB a turn: for many passes over its conversations."""
        return replace(self, conversations=tuple(self.conversations))

    def folder_of(self, turn: Turn) -> Path:
        """Returns the corpus folder that holds a turn's audio file."""
        path = self.root / turn.audio
        return next((part for part in self.parts if path.is_relative_to(part)), self.root)

    def numbers_of(self, split: str | None = None) -> NDArray[np.int64]:
        """Returns the places of all conversations, or of those of one split, in order."""
        if split is not None and split not in SPLITS:
            raise ValueError(
                f"split is {split!r}: expected one of {', '.join(SPLITS)}, or None for all; choose one"
            )
        splits = self.contents.splits
        return np.flatnonzero(splits == SPLITS.index(split)) if split else np.arange(len(splits))

    def conversations_of(self, split: str | None = None) -> Iterator[Conversation]:
        """Yields all conversations, or those of one split, in the order of the manifest."""
        return items_of(self.conversations, self.numbers_of(split))

    def turns(self, split: str | None = None) -> Turns:
        """Returns all turns, or those of one split, in the order of the manifest; none is held."""
        return Turns(self, split)

    def speakers(self) -> list[str]:
        """Returns the sorted names of the speakers of all splits; a speaker's id is its index here."""
        return list(self.contents.speakers)

    def held_out_speakers(self) -> tuple[str, ...]:
        """Returns the speakers that corpus.json reserves for reports on unseen voices, none by default.

        An excerpt may lack some of them.
        """
        return tuple(self.info.get(HELD_OUT_KEY, ()))


class Turns(LazySequence[Turn]):
    """The turns of a corpus or of one split of it, read with their conversations.

    Args:
        corpus, split: As `Corpus.turns` takes them.
    """

    def __init__(self, corpus: Corpus, split: str | None) -> None:
        self._corpus, self._split = corpus, split
        self._numbers = corpus.numbers_of(split)
        self._starts = np.concatenate([[0], np.cumsum(corpus.contents.turns[self._numbers], dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Turn]:
        return (turn for found in self._corpus.conversations_of(self._split) for turn in found.turns)

    def read(self, numbers: Iterable[int]) -> Iterator[Turn]:
        for place, run in groupby(numbers, lambda number: bisect_right(self._starts, number) - 1):
            conversation = self._corpus.conversations[int(self._numbers[place])]
            yield from (conversation.turns[number - int(self._starts[place])] for number in run)


def contents_of(conversations: Iterable[Conversation]) -> Contents:
    """Returns what is to be known of conversations, each of which is read once."""
    splits, turns = bytearray(), array("i")
    speakers: set[str] = set()
    for conversation in conversations:
        splits.append(SPLITS.index(conversation.split))
        turns.append(len(conversation.turns))
        speakers.update(turn.speaker for turn in conversation.turns)
    return Contents(np.frombuffer(splits, np.uint8), np.frombuffer(turns, np.int32), tuple(sorted(speakers)))


def split_of(conversation_id: str) -> str:
    """Returns the split of a conversation, a function of its id: 84 % train, 6 % validation, 10 % test.

    The first 8 bytes of SHA-256("csm/id") as a fraction of 2^64 decide: below 0.10 test, below 0.16
    validation, else train. The percentages are of conversations, not of minutes.
    """
    fraction = hash_fraction(conversation_id)
    if fraction < TEST_SHARE:
        return "test"
    return "validation" if fraction < TEST_SHARE + VALIDATION_SHARE else "train"


def hash_fraction(conversation_id: str) -> float:
    """Returns a number from 0 to 1 that a conversation's id decides."""
    digest = hashlib.sha256(f"csm/{conversation_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def file_safe(name: str) -> str:
    """Returns `name` if it is safe as a file name on every system, else a safe name that stays unique.

    Every character outside `A-Za-z0-9._-` becomes "_", and ten digits of the name's SHA-256 are appended.
    """
    if _is_file_safe(name) and len(name) <= 80:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"x{re.sub('[^A-Za-z0-9._-]', '_', name)[:60]}-{digest}"


def write_manifest(path: str | Path, conversations: Iterable[Conversation]) -> None:
    """Writes one conversation per line, keys in a fixed order, UTF-8, "\\n" line ends on every system."""
    write_jsonl(path, (asdict(conversation) for conversation in conversations))


def write_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object per line, UTF-8, "\\n" line ends on every system."""
    with full_disk_named(path), open(path, "w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


class LazyConversations(LazySequence[Conversation]):
    """Conversations that are read where they are asked for, with their contents."""

    contents: Contents


class Manifest(LazyConversations):
    """The conversations of a manifest; holds 13 bytes for each.

    All are read once at first, in which time the hashes of the turns' ids take 8 bytes a turn.

    Args:
        path: Of the file.

    Raises:
        ValueError: A line is no conversation, or two turns share an id; the message names the line.
    """

    def __init__(self, path: str | Path) -> None:
        self._lines = FileLines(path)
        hashes = bytearray()
        try:
            self.contents = contents_of(self._first_reading(hashes))
        finally:  # two equal ids stand before a line that is no conversation
            self._require_unique(hashes)

    def __len__(self) -> int:
        return len(self._lines)

    def read(self, numbers: Iterable[int]) -> Iterator[Conversation]:
        return map(_parsed, self._lines.read(numbers))

    def _first_reading(self, hashes: bytearray) -> Iterator[Conversation]:
        for number, line in enumerate(self._lines.first_reading(), 1):
            try:
                conversation = _parsed(line)
            except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
                raise ValueError(f"{self._lines.path}, line {number}: is no conversation: {error}") from error
            for turn in conversation.turns:
                hashes += id_hash(turn.id)
            yield conversation

    def _require_unique(self, hashes: bytearray) -> None:
        found = first_repeat(
            hashes, ((turn.id, number) for number, one in enumerate(self, 1) for turn in one.turns)
        )
        if found is not None:
            name, number = found
            raise ValueError(
                f"{self._lines.path}, line {number}: turn id {name!r} appears twice; make the ids unique"
            )


class JoinedConversations(LazyConversations):
    """The conversations of several corpora, one after the other.

    Args:
        corpora: The corpora.
        root: A folder that holds those of all; audio paths are relative to it.
    """

    def __init__(self, corpora: Sequence[Corpus], root: Path) -> None:
        self._parts = [corpus.conversations for corpus in corpora]
        self._folders = [corpus.root.absolute().relative_to(root) for corpus in corpora]
        self._starts = [0, *accumulate(map(len, self._parts))]
        contents = [corpus.contents for corpus in corpora]
        self.contents = Contents(
            np.concatenate([found.splits for found in contents]),
            np.concatenate([found.turns for found in contents]),
            tuple(sorted({name for found in contents for name in found.speakers})),
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, numbers: Iterable[int]) -> Iterator[Conversation]:
        for place, run in groupby(numbers, lambda number: bisect_right(self._starts, number) - 1):
            folder, start = self._folders[place], self._starts[place]
            for conversation in items_of(self._parts[place], (number - start for number in run)):
                moved = (replace(t, audio=(folder / t.audio).as_posix()) for t in conversation.turns)
                yield replace(conversation, turns=tuple(moved))


def read_manifest(path: str | Path) -> Manifest:
    """Opens a manifest.

    Raises:
        ValueError: A line is no conversation, or two turns share an id; the message names the line.
    """
    return Manifest(path)


def read_corpus(folders: str | Path) -> Corpus:
    """Reads a finished corpus folder, or several as one: `data/a,data/b`.

    The manifests are read once, those of several twice; after that a conversation is read where it is asked
    for. Turns of several keep their splits, their files stay where they are.

    Raises:
        ValueError: A folder is missing or holds no finished corpus; the message says how to prepare one. Two
            corpora have a conversation or a turn of the same id.
    """
    corpora = [_read_one(Path(folder)) for folder in str(folders).split(",")]
    return corpora[0] if len(corpora) == 1 else join_corpora(corpora)


def join_corpora(corpora: Sequence[Corpus]) -> Corpus:
    """Returns the conversations of all corpora as one; its root is the folder that holds all of theirs.

    Raises:
        ValueError: Two corpora have a conversation or a turn of the same id.
    """
    root = Path(os.path.commonpath([corpus.root.absolute() for corpus in corpora]))
    joined = JoinedConversations(corpora, root)
    conversations, turns = bytearray(), bytearray()
    for conversation in joined:
        conversations += id_hash(conversation.id)
        for turn in conversation.turns:
            turns += id_hash(turn.id)
    for kind, found in (
        ("conversation", first_repeat(conversations, ((c.id, c) for c in joined))),
        ("turn", first_repeat(turns, ((turn.id, c) for c in joined for turn in c.turns))),
    ):
        if found is not None:
            raise ValueError(
                f"corpus: {kind} {found[0]!r} is in two of {', '.join(str(c.root) for c in corpora)}: "
                f"expected corpora without common ids; leave one out"
            )
    info = {
        "name": "+".join(str(corpus.info.get("name", corpus.root.name)) for corpus in corpora),
        HELD_OUT_KEY: sorted({name for corpus in corpora for name in corpus.held_out_speakers()}),
    }
    parts = tuple(corpus.root.absolute() for corpus in corpora)
    return Corpus(root=root, conversations=joined, info=info, parts=parts)


def _read_one(folder: Path) -> Corpus:
    root = folder
    if not (root / CORPUS_NAME).is_file() or not (root / MANIFEST_NAME).is_file():
        raise ValueError(
            f"{root} holds no finished corpus: expected {CORPUS_NAME} and {MANIFEST_NAME}; prepare one with "
            f"`csm prepare --corpus NAME --output {root}`"
        )
    for name in (CORPUS_NAME, MANIFEST_NAME):
        require_intact(root / name, "prepare the corpus again, or copy it again")
    try:
        info = json.loads((root / CORPUS_NAME).read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{root / CORPUS_NAME} is damaged ({error}): prepare the corpus again") from error
    return Corpus(root=root, conversations=read_manifest(root / MANIFEST_NAME), info=info)


def _parsed(line: bytes) -> Conversation:
    record = json.loads(line.decode("utf-8"))
    for turn in record["turns"]:
        if unknown := sorted(set(turn) - _TURN_FIELDS):
            raise ValueError(
                f"a turn has fields {', '.join(unknown)}: expected {', '.join(sorted(_TURN_FIELDS))}; remove "
                f"them"
            )
    turns = tuple(Turn(**turn) for turn in record["turns"])
    return Conversation(id=record["id"], split=record["split"], turns=turns)


def _is_file_safe(name: str) -> bool:
    return (
        _FILE_SAFE.fullmatch(name) is not None
        and not name.endswith(".")
        and name.split(".")[0].lower() not in _WINDOWS_DEVICES
    )


def _require_file_safe(what: str, name: str) -> None:
    if not _is_file_safe(name):
        raise ValueError(
            f"{what} is {name!r}: expected at most 100 of A-Z a-z 0-9 . _ - as a file name; use file_safe()"
        )


def _require_times(what: str, name: str, start: float, end: float) -> None:
    if not 0.0 <= start < end < float("inf"):
        raise ValueError(
            f"{what} {name}: start={start}, end={end} s: expected 0 <= start < end; correct the times"
        )
