"""SHA-256 of the files of a folder, kept in its sha256.json and checked before a file is used.

A flipped bit in codes or weights gives other results without an error, so a function that writes such files
enters them here, and one that reads them checks them first. A file is read for this once in a process: the
answer is kept for its size and time of change. Folders from elsewhere have no sha256.json: they pass.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from csm.system.files import file_sha256, write_atomically

DIGESTS_NAME = "sha256.json"
# (path, size, time of change) -> SHA-256
_known: dict[tuple[str, int, int], str] = {}
# The same for the content of a sha256.json.
_read: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = {}
# Age from which every further change of a file alters its time of change.
SETTLED_NS = 2 * 10**9


def record_digests(
    folder: Path, files: Iterable[Path | str], *, planned: Mapping[str, bytes | str] | None = None
) -> None:
    """Enters files of a folder in its sha256.json; entries of files that are gone are dropped.

    Args:
        folder: The folder.
        files: Paths in it, relative to it or absolute.
        planned: Contents by name of files that are written next: they are never there without an entry.
    """
    entries = {name: entry for name, entry in _entries(folder).items() if (folder / name).is_file()}
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
    entry = _entries(folder).get(path.relative_to(folder).as_posix())
    if not path.is_file():
        return "is missing" if entry is not None or listed else None
    if entry is None:
        return f"is not in {DIGESTS_NAME}" if listed else None
    size = path.stat().st_size
    if size != entry["size"]:
        return f"has {size} bytes, {DIGESTS_NAME} says {entry['size']}"
    if (hashed_bytes is None or size <= hashed_bytes) and sha256_of(path) != entry["sha256"]:
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
        _known[key] = file_sha256(path)
    return _known[key]


def _state(path: Path) -> tuple[str, int, int] | None:
    """Returns what a file's content is kept under; None for one that may change and keep its time of change.

    File systems count in ticks of milliseconds and more.
    """
    state = path.stat()
    if time.time_ns() - state.st_mtime_ns < SETTLED_NS:
        return None
    return str(path.absolute()), state.st_size, state.st_mtime_ns


def folder_digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every entered file by name; none where the folder has no sha256.json."""
    return {name: entry["sha256"] for name, entry in _entries(folder).items()}


def entered_digest(path: Path, folder: Path) -> str | None:
    """Returns the SHA-256 that a folder's sha256.json states of a file below it, None without an entry."""
    entry = _entries(folder).get(path.relative_to(folder).as_posix())
    return None if entry is None else str(entry["sha256"])


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


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / DIGESTS_NAME
    if not path.is_file():
        return {}
    key = _state(path)
    if key is None:
        return _parsed(path)
    if key not in _read:
        _read[key] = _parsed(path)
    return _read[key]


def _parsed(path: Path) -> dict[str, dict[str, Any]]:
    """Reads a sha256.json.

    Raises:
        ValueError: It is damaged.
    """
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        for name, entry in files.items():
            if not (isinstance(entry["size"], int) and len(bytes.fromhex(entry["sha256"])) == 32):
                raise ValueError(f"{name} has no size or no SHA-256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): write its folder again, or copy it again"
        ) from error
    return files
