"""The data nouns and their files: recording, segment, turn, conversation, corpus.

A corpus is a folder::

    manifest.jsonl   one Conversation a line
    audio/...        FLAC or WAV at the native sample rate
    rejects.jsonl    one line {"source", "unit", "reason"} for everything that was not used
    corpus.json      name, licence, totals; written last, so a folder that has it is complete
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

SPLITS = ("train", "validation", "test")
MANIFEST_NAME = "manifest.jsonl"
REJECTS_NAME = "rejects.jsonl"
CORPUS_NAME = "corpus.json"

_FILE_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)
}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One audio file as it came: what is spoken in it is told by its segments.

    Attributes:
        id: Unique, file-name safe.
        audio: Path of the file.
        sample_rate: Hz.
        channels: Number of channels; one speaker each when there are two.
        duration: Seconds.
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
                f"Recording {self.id}: sample_rate={self.sample_rate}, channels={self.channels}, "
                f"duration={self.duration}; each must be above zero"
            )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of one speaker's activity inside a recording; times in seconds.

    Attributes:
        speaker: Who speaks.
        start, end: Seconds from the beginning of the recording.
        text: What is said, "" where no transcript is known.
        channel: The channel that carries this speaker, from 0.
        emotion: A label, where one is known.
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
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one speaker says before another one does, or one line of it, with the audio that holds it.

    Attributes:
        id: Unique in the corpus, file-name safe.
        conversation: Id of the conversation it belongs to.
        index: Running number in the conversation, from 0.
        speaker: Name of the speaker.
        text: What is said, "" where no transcript is known (usable by the tokenizer only).
        audio: Path relative to the corpus folder, POSIX separators.
        start, end: Seconds in that file.
        channel: Channel in that file, from 0.
        overlap: True when another speaker is active during a part of it.
        backchannel: True for at most 1 s of activity with at least 1 s of own silence on both sides.
        emotion: A label, where the corpus has one.
        synthetic: True when the conversation was put together from unrelated recordings.
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
            raise ValueError(f"Turn {self.id}: speaker is empty; give the speaker a name")
        if self.index < 0 or self.channel < 0:
            raise ValueError(f"Turn {self.id}: index={self.index}, channel={self.channel}; both count from 0")
        path = PurePosixPath(self.audio)
        if (
            not self.audio
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in self.audio
            or ":" in self.audio
        ):
            raise ValueError(
                f"Turn {self.id}: audio={self.audio!r} must be a path relative to the corpus folder with '/' "
                "between its parts and without '..'"
            )

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns in order, all in one split, so that no conversation is both trained on and tested on.

    Attributes:
        id: Unique in the corpus.
        split: "train", "validation" or "test".
        turns: In order; their indices run from 0.
    """

    id: str
    split: str
    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(
                f"Conversation {self.id}: split={self.split!r}; expected one of {', '.join(SPLITS)}"
            )
        for index, turn in enumerate(self.turns):
            if turn.conversation != self.id or turn.index != index:
                raise ValueError(
                    f"Conversation {self.id}: place {index} holds turn {turn.id} with conversation="
                    f"{turn.conversation!r}, index={turn.index}; number the turns 0, 1, 2, ..."
                )


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A finished corpus folder, read.

    Attributes:
        root: The folder; a turn's audio is ``root / turn.audio``.
        conversations: In the order of the manifest.
        info: What corpus.json says: name, licence, totals.
    """

    root: Path
    conversations: tuple[Conversation, ...]
    info: dict[str, Any] = field(default_factory=dict)

    def turns(self, split: str | None = None) -> list[Turn]:
        """All turns, or those of one split, in the order of the manifest."""
        if split is not None and split not in SPLITS:
            raise ValueError(f"split={split!r}; expected one of {', '.join(SPLITS)} or None for all")
        return [turn for c in self.conversations if split in (None, c.split) for turn in c.turns]

    def speakers(self) -> list[str]:
        """Names of all speakers of all splits, sorted; a speaker's id is the index in this list."""
        return sorted({turn.speaker for turn in self.turns()})


def split_of(conversation_id: str, seed: str = "csm") -> str:
    """The split of a conversation: 84 % train, 6 % validation, 10 % test, fixed for ever by its id.

    The first 8 bytes of SHA-256("seed/id") as a fraction of 2^64: below 0.10 test, below 0.16
    validation, else train. Shares are of conversations, not of minutes.
    """
    digest = hashlib.sha256(f"{seed}/{conversation_id}".encode("utf-8", "surrogatepass")).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if fraction < 0.10 else "validation" if fraction < 0.16 else "train"


def file_safe(name: str) -> str:
    """`name` itself when it is safe as a file name on every system, else a safe form that stays unique.

    Anything outside ``A-Za-z0-9._-`` becomes "_" and ten digits of SHA-256 of the original are added.
    """
    if _is_file_safe(name) and len(name) <= 80:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"x{re.sub('[^A-Za-z0-9._-]', '_', name)[:60]}-{digest}"


def write_manifest(path: str | Path, conversations: Iterable[Conversation]) -> None:
    """Writes one conversation a line, keys in a fixed order, UTF-8, "\\n" line ends on every system."""
    write_jsonl(path, (asdict(conversation) for conversation in conversations))


def write_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line, UTF-8, "\\n" line ends on every system."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_manifest(path: str | Path) -> tuple[Conversation, ...]:
    """Reads a manifest.

    Raises:
        ValueError: A line is no conversation (the line number is named), or two turns share an id.
    """
    conversations = []
    seen: set[str] = set()
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                conversation = _conversation_from(json.loads(line))
            except (TypeError, KeyError, AttributeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: not a conversation: {error}") from error
            for turn in conversation.turns:
                if turn.id in seen:
                    raise ValueError(
                        f"{path}, line {number}: turn id {turn.id!r} appears twice; ids must be unique"
                    )
                seen.add(turn.id)
            conversations.append(conversation)
    return tuple(conversations)


def read_corpus(folder: str | Path) -> Corpus:
    """Reads a finished corpus folder.

    Raises:
        ValueError: The folder is missing or holds no finished corpus; says how to prepare one.
    """
    root = Path(folder)
    if not (root / CORPUS_NAME).is_file() or not (root / MANIFEST_NAME).is_file():
        raise ValueError(
            f"{root} holds no finished corpus ({CORPUS_NAME} and {MANIFEST_NAME} expected); prepare one with "
            f"`python launch/prepare_data.py --corpus NAME --output {root}`"
        )
    info = json.loads((root / CORPUS_NAME).read_text(encoding="utf-8"))
    return Corpus(root=root, conversations=read_manifest(root / MANIFEST_NAME), info=info)


def _conversation_from(record: dict[str, Any]) -> Conversation:
    known = {item.name for item in fields(Turn)}
    for turn in record["turns"]:
        if unknown := sorted(set(turn) - known):
            raise ValueError(
                f"a turn has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}"
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
            f"{what}={name!r} is no safe file name; use file_safe() or A-Z a-z 0-9 . _ - (at most 100)"
        )


def _require_times(what: str, name: str, start: float, end: float) -> None:
    if not 0.0 <= start < end < float("inf"):
        raise ValueError(f"{what} {name}: start={start}, end={end} s; expected 0 <= start < end")
