"""Writes corpus folders: atomically, with reproducible bytes, and with a reason for each reject."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
    _turns: dict[str, list[Turn]] = field(default_factory=dict, init=False)
    _splits: dict[str, str] = field(default_factory=dict, init=False)
    _rejects: list[dict[str, Any]] = field(default_factory=list, init=False)
    _words: dict[str, Sequence[Word]] = field(default_factory=dict, init=False)
    _counts: Counter[str] = field(default_factory=Counter, init=False)
    _implausible: list[str] = field(default_factory=list, init=False)
    _left: set[Path] = field(default_factory=set, init=False)  # by an interrupted run, not used yet

    @property
    def partial(self) -> Path:
        """Path of the folder that `finish` renames."""
        return self.folder.parent / f".{self.folder.name}.partial"

    def finished(self) -> Corpus | None:
        """Returns the corpus if the folder is finished, None if it is missing or empty; writes nothing.

        Raises:
            ValueError: The folder holds something else.
        """
        self.folder = Path(self.folder).absolute()
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
        if words:
            self._words[turn.id] = words
        if (problem := implausible_pace(turn)) is not None:
            self._implausible.append(f"{turn.id}: {problem}")
        self._splits[turn.conversation] = self.splits.of(turn.conversation, split)
        turns = self._turns.setdefault(turn.conversation, [])
        turns.append(replace(turn, index=len(turns)))

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
        self.splits.require_known(self._turns)
        for split in ("train", "validation"):
            if split not in self._splits.values():
                log.warning(
                    "%s: none of %d conversations is in the %s split%s",
                    self.folder.name,
                    len(self._splits),
                    split,
                    NOTHING_LEFT[split],
                )
        conversations = [
            Conversation(id=name, split=self._splits[name], turns=tuple(turns))
            for name, turns in self._turns.items()
        ]
        shutil.rmtree(self._resume, ignore_errors=True)
        for path in self._left:
            path.unlink(missing_ok=True)
        write_manifest(self.partial / MANIFEST_NAME, conversations)
        write_jsonl(self.partial / REJECTS_NAME, self._rejects)
        write_words(self.partial, self._words)
        if self._implausible:
            self.notes["implausible_texts"] = self._implausible
            shown = "; ".join(self._implausible[:3]) + ("; ..." if len(self._implausible) > 3 else "")
            log.warning(
                "%d texts do not fit the length of their sound (%s): listen to them; all are in %s",
                len(self._implausible),
                shown,
                CORPUS_NAME,
            )
        info = {**self.identity, **self.notes, **self._totals(conversations)}
        text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.partial / CORPUS_NAME, text)
        # corpus.json may be edited: who is held out is for people to say.
        files = (path for path in self.partial.rglob("*") if path.is_file() and path.name != CORPUS_NAME)
        record_digests(self.partial, files)
        if self.folder.is_dir():
            self.folder.rmdir()
        self.partial.rename(self.folder)
        return read_corpus(self.folder)

    def _totals(self, conversations: Sequence[Conversation]) -> dict[str, Any]:
        turns = [turn for conversation in conversations for turn in conversation.turns]
        rejected = Counter(reject["unit"] for reject in self._rejects)
        lengths = {
            unit: [reject.get("seconds") for reject in self._rejects if reject["unit"] == unit]
            for unit in ("turn", "file")
        }
        minutes = {unit: sum(s for s in found if s is not None) / 60 for unit, found in lengths.items()}
        used = sum(turn.duration for turn in turns) / 60
        totals: dict[str, Any] = {
            "turns_in": len(turns) + rejected["turn"],
            "turns_used": len(turns),
            "turns_rejected": rejected["turn"],
            "files_in": self._counts["files_used"] + rejected["file"],
            "files_used": self._counts["files_used"],
            "files_rejected": rejected["file"],
            "minutes_in": round(used + minutes["turn"], 3),
            "minutes_used": round(used, 3),
            "minutes_rejected": round(minutes["turn"], 3),
            "minutes_of_rejected_files": round(minutes["file"], 3),
            "rejects_without_length": {unit: found.count(None) for unit, found in lengths.items()},
            "conversations": len(conversations),
            "speakers": len({turn.speaker for turn in turns}),
            "hours": round(sum(turn.duration for turn in turns) / 3600, 4),
        }
        totals["splits"] = {
            split: {
                "conversations": sum(c.split == split for c in conversations),
                "turns": sum(len(c.turns) for c in conversations if c.split == split),
                "minutes": round(
                    sum(t.duration for c in conversations if c.split == split for t in c.turns) / 60, 2
                ),
            }
            for split in SPLITS
        }
        return totals

    def _require_same(self, info: dict[str, Any]) -> None:
        other = [key for key, value in self.identity.items() if info.get(key) != value]
        if other:
            differences = ", ".join(
                f"{key} is {info.get(key)!r}: expected {self.identity[key]!r}" for key in other
            )
            raise ValueError(f"{self.folder} holds another corpus: {differences}; choose another --output")


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
