"""Files and folders that appear whole or not at all, and SHA-256 of their content and names."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Errors of a disk, a quota or a limit that leaves no room.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path | str, data: bytes | str) -> None:
    """Writes a file under a temporary name beside it, flushes it to the disk and renames it.

    Args:
        path: Target; its folder must exist.
        data: Content; text is written as UTF-8 with its line ends as they are.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its name when the block ends without an error.

    The file gets the mode that the umask gives to new files, whichever library writes it: safetensors, for
    one, leaves files that only their owner can read.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with full_disk_named(path):
            temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(mode)
            flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """Yields an empty folder beside `folder`, which takes its name when the block ends without an error.

    `folder` must not exist by then. What a killed process left of an earlier attempt is removed.
    """
    folder = Path(folder)
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with full_disk_named(folder):
            partial.mkdir(parents=True)
            yield partial
            partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def full_disk_named(path: Path | str) -> Iterator[None]:
    """Makes an error of a full disk, whichever library reports it, one that names a path and the free bytes.

    safetensors, for one, reports it by an error of its own, without a path.

    Raises:
        OSError: There is no room.
    """
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number not in NO_ROOM or (isinstance(error, OSError) and error.filename is not None):
            raise
        folder = next(parent for parent in Path(path).absolute().parents if parent.is_dir())
        free = shutil.disk_usage(folder).free
        text = f"{os.strerror(number)}: {free} bytes are free there; make room and run the same command again"
        raise OSError(number, text, str(path)) from error


def _error_number(error: Exception) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))  # as Rust writes it
    return int(found[1]) if found else 0


def move_files(source: Path, target: Path, *, last: str) -> None:
    """Moves every file of a folder into another one, `last` after all others, and removes the empty folder.

    A reader that finds the file `last` finds the others too.
    """
    for path in sorted(source.iterdir(), key=lambda path: (path.name == last, path.name)):
        os.replace(path, target / path.name)
    source.rmdir()
    flush(target)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files and folders (`*.tmp-*`) that killed writers left at any depth of a folder.

    Only for the one process that may write into the folder: a temporary in use would be removed too.
    """
    for path in sorted(folder.rglob("*.tmp-*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no fsync of folders; its rename is durable on NTFS.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's bytes in hexadecimal, read in constant memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def hash_key(name: str, seed: int | None = None) -> bytes:
    """Returns the SHA-256 of "SEED:NAME" (of the name alone without a seed): a key that sorts at random.

    The place of a name relative to another one does not depend on what else is sorted.
    """
    text = name if seed is None else f"{seed}:{name}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def order_by_hash(names: Iterable[str], seed: int | None = None) -> list[str]:
    """Returns the names sorted by `hash_key`."""
    return sorted(names, key=lambda name: hash_key(name, seed))
