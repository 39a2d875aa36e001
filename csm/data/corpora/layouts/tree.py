"""A source folder as layouts see it: files by name, checked contents, and the ledger of what is left out."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from csm.data.corpora.source_files import AUDIO_SUFFIXES, find_files, readable, shown

T = TypeVar("T")
# What an entry of an unexpected form raises where it is read.
MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
KEY_LINES = 50  # lines in which the first object is sought
LONGEST_REASON = 500  # in characters: a damaged line may be the whole file


class Tree:
    """The files of a source folder, which is only read.

    Attributes:
        root: Path of the folder.
        files: Readable files, ordered by the bytes of their paths.
        scratch: Folder for audio that stands inside other files.
        used: Files that gave something to the corpus.
        recordings: Transcript -> its recordings; it is left out with all of them.
        turns_rejected: (turn, reason, seconds) of each turn that is left out; None: its length is unknown.
        files_rejected: File -> reason why it is left out.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch = root, scratch
        found = find_files(root)
        self.files = [path for path in found if readable(path)]
        self.used: set[Path] = set()
        self.recordings: dict[Path, set[Path]] = {}
        self.turns_rejected: list[tuple[str, str, float | None]] = []
        reason = "is no plain readable file (links to folders are not followed)"
        self.files_rejected: dict[Path, str] = {path: reason for path in found if not readable(path)}
        self._exact = set(self.files)
        self._loose = {_loose(path): path for path in self.files}
        self._keys: dict[Path, frozenset[str]] = {}

    def ending(self, *suffixes: str) -> list[Path]:
        """Returns the files whose names end in one of the suffixes, in any case."""
        return [path for path in self.files if path.name.lower().endswith(suffixes)]

    def audio(self) -> list[Path]:
        """Returns the files whose names end like audio."""
        return [path for path in self.files if path.suffix.lower() in AUDIO_SUFFIXES]

    def has(self, path: Path) -> bool:
        """Returns whether a path is one of the files."""
        return path in self._exact

    def shown(self, path: Path) -> str:
        """Returns a path relative to the folder, or to the one for decoded audio, as valid UTF-8."""
        inside = next((folder for folder in (self.root, self.scratch) if path.is_relative_to(folder)), None)
        return shown(path if inside is None else path.relative_to(inside))

    def use(self, audio: Path, *transcripts: Path) -> None:
        """Enters a recording and the files that say what is in it as used."""
        self.used.update({audio, *transcripts})
        for path in transcripts:
            self.recordings.setdefault(path, set()).add(audio)

    def drop(self, path: Path) -> None:
        """Removes a file of the scratch folder that no turn needs any more; leaves all others."""
        if path.is_relative_to(self.scratch):
            path.unlink(missing_ok=True)

    def reject_turn(self, what: str, reason: object, seconds: float | None = None) -> None:
        """Enters a turn, or a section of `seconds`, that is left out."""
        self.turns_rejected.append((_encodable(what), _stated(reason), seconds))

    def reject_file(self, path: Path, reason: object) -> None:
        """Enters a file that is left out."""
        self.files_rejected.setdefault(path, _stated(reason))

    def guarded(self, path: Path, entries: Iterator[T]) -> Iterator[T]:
        """Yields what is read of a file; where that fails, the file is left out from there on, by name."""
        try:
            yield from entries
        except MALFORMED as error:
            self.reject_file(path, error)

    def find(self, name: str, *, beside: Path | None = None, kind: str = "audio") -> Path:
        """Returns the file that a text names, relative to the folder of `beside` or to the root.

        Raises:
            ValueError: There is none, or only one whose name differs by case or Unicode form.
        """
        folders = [self.root] if beside is None else [beside.parent, self.root]
        choices = [Path(os.path.normpath(folder / name)) for folder in folders]
        for path in choices:
            if path in self._exact or _is_readable(path):  # or outside the folder, by an absolute path
                return path
        for path in choices:
            if (near := self._loose.get(_loose(path))) is not None:
                raise ValueError(
                    f"{kind} is {name!r}: the file is called {self.shown(near)!r}, another name by case or "
                    "Unicode form; rename one of them"
                )
        raise ValueError(f"{kind} is {name!r}: expected a file of that name; correct the path")

    def beside(self, path: Path, suffix: str) -> Path | None:
        """Returns the file with the name of another one and another suffix, None if there is none.

        Raises:
            ValueError: Only one whose name differs by case or Unicode form is there.
        """
        wanted = path.with_suffix(suffix)
        if wanted in self._exact:
            return wanted
        near = self._loose.get(_loose(wanted))
        if near is None or self._is_of_another(near):
            return None
        raise ValueError(
            f"the transcript beside it is called {self.shown(near)!r}, another name by case or Unicode form; "
            "rename one of them"
        )

    def _is_of_another(self, transcript: Path) -> bool:
        """Returns whether a transcript has a recording of exactly its name."""
        return any(transcript.with_suffix(s) in self._exact for s in AUDIO_SUFFIXES)

    def audio_beside(self, path: Path, stem: str | None = None) -> Path:
        """Returns the one recording that a transcript belongs to: the same name with an audio suffix.

        "talk.json" and "talk.wav.json" both belong to "talk.wav".

        Raises:
            ValueError: There is none, several, or only one whose name differs by case or Unicode form.
        """
        stem = path.stem if stem is None else stem
        named = path.parent / stem
        if named in self._exact and named.suffix.lower() in AUDIO_SUFFIXES:
            return named
        same = self._audio_of.get((path.parent, stem), [])
        if len(same) == 1:
            return same[0]
        if same:
            names = ", ".join(self.shown(file) for file in same)
            raise ValueError(f"recordings with its name are {names}: expected one; remove the others")
        if (loose := self._loose_audio_of.get((path.parent, _folded(stem)))) is not None:
            raise ValueError(
                f"the recording beside it is called {self.shown(loose)!r}, another name by case or Unicode "
                "form; rename one of them"
            )
        raise ValueError(f"recording {shown(Path(stem))!r} is missing: expected audio of that name beside it")

    @cached_property
    def _audio_of(self) -> dict[tuple[Path, str], list[Path]]:
        """Folder and stem -> the files of audio."""
        found: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for path in self.audio():
            found[path.parent, path.stem].append(path)
        return found

    @cached_property
    def _loose_audio_of(self) -> dict[tuple[Path, str], Path]:
        """Folder and folded stem -> the first file of audio."""
        return {(path.parent, _folded(path.stem)): path for path in reversed(self.audio())}

    def text(self, path: Path) -> str:
        """Reads a text file in UTF-8 (UTF-16 with its mark); gzip by name.

        Raises:
            ValueError: It is neither.
        """
        try:
            data = path.read_bytes()
            if path.name.lower().endswith(".gz"):
                data = gzip.decompress(data)
            if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return data.decode("utf-16")
            return data.decode("utf-8-sig")
        except (UnicodeError, OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.shown(path)}: is no text in UTF-8 ({error}); convert it") from error

    def text_or_none(self, path: Path) -> str | None:
        """Returns the text of a file, None where it is no text: who reads it says why."""
        try:
            return self.text(path)
        except ValueError:
            return None

    def json(self, path: Path) -> Any:
        """Reads a JSON file.

        Raises:
            ValueError: It is none.
        """
        text = self.text(path)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.shown(path)}: is no JSON ({error}); export it again") from error

    def keys(self, path: Path) -> frozenset[str]:
        """Returns the top-level keys of a JSON file, or of the first object in its lines; else none."""
        if path not in self._keys:
            self._keys[path] = frozenset(self._first_object(path))
        return self._keys[path]

    def _first_object(self, path: Path) -> dict[str, Any]:
        try:
            text = self.text(path)
        except ValueError:
            return {}
        if (whole := _json_or_none(text)) is not None:
            return whole if isinstance(whole, dict) else {}
        head = map(_json_or_none, text.split("\n", KEY_LINES)[:KEY_LINES])
        return next((value for value in head if isinstance(value, dict)), {})

    def lines(self, path: Path) -> Iterator[tuple[str, str]]:
        """Yields ("FILE, line N", text) of each line that is not empty; what is no text is rejected."""
        try:
            text = self.text(path)
        except ValueError as error:
            self.reject_file(path, error)
            return
        # Not splitlines: a text may hold U+2028 and other characters that it takes for the end of a line.
        for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
            if line.strip():
                yield f"{self.shown(path)}, line {number}", line

    def json_lines(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields ("FILE, line N", object) of each line; lines that are no object are rejected as turns."""
        for where, line in self.lines(path):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                self.reject_turn(where, f"is no JSON ({error})")
                continue
            if isinstance(value, dict):
                yield where, value
            else:
                self.reject_turn(where, f"is {type(value).__name__}: expected an object; export it again")

    def table(self, path: Path) -> Iterator[tuple[str, dict[str, str | None]]]:
        """Yields ("FILE, line N", row) of a table with a line of names; lines that are no row are rejected.

        The separator is the most frequent one of the first line; a .tsv has no quotes. After a quote that is
        never closed, parsing resumes at the next line.
        """
        try:
            lines = io.StringIO(self.text(path), newline="").readlines()
            separator = max("\t,;|", key=lines[0].count) if lines else ","
            quoting: Literal[0, 3] = csv.QUOTE_NONE if path.suffix.lower() == ".tsv" else csv.QUOTE_MINIMAL
            names = next(csv.reader(lines[:1], delimiter=separator, quoting=quoting, strict=True), [])
        except (ValueError, csv.Error) as error:
            self.reject_file(path, error)
            return
        first = 1
        while first < len(lines):
            rest = (lines[number] for number in range(first, len(lines)))
            reader, taken = csv.reader(rest, delimiter=separator, quoting=quoting, strict=True), 0
            try:
                for values in reader:
                    where = f"{self.shown(path)}, line {first + taken + 1}"
                    taken = reader.line_num
                    if any(values[len(names) :]):
                        fields = f"has {len(values)} fields: expected {len(names)}; put texts in quotes"
                        self.reject_turn(where, fields)
                    elif values:
                        yield where, dict(itertools.zip_longest(names, values[: len(names)]))
                return
            except csv.Error as error:
                self.reject_turn(f"{self.shown(path)}, line {first + taken + 1}", f"is no row ({error})")
                first += taken + 1


def _stated(reason: object) -> str:
    """Returns a reason as one line; exceptions other than ValueError do not say what was wrong."""
    stated = str(reason)
    if isinstance(reason, Exception) and not isinstance(reason, ValueError):
        stated = f"is of an unknown form ({type(reason).__name__}: {reason}): export it again"
    return _encodable(stated if len(stated) <= LONGEST_REASON else f"{stated[:LONGEST_REASON]}...")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_readable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except (OSError, ValueError):  # a name that no file can have
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _loose(path: Path) -> str:
    return _folded(os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace"))
