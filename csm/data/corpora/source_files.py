"""The files of a folder that a corpus is made from: their list, names in messages, and fingerprint."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from csm.system.files import file_sha256

# What libsndfile reads, and what PyAV reads besides.
SOUNDFILE_SUFFIXES = frozenset(
    ".wav .flac .mp3 .ogg .opus .oga .aif .aiff .aifc .au .snd .caf .w64 .rf64".split()
)
CONTAINER_SUFFIXES = frozenset(
    ".m4a .m4b .mp4 .aac .webm .wma .mka .mkv .mov .3gp .amr .avi .ac3 .sph".split()
)
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | CONTAINER_SUFFIXES


def source_root(source: str | Path, output: str | Path) -> Path:
    """Returns the absolute source folder.

    Raises:
        ValueError: It is missing, or the output lies inside it.
    """
    root = Path(source).absolute()
    if not root.is_dir():
        raise ValueError(f"--source is {shown(root)}: expected an existing folder; correct the path")
    if Path(output).absolute().is_relative_to(root):
        raise ValueError(
            f"--output is {output}: expected a folder outside --source {shown(root)}; choose another"
        )
    return root


def find_files(root: Path) -> list[Path]:
    """Lists all files under a folder, links to folders included, ordered by the bytes of their paths."""
    found = []
    for folder, subfolders, names in os.walk(root):
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        found += [Path(folder) / name for name in names + links]
    return sorted(found, key=os.fsencode)


def readable(path: Path) -> bool:
    """Returns whether a path is a plain file, or a link to one, that this user may read."""
    return path.is_file() and os.access(path, os.R_OK)


def shown(path: Path) -> str:
    """Returns a path as valid UTF-8, whatever its bytes."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def fingerprint(root: Path, files: list[Path]) -> str:
    """Returns the SHA-256 of the names and contents of files under a folder."""
    digest = hashlib.sha256()
    for path in files:
        content = file_sha256(path) if readable(path) else "unreadable"
        digest.update(os.fsencode(path.relative_to(root).as_posix()) + b"\0" + content.encode() + b"\n")
    return digest.hexdigest()
