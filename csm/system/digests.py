"""SHA-256 of the files of a folder, kept in its sha256.json and checked before a file is used.

A flipped bit in codes or weights gives other results without an error, so a function that writes such files
enters them here, and one that reads them checks them first. A file is read for this once in a process: the
answer is kept for its size and time of change. Folders from elsewhere have no sha256.json: they pass.

A corpus may have millions of files: a process keeps 56 bytes of each entry and 200 of each file that it has
read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csm.system.files import file_sha256, hash_key, write_atomically

DIGESTS_NAME = "sha256.json"
# Hash of path, size and time of change -> SHA-256
_known: dict[bytes, bytes] = {}
# The same for the content of a sha256.json.
_read: dict[bytes, _Entries] = {}
# Age from which every further change of a file alters its time of change.
SETTLED_NS = 2 * 10**9
KEY_BYTES = 16
# How `record_digests` begins a file of entries, and the lines of an entry.
HEAD, ENTRY_LINES = '{\n "files": {\n', 4


class _Entry(NamedTuple):
    """What a sha256.json says of a file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class _Entries:
    """The entries of a sha256.json, found by the hash of the name; holds 56 bytes of each.

    Args:
        entries: Name and entry of each file; of equal names the last one counts.
    """

    def __init__(self, entries: Iterable[tuple[str, _Entry]]) -> None:
        found = bytearray()
        for name, entry in entries:
            found += hash_key(name)[:KEY_BYTES] + entry.size.to_bytes(8, "little", signed=True)
            found += bytes.fromhex(entry.sha256)
        kind = [("first", "<u8"), ("second", "<u8"), ("size", "<i8"), ("sha256", "u1", 32)]
        table = np.frombuffer(found, kind)
        self._table = table[np.argsort(table["first"], kind="stable")]
        self._first = self._table["first"].copy()

    def get(self, name: str) -> _Entry | None:
        """Returns the entry of a file, None where it has none."""
        first, second = np.frombuffer(hash_key(name)[:KEY_BYTES], "<u8")
        begin, end = (int(np.searchsorted(self._first, first, side)) for side in ("left", "right"))
        for row in self._table[begin:end][::-1]:
            if row["second"] == second:
                return _Entry(int(row["size"]), row["sha256"].tobytes().hex())
        return None


def record_digests(
    folder: Path, files: Iterable[Path | str], *, planned: Mapping[str, bytes | str] | None = None
) -> None:
    """Enters files of a folder in its sha256.json; entries of files that are gone are dropped.

    Args:
        folder: The folder.
        files: Paths in it, relative to it or absolute.
        planned: Contents by name of files that are written next: they are never there without an entry.
    """
    entries: dict[str, dict[str, Any]] = {
        name: entry._asdict() for name, entry in _listed(folder) if (folder / name).is_file()
    }
    for file in files:
        path = folder / file
        entries[path.relative_to(folder).as_posix()] = {
            "size": path.stat().st_size,
            "sha256": sha256_of(path),
        }
    for name, content in (planned or {}).items():
        data = content.encode() if isinstance(content, str) else content
        entries[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps({"files": dict(sorted(entries.items()))}, indent=1, ensure_ascii=False)
    write_atomically(folder / DIGESTS_NAME, text + "\n")


def damage(
    path: Path, *, folder: Path | None = None, listed: bool = False, hashed_bytes: int | None = None
) -> str | None:
    """Returns what is wrong with a file, or None where it is what was entered.

    Args:
        path: The file.
        folder: Whose sha256.json names it; None is the file's own.
        listed: Whether a file without an entry counts as damaged.
        hashed_bytes: Of a file above this size only the size is compared; None hashes every file.

    Raises:
        ValueError: sha256.json itself cannot be read.
    """
    folder = folder or path.parent
    entry = _entry_of(path, folder)
    if not path.is_file():
        return "is missing" if entry is not None or listed else None
    if entry is None:
        return f"is not in {DIGESTS_NAME}" if listed else None
    size = path.stat().st_size
    if size != entry.size:
        return f"has {size} bytes, {DIGESTS_NAME} says {entry.size}"
    if (hashed_bytes is None or size <= hashed_bytes) and sha256_of(path) != entry.sha256:
        return f"has another SHA-256 than {DIGESTS_NAME} says: its bytes have changed on disk"
    return None


def require_intact(
    path: Path,
    remedy: str,
    *,
    folder: Path | None = None,
    listed: bool = False,
    hashed_bytes: int | None = None,
) -> None:
    """Refuses a file that is not what was entered.

    Args:
        path, folder, listed, hashed_bytes: As `damage` takes them.
        remedy: What to do about it, the end of the message.

    Raises:
        ValueError: It is damaged, or missing though it was entered.
    """
    if (problem := damage(path, folder=folder, listed=listed, hashed_bytes=hashed_bytes)) is not None:
        raise ValueError(f"{path} {problem}; {remedy}")


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, read once in a process as long as its size and time stay."""
    key = _state(path)
    if key is None:
        return file_sha256(path)
    if key not in _known:
        _known[key] = bytes.fromhex(file_sha256(path))
    return _known[key].hex()


def _state(path: Path) -> bytes | None:
    """Returns what a file's content is kept under; None for one that may change and keep its time of change.

    File systems count in ticks of milliseconds and more.
    """
    state = path.stat()
    if time.time_ns() - state.st_mtime_ns < SETTLED_NS:
        return None
    return hash_key(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}")[:KEY_BYTES]


def folder_digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every entered file by name; none where the folder has no sha256.json."""
    return {name: entry.sha256 for name, entry in _listed(folder)}


def entered_digest(path: Path, folder: Path) -> str | None:
    """Returns the SHA-256 that a folder's sha256.json states of a file below it, None without an entry."""
    entry = _entry_of(path, folder)
    return None if entry is None else entry.sha256


def sha256_of_json(value: Any) -> str:
    """Returns the SHA-256 of `json.dumps` of a value; an iterator stands for a list that is never held."""
    digest = hashlib.sha256()
    for piece in _json_of(value):
        digest.update(piece.encode())
    return digest.hexdigest()


def _json_of(value: Any) -> Iterator[str]:
    if not isinstance(value, Iterator):
        yield json.dumps(value)
        return
    yield "["
    for number, item in enumerate(value):
        yield ", " if number else ""
        yield from _json_of(item)
    yield "]"


def _entry_of(path: Path, folder: Path) -> _Entry | None:
    """Returns what a folder's sha256.json says of a file below it, or None."""
    if not (folder / DIGESTS_NAME).is_file():
        return None
    key = _state(folder / DIGESTS_NAME)
    if key is None:
        found = _Entries(_listed(folder))
    else:
        if key not in _read:
            _read[key] = _Entries(_listed(folder))
        found = _read[key]
    return found.get(path.relative_to(folder).as_posix())


def _listed(folder: Path) -> Iterator[tuple[str, _Entry]]:
    """Yields name and entry of each file of a folder's sha256.json, none where there is no such file.

    Raises:
        ValueError: It is damaged.
    """
    path = folder / DIGESTS_NAME
    if not path.is_file():
        return
    try:
        for name, entry in _parsed(path):
            size, sha256 = entry["size"], entry["sha256"]
            if not (type(size) is int and 0 <= size < 2**63 and len(bytes.fromhex(sha256)) == 32):
                raise ValueError(f"{name} has no size or no SHA-256")
            yield name, _Entry(size, sha256)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): write its folder again, or copy it again"
        ) from error


def _parsed(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields the items of the object "files": entry by entry of a file as `record_digests` writes it."""
    with path.open(encoding="utf-8", newline="\n") as file:
        if file.read(len(HEAD)) == HEAD:
            while len(lines := list(islice(file, ENTRY_LINES))) == ENTRY_LINES:
                try:
                    yield from json.loads("{" + "".join(lines).rstrip(",\n") + "}").items()
                except ValueError:
                    break
            if "".join(lines).split() == ["}", "}"]:
                return
    yield from json.loads(path.read_text(encoding="utf-8"))["files"].items()
