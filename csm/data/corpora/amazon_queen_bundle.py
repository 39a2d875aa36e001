"""Speech clips of Flight of the Amazon Queen in the Debian package flight-of-the-amazon-queen 1.0.0-9.

The package is an `ar` archive with data.tar.xz, which holds queen.1c, a bundle of MP3 clips (mono, 11,025 Hz,
16 kbit/s). After the bytes "QTBL" stand a big-endian count of entries at byte 13 and, from byte 15, entries
of 21 bytes: name (12 bytes, zero-padded), bundle (1), offset (4), size (4). Clip CLIP is the entry "CLIP.SB".
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

from csm.data.corpora.debian_package import seek_ar_member

PACKAGE = "flight-of-the-amazon-queen"
ARCHIVE_SHA256 = "40c08fd258d6fe95c46c1eaf5e9137f84ba330657995a281bd887c94a560a0f1"
BUNDLE_MEMBER = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"
BUNDLE_BYTES = 54_108_887
BUNDLE_SHA256 = "cc91960d133fcd4173eda4bac304e80d2bbdbaa085640287ab9e0507bd603f67"


def get_bundle(archive: str | Path | None) -> bytes:
    """Returns the clip bundle of a .deb; None downloads the .deb with `apt-get download`.

    Raises:
        ValueError: The download fails, or `read_bundle` does.
    """
    if archive is not None:
        return read_bundle(archive)
    with tempfile.TemporaryDirectory() as folder:
        return read_bundle(_apt_download(Path(folder)))


def read_bundle(archive: str | Path) -> bytes:
    """Reads the clip bundle queen.1c from a .deb.

    Raises:
        ValueError: The file is missing, is no .deb, or has another SHA-256 than the published one.
    """
    path = Path(archive)
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected the .deb; get it by `apt-get download {PACKAGE}`")
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
        if digest != ARCHIVE_SHA256:
            raise ValueError(
                f"{path}: SHA-256 is {digest}: expected {ARCHIVE_SHA256}; get version 1.0.0-9 again"
            )
        seek_ar_member(file, b"data.tar.xz")
        with tarfile.open(fileobj=file, mode="r|xz") as tar:
            for member in tar:
                if member.name.removeprefix("./") == BUNDLE_MEMBER and member.size == BUNDLE_BYTES:
                    stream = tar.extractfile(member)
                    bundle = stream.read() if stream else b""
                    break
            else:
                raise ValueError(
                    f"{path}: lacks {BUNDLE_MEMBER}: expected {BUNDLE_BYTES} bytes; get version 1.0.0-9"
                )
    digest = hashlib.sha256(bundle).hexdigest()
    if digest != BUNDLE_SHA256:
        raise ValueError(
            f"{path}: SHA-256 of {BUNDLE_MEMBER} is {digest}: expected {BUNDLE_SHA256}; get version 1.0.0-9"
        )
    return bundle


def read_entries(bundle: bytes) -> dict[str, tuple[int, int]]:
    """Reads the table of a bundle.

    Returns:
        Clip name -> (offset, size) in bytes, for the entries that are speech.

    Raises:
        ValueError: The bundle begins with other bytes, or its table or an entry ends outside of it.
    """
    if bundle[:4] != b"QTBL" or len(bundle) < 15:
        raise ValueError(f"bundle begins with {bundle[:4]!r}: expected b'QTBL'; get queen.1c again")
    (count,) = struct.unpack_from(">H", bundle, 13)
    if 15 + 21 * count > len(bundle):
        raise ValueError(f"bundle ends inside its table of {count} entries; get queen.1c again")
    entries = {}
    for index in range(count):
        raw, _, offset, size = struct.unpack_from(">12sBII", bundle, 15 + 21 * index)
        name = raw.rstrip(b"\0").decode("ascii", "replace")
        if offset + size > len(bundle):
            raise ValueError(f"bundle ends before its entry {name} does; get queen.1c again")
        if name.endswith(".SB"):
            entries[name.removesuffix(".SB")] = (offset, size)
    return entries


def _apt_download(folder: Path) -> Path:
    apt = shutil.which("apt-get")
    advice = f"get the file {PACKAGE}_1.0.0-9_all.deb from a Debian mirror and pass it with --archive"
    if apt is None:
        raise ValueError(f"apt-get is not on this system; {advice}")
    done = subprocess.run([apt, "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.deb"))
    if done.returncode or not found:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"`apt-get download {PACKAGE}` failed ({message}); {advice}")
    return found[0]
