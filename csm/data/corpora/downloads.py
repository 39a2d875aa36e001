"""Downloads that resume and are verified by SHA-256, and safe extraction of archives."""

from __future__ import annotations

import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

from csm.system.files import file_sha256
from csm.system.log import progress

_CHUNK = 1 << 20
_TIMEOUT_S = 60
# Headers that hold long names and PAX fields, and the most bytes of one: names have hundreds.
_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_HEADER = 1 << 20


def download(url: str, path: str | Path, *, sha256: str) -> Path:
    """Downloads a file, resuming an interrupted download; `path` appears only once it is verified.

    Args:
        url: An http(s) address.
        path: Path of the file; an incomplete download is in `NAME.part` beside it.
        sha256: Expected SHA-256 in hexadecimal.

    Returns:
        `path`, without a download if the verified file exists.

    Raises:
        ValueError: The network or the server fails, the disk is too full, or the checksum differs (the
            downloaded file is then deleted).
    """
    target = Path(path)
    if target.is_file():
        if (digest := file_sha256(target)) == sha256:
            return target
        raise ValueError(f"{target}: SHA-256 is {digest}: expected {sha256}; delete it to download it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if part.is_symlink() or (part.exists() and not part.is_file()):
        raise ValueError(
            f"{part} is a link or no file: expected a download begun here; delete it and run again"
        )
    if not (part.is_file() and file_sha256(part) == sha256):
        _fetch(url, part)
    if not part.is_file():
        raise ValueError(f"{url}: the server sends nothing; check the address")
    if (digest := file_sha256(part)) != sha256:
        part.unlink()
        raise ValueError(f"{url}: SHA-256 is {digest}: expected {sha256}; the file was deleted, run again")
    os.replace(part, target)
    return target


def unpack(archive: str | Path, folder: str | Path, *, most_bytes: int) -> Path:
    """Extracts a tar archive (also .gz, .xz, .bz2) of plain files and folders atomically.

    Args:
        archive: Path of the tar file.
        folder: Path of the extracted folder; an existing one is complete and returned unchanged.
        most_bytes: Largest allowed size of the extracted files in bytes.

    Returns:
        `folder`.

    Raises:
        ValueError: The archive has links, devices, absolute or ".." paths, duplicate names or more bytes than
            allowed, is damaged, or the disk is too full. Nothing is left behind.
    """
    target = Path(folder).absolute()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with tarfile.open(archive, "r|*", tarinfo=_BoundedInfo) as tar:
            _unpack_members(tar, partial, most_bytes)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(f"{archive}: cannot be extracted ({error}); download it again") from error
    except ValueError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(f"{archive}: is refused: {error}") from error
    partial.rename(target)
    return target


def _fetch(url: str, part: Path) -> None:
    present = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "csm", **({"Range": f"bytes={present}-"} if present else {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            if answer.status != 206:  # the server ignores the range and sends the whole file
                present = 0
            length = (answer.headers.get("Content-Length") or "0").strip()
            if not (length.isascii() and length.isdigit()):
                raise ValueError(f"{url}: the server states a length of {length!r}; run again to resume")
            rest = int(length)
            if rest > shutil.disk_usage(part.parent).free:
                raise ValueError(f"{part.parent}: expected {rest / 1e6:.0f} MB free; make room and run again")
            mode, blocks = "ab" if present else "wb", -(-rest // _CHUNK)
            with open(part, mode) as file, progress(part.stem, blocks, unit="megabyte") as done:
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    done.update()
                    rest -= len(chunk)
            if rest > 0:
                raise ValueError(f"{url}: the connection ended {rest} bytes early; run again to resume")
    except urllib.error.HTTPError as error:
        if error.code == 416:  # no byte is left: the file is complete or too long, which its checksum shows
            return
        raise ValueError(
            f"{url}: the server answers {error.code} {error.reason}; check the address"
        ) from error
    except http.client.HTTPException as error:
        raise ValueError(f"{url}: the server's answer is garbled ({error!r}); run again to resume") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ValueError(f"{url}: cannot be reached ({error}); run again to resume") from error


class _BoundedInfo(tarfile.TarInfo):
    """A member whose headers of long names and PAX fields, which tarfile reads whole, have an end."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes: expected {_LONGEST_HEADER} at most")
        return super()._proc_member(tar)  # type: ignore[misc]


def _unpack_members(tar: tarfile.TarFile, folder: Path, most_bytes: int) -> None:
    total = 0
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
            raise ValueError(f"{member.name!r} leads outside the folder")
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"{member.name!r} is a link or a device")
        total += member.size
        if total > most_bytes:
            raise ValueError(f"its files have more than {most_bytes} bytes")
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
