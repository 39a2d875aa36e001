"""Files from the network: resumed where they stopped, verified by checksum, unpacked without trust."""

from __future__ import annotations

import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from csm.system.files import file_sha256

_CHUNK = 1 << 20
_TIMEOUT_S = 60


def download(url: str, path: str | Path, *, sha256: str) -> Path:
    """Gets a file, going on where an earlier try stopped; the name `path` appears only once it is verified.

    Args:
        url: http(s) address.
        path: Target; what is not complete yet lies beside it in ``NAME.part``.
        sha256: Expected SHA-256 in hexadecimal.

    Returns:
        `path`; at once where the verified file is already there.

    Raises:
        ValueError: The network or the server fails (run again to go on), the disk is too full, or the
            checksum is wrong (the wrong file is deleted).
    """
    target = Path(path)
    if target.is_file():
        if file_sha256(target) == sha256:
            return target
        raise ValueError(f"{target}: has another SHA-256 than {sha256}; delete it to download it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if not (part.is_file() and file_sha256(part) == sha256):
        _fetch(url, part)
    if (digest := file_sha256(part)) != sha256:
        part.unlink()
        raise ValueError(f"{url}: SHA-256 is {digest}, expected {sha256}; the file was deleted, run again")
    os.replace(part, target)
    return target


def unpack(archive: str | Path, folder: str | Path, *, most_bytes: int) -> Path:
    """Unpacks a tar archive (also .gz, .xz, .bz2) of plain files and folders: all of it or nothing.

    Args:
        archive: The tar file.
        folder: Where to; returned at once where it exists already, since it appears only when complete.
        most_bytes: Refuse an archive that would unpack to more.

    Returns:
        `folder`.

    Raises:
        ValueError: Links, devices, absolute or ".." paths, duplicate names, more bytes than allowed, a
            damaged archive, too little disk. Nothing is left behind.
    """
    target = Path(folder).absolute()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with tarfile.open(archive, "r|*") as tar:
            _unpack_members(tar, partial, most_bytes)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(f"{archive}: cannot be unpacked ({error}); get it again") from error
    except ValueError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(f"{archive}: refused: {error}") from error
    partial.rename(target)
    return target


def _fetch(url: str, part: Path) -> None:
    held = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "csm", **({"Range": f"bytes={held}-"} if held else {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            if answer.status != 206:  # the server sends the whole file
                held = 0
            rest = int(answer.headers.get("Content-Length") or 0)
            if rest > shutil.disk_usage(part.parent).free:
                raise ValueError(
                    f"{part.parent}: too little room for {rest / 1e6:.0f} MB; make room and run again"
                )
            with open(part, "ab" if held else "wb") as file, tqdm(
                desc=part.stem, initial=held, total=held + rest or None, unit="B", unit_scale=True, ascii=True
            ) as bar:  # fmt: skip
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
                    rest -= len(chunk)
            if rest > 0:
                raise ValueError(f"{url}: the connection ended {rest} bytes early; run again to go on")
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: complete, or too long; the checksum tells
            return
        raise ValueError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ValueError(f"{url}: cannot be reached ({error}); run again to go on") from error


def _unpack_members(tar: tarfile.TarFile, folder: Path, most_bytes: int) -> None:
    total = 0
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
            raise ValueError(f"{member.name!r} points outside the folder")
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"{member.name!r} is a link or a device")
        total += member.size
        if total > most_bytes:
            raise ValueError(f"it unpacks to more than {most_bytes} bytes")
        if total > shutil.disk_usage(folder).free:
            raise ValueError(f"the disk is too full for {member.name!r}; make room and run again")
        target = folder.joinpath(*path.parts)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        if source is None:
            raise ValueError(f"{member.name!r} cannot be read")
        with open(target, "xb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
