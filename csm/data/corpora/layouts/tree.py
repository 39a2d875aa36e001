"""A source folder as layouts see it: files by name, checked contents, and the ledger of what is left out."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csm.data.corpora.source_files import AUDIO_SUFFIXES, find_files, readable, shown


class Tree:
    """The files of a source folder, which is only read.

    Attributes:
        root: Path of the folder.
        files: Readable files, ordered by the bytes of their paths.
        scratch: Folder for audio that stands inside other files.
        used: Files that gave something to the corpus.
        turns_rejected: (turn, reason, seconds) of each turn that is left out; None: its length is unknown.
        files_rejected: File -> reason why it is left out.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch = root, scratch
        found = find_files(root)
        self.files = [path for path in found if readable(path)]
        self.used: set[Path] = set()
        self.turns_rejected: list[tuple[str, str, float | None]] = []
        reason = "is no plain readable file (links to folders are not followed)"
        self.files_rejected: dict[Path, str] = {path: reason for path in found if not readable(path)}
        self._exact = set(self.files)
        self._loose = {_loose(path): path for path in self.files}

    def ending(self, *suffixes: str) -> list[Path]:
        """Returns the files whose names end in one of the suffixes, in any case."""
        return [path for path in self.files if path.name.lower().endswith(suffixes)]

    def audio(self) -> list[Path]:
        """Returns the files whose names end like audio."""
        return [path for path in self.files if path.suffix.lower() in AUDIO_SUFFIXES]

    def shown(self, path: Path) -> str:
        """Returns a path relative to the folder, as valid UTF-8."""
        return shown(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def reject_turn(self, what: str, reason: object, seconds: float | None = None) -> None:
        """Enters a turn, or a section of `seconds`, that is left out."""
        self.turns_rejected.append((what, str(reason), seconds))

    def reject_file(self, path: Path, reason: object) -> None:
        """Enters a file that is left out."""
        self.files_rejected.setdefault(path, str(reason))

    def find(self, name: str, *, beside: Path | None = None, kind: str = "audio") -> Path:
        """Returns the file that a text names, relative to the folder of `beside` or to the root.

        Raises:
            ValueError: There is none, or only one whose name differs by case or Unicode form.
        """
        folders = [self.root] if beside is None else [beside.parent, self.root]
        choices = [Path(os.path.normpath(folder / name)) for folder in folders]
        for path in choices:
            if path in self._exact:
                return path
            if path.is_file() and os.access(path, os.R_OK):  # outside the folder, by an absolute path
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
        audio = [file for file in self.files if file.parent == path.parent and _is_audio(file)]
        same = [file for file in audio if file.stem == stem]
        if len(same) == 1:
            return same[0]
        if same:
            names = ", ".join(self.shown(file) for file in same)
            raise ValueError(f"recordings with its name are {names}: expected one; remove the others")
        loose = next((file for file in audio if _folded(file.stem) == _folded(stem)), None)
        if loose is not None:
            raise ValueError(
                f"the recording beside it is called {self.shown(loose)!r}, another name by case or Unicode "
                "form; rename one of them"
            )
        raise ValueError(f"recording {shown(Path(stem))!r} is missing: expected audio of that name beside it")

    def text(self, path: Path) -> str:
        """Reads a text file in UTF-8 (UTF-16 with its mark); gzip by name.

        Raises:
            ValueError: It is neither.
        """
        data = path.read_bytes()
        try:
            if path.name.lower().endswith(".gz"):
                data = gzip.decompress(data)
            if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return data.decode("utf-16")
            return data.decode("utf-8-sig")
        except (UnicodeError, OSError, EOFError) as error:
            raise ValueError(f"{self.shown(path)}: is no text in UTF-8 ({error}); convert it") from error

    def json(self, path: Path) -> Any:
        """Reads a JSON file.

        Raises:
            ValueError: It is none.
        """
        try:
            return json.loads(self.text(path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{self.shown(path)}: is no JSON ({error}); export it again") from error

    def json_lines(self, path: Path) -> Iterator[tuple[str, Any]]:
        """Yields ("FILE, line N", value) of each line; lines that are no JSON are rejected as turns."""
        for number, line in enumerate(self.text(path).splitlines(), 1):
            if not line.strip():
                continue
            where = f"{self.shown(path)}, line {number}"
            try:
                yield where, json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                self.reject_turn(where, f"is no JSON ({error})")

    def table(self, path: Path) -> list[dict[str, str]]:
        """Reads a table with a line of names: .tsv by tabulators, else by commas, semicolons or "|"."""
        text = self.text(path)
        first = text.split("\n", 1)[0]
        separator = max("\t,;|", key=first.count)
        lines = io.StringIO(text, newline="")
        if path.suffix.lower() == ".tsv":
            return list(csv.DictReader(lines, delimiter=separator, quoting=csv.QUOTE_NONE))
        return list(csv.DictReader(lines, delimiter=separator))


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _loose(path: Path) -> str:
    return _folded(os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace"))
