"""Writes corpus folders: atomically, with reproducible bytes, and with a reason for each reject."""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from csm.audio.files import AudioInfo, copy_audio
from csm.data.corpora.split_choice import SplitChoice
from csm.data.manifest import (
    CORPUS_NAME,
    MANIFEST_NAME,
    REJECTS_NAME,
    SPLITS,
    Conversation,
    Corpus,
    Turn,
    read_corpus,
    write_jsonl,
    write_manifest,
)
from csm.data.record_file import RecordFile
from csm.data.word_times import Word, write_words
from csm.system.digests import record_digests
from csm.system.files import hash_key, write_atomically
from csm.system.log import log

NOTHING_LEFT = {
    "train": ": nothing can be trained on it; hold out less with --validation and --test",
    "validation": ": a training would be watched on what it trains on; hold some out with --validation",
}
IDENTITY_NAME = "identity.json"
# Most letters per second of a text of MANY_LETTERS or more, fewest of a turn of LONG_TURN seconds or more.
HIGHEST_PACE, MANY_LETTERS = 28.0, 20
LOWEST_PACE, LONG_TURN = 1.0, 5.0


@dataclass
class CorpusWriter:
    """Collects turns and rejects in `.NAME.partial` beside the folder; `finish` renames it into place.

    An interrupted run leaves only the partial folder. The next run of the same identity keeps its audio and
    what took long to find, and writes everything else again, so the result depends on the source alone.
    Turns, words and rejects are held up to 16 MB each; beyond, a turn takes 12 bytes of memory.

    Attributes:
        folder: Path of the corpus folder.
        identity: Name and source of the corpus; an existing folder with the same identity is finished,
            one with another identity is refused.
        notes: Further fields of corpus.json, e.g. licence and modification notice.
        needed_bytes: Required free space in bytes.
        splits: What is held out.
    """

    folder: Path
    identity: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)
    needed_bytes: int = 0
    splits: SplitChoice = field(default_factory=SplitChoice)
    # Of each conversation its number, and by that its split and size; of each turn its conversation's number.
    _numbers: dict[str, int] = field(default_factory=dict, init=False)
    _splits: list[str] = field(default_factory=list, init=False)
    _sizes: array[int] = field(default_factory=lambda: array("i"), init=False)
    _conversations: array[int] = field(default_factory=lambda: array("i"), init=False)
    _turns: RecordFile[tuple[Turn, Sequence[Word]]] = field(init=False)
    _rejects: RecordFile[dict[str, Any]] = field(init=False)
    _counts: Counter[str] = field(default_factory=Counter, init=False)
    _implausible: list[str] = field(default_factory=list, init=False)
    _left: set[Path] = field(default_factory=set, init=False)  # by an interrupted run, not used yet

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).absolute()
        self._turns, self._rejects = RecordFile(self.partial), RecordFile(self.partial)

    @property
    def partial(self) -> Path:
        """Path of the folder that `finish` renames."""
        return self.folder.parent / f".{self.folder.name}.partial"

    def finished(self) -> Corpus | None:
        """Returns the corpus if the folder is finished, None if it is missing or empty; writes nothing.

        Raises:
            ValueError: The folder holds something else.
        """
        if (self.folder / CORPUS_NAME).is_file():
            corpus = read_corpus(self.folder)
            self._require_same(corpus.info)
            return corpus
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ValueError(
                f"{self.folder} exists and is no corpus: expected a corpus or an empty folder; move it away "
                f"or choose another --output"
            )
        return None

    def start(self, *, resume: bool = False) -> None:
        """Creates an empty partial folder; that of an interrupted run is replaced, or resumed.

        Args:
            resume: Whether the copies and what is `remembered` of an interrupted run of the same identity
                are kept.

        Raises:
            ValueError: The corpus folder is not empty, or the disk is too full.
        """
        if self.finished():
            raise ValueError(f"{self.folder} is finished already: expected an empty folder; call finished()")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder.parent).free
        if free < self.needed_bytes:
            raise ValueError(
                f"{self.folder.parent} has {free / 1e6:.0f} MB free: expected "
                f"{self.needed_bytes / 1e6:.0f} MB; make room or choose another --output"
            )
        identity = json.dumps(self.identity, sort_keys=True)
        if resume and _text_of(self._resume / IDENTITY_NAME) == identity:
            log.info("%s: an interrupted preparation is resumed", self.folder)
            self._left = {path for path in self.partial.rglob("*") if path.is_file()}
            return
        shutil.rmtree(self.partial, ignore_errors=True)
        self._resume.mkdir(parents=True)
        write_atomically(self._resume / IDENTITY_NAME, identity)

    @property
    def _resume(self) -> Path:
        """Folder of what only a resumed run reads."""
        return self.partial / ".resume"

    def copy(self, source: Path, audio: str, info: AudioInfo) -> None:
        """Copies audio into the corpus (`copy_audio`); a copy of the interrupted run is whole and kept."""
        target = self.partial / audio
        if target in self._left:
            self._left.remove(target)
        else:
            copy_audio(source, target, info)

    def remembered(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns what `make` returns, JSON, which a run that is interrupted later leaves to the next.

        Args:
            name: What it is of, unique in the corpus.
            make: Called where it is not there.
        """
        path = self._resume / f"{hash_key(name).hex()[:32]}.json"
        if (text := _text_of(path)) is not None:
            return json.loads(text)
        made = make()
        write_atomically(path, json.dumps(made))
        return made

    def add(self, turn: Turn, *, split: str | None = None, words: Sequence[Word] = ()) -> None:
        """Appends a turn to its conversation and sets its index.

        Args:
            turn: The turn.
            split: Split of its conversation that the source states; None is a function of the id.
            words: Its words with their times, where they are known.
        """
        if (problem := implausible_pace(turn)) is not None:
            self._implausible.append(f"{turn.id}: {problem}")
        chosen = self.splits.of(turn.conversation, split)
        number = self._numbers.setdefault(turn.conversation, len(self._numbers))
        if number == len(self._sizes):
            self._splits.append(chosen)
            self._sizes.append(0)
        self._splits[number] = chosen
        self._turns.append((replace(turn, index=self._sizes[number]), words))
        self._conversations.append(number)
        self._sizes[number] += 1

    def use_file(self) -> None:
        """Counts one source file as used."""
        self._counts["files_used"] += 1

    def reject(self, source: str, reason: str, *, unit: str = "turn", seconds: float | None = None) -> None:
        """Adds a turn or a file that is left out to the reject ledger, with the reason.

        Args:
            source, reason: What it is, and why.
            unit: "turn" or "file".
            seconds: Its length, None where it is unknown.
        """
        entry: dict[str, Any] = {"source": source, "unit": unit, "reason": reason}
        self._rejects.append(entry if seconds is None else {**entry, "seconds": round(seconds, 3)})

    def finish(self) -> Corpus:
        """Writes manifest, ledger and totals, and renames the partial folder into place.

        Raises:
            ValueError: There is no turn; the message gives the first reasons.
        """
        if not self._turns:
            reasons = (
                "; ".join(f"{r['source']}: {r['reason']}" for r in self._rejects[:3]) or "no input found"
            )
            shutil.rmtree(self.partial, ignore_errors=True)
            raise ValueError(f"{self.folder.name} has no turn: expected at least one; {reasons}")
        self.splits.require_known(self._numbers)
        for split in ("train", "validation"):
            if split not in self._splits:
                log.warning(
                    "%s: none of %d conversations is in the %s split%s",
                    self.folder.name,
                    len(self._numbers),
                    split,
                    NOTHING_LEFT[split],
                )
        shutil.rmtree(self._resume, ignore_errors=True)
        for path in self._left:
            path.unlink(missing_ok=True)
        totals = _Totals()
        write_manifest(self.partial / MANIFEST_NAME, map(totals.counted, self._read_conversations()))
        write_jsonl(self.partial / REJECTS_NAME, self._rejects)
        write_words(self.partial, ((turn.id, words) for turn, words in self._turns))
        if self._implausible:
            self.notes["implausible_texts"] = self._implausible
            shown = "; ".join(self._implausible[:3]) + ("; ..." if len(self._implausible) > 3 else "")
            log.warning(
                "%d texts do not fit the length of their sound (%s): listen to them; all are in %s",
                len(self._implausible),
                shown,
                CORPUS_NAME,
            )
        info = {**self.identity, **self.notes, **self._totals(totals)}
        text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.partial / CORPUS_NAME, text)
        for records in (self._turns, self._rejects):
            records.close()  # Windows renames no folder of an open file
        # corpus.json may be edited: who is held out is for people to say.
        files = (path for path in self.partial.rglob("*") if path.is_file() and path.name != CORPUS_NAME)
        record_digests(self.partial, files)
        if self.folder.is_dir():
            self.folder.rmdir()
        self.partial.rename(self.folder)
        return read_corpus(self.folder)

    def _read_conversations(self) -> Iterator[Conversation]:
        """Yields the conversations in the order of their first turns."""
        order = np.argsort(np.frombuffer(self._conversations, np.int32), kind="stable")
        turns = (turn for turn, _ in self._turns.read(map(int, order)))
        for (name, number), size in zip(self._numbers.items(), self._sizes, strict=True):
            yield Conversation(id=name, split=self._splits[number], turns=tuple(islice(turns, size)))

    def _totals(self, found: _Totals) -> dict[str, Any]:
        rejected, unknown = Counter[str](), Counter(turn=0, file=0)
        seconds = {"turn": 0.0, "file": 0.0}
        for reject in self._rejects:
            unit = reject["unit"]
            rejected[unit] += 1
            if "seconds" in reject:
                seconds[unit] += reject["seconds"]
            else:
                unknown[unit] += 1
        minutes = {unit: total / 60 for unit, total in seconds.items()}
        used = found.seconds / 60
        return {
            "turns_in": len(self._turns) + rejected["turn"],
            "turns_used": len(self._turns),
            "turns_rejected": rejected["turn"],
            "files_in": self._counts["files_used"] + rejected["file"],
            "files_used": self._counts["files_used"],
            "files_rejected": rejected["file"],
            "minutes_in": round(used + minutes["turn"], 3),
            "minutes_used": round(used, 3),
            "minutes_rejected": round(minutes["turn"], 3),
            "minutes_of_rejected_files": round(minutes["file"], 3),
            "rejects_without_length": dict(unknown),
            "conversations": len(self._numbers),
            "speakers": len(found.speakers),
            "hours": round(found.seconds / 3600, 4),
            "splits": {
                split: {
                    "conversations": found.conversations[split],
                    "turns": found.turns[split],
                    "minutes": round(found.split_seconds[split] / 60, 2),
                }
                for split in SPLITS
            },
        }

    def _require_same(self, info: dict[str, Any]) -> None:
        other = [key for key, value in self.identity.items() if info.get(key) != value]
        if other:
            differences = ", ".join(
                f"{key} is {info.get(key)!r}: expected {self.identity[key]!r}" for key in other
            )
            raise ValueError(f"{self.folder} holds another corpus: {differences}; choose another --output")


class _Totals:
    """What is counted of conversations while they are written."""

    def __init__(self) -> None:
        self.seconds, self.split_seconds = 0.0, dict.fromkeys(SPLITS, 0.0)
        self.conversations, self.turns = Counter[str](), Counter[str]()
        self.speakers: set[str] = set()

    def counted(self, conversation: Conversation) -> Conversation:
        """Counts a conversation and returns it."""
        split = conversation.split
        self.conversations[split] += 1
        self.turns[split] += len(conversation.turns)
        for turn in conversation.turns:
            self.seconds += turn.duration
            self.split_seconds[split] += turn.duration
            self.speakers.add(turn.speaker)
        return conversation


def implausible_pace(turn: Turn) -> str | None:
    """Returns how a text is too long or too short for its sound, or None.

    People say 10 to 17 letters a second; a truncated file, or the text of another one, gives other figures.
    """
    letters = sum(map(str.isalnum, turn.text))
    pace = letters / turn.duration
    if letters >= MANY_LETTERS and pace > HIGHEST_PACE:
        return f"{pace:.0f} letters per second, expected at most {HIGHEST_PACE:.0f}"
    if letters and turn.duration >= LONG_TURN and pace < LOWEST_PACE:
        return f"{letters} letters in {turn.duration:.1f} s, expected at least {LOWEST_PACE:.0f} per second"
    return None


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
