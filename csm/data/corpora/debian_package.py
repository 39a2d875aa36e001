"""Debian packages as sources of corpora: fetched by a pinned address and SHA-256, read without installing."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from csm.data.corpora.downloads import download

MIRROR = "https://deb.debian.org/debian"


@dataclass(frozen=True, kw_only=True)
class DebianPackage:
    """A version of a package.

    Attributes:
        name: Name of the package.
        version: Version of the package.
        pool: Folder of the file on a mirror.
        sha256: SHA-256 of the .deb in hexadecimal.
        unpacked_bytes: Upper bound of the bytes that `read` returns.
    """

    name: str
    version: str
    pool: str
    sha256: str
    unpacked_bytes: int

    @property
    def file_name(self) -> str:
        """Name of the .deb."""
        return f"{self.name}_{self.version}_all.deb"

    @property
    def url(self) -> str:
        """Address of the .deb; a mirror expects "+" as %2b."""
        return f"{MIRROR}/{self.pool}/{self.file_name.replace('+', '%2b')}"

    @property
    def source(self) -> str:
        """Identity of the package for corpus.json."""
        return f"{self.name} {self.version}, SHA-256 {self.sha256}"

    def read(self, downloads: str | Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
        """Downloads the .deb unless `downloads` holds it, and reads files of it.

        Args:
            downloads: Folder of the .deb; an interrupted download resumes there.
            wanted: Whether a path inside the package, without a leading "/", is read.

        Returns:
            Path inside the package -> content.

        Raises:
            ValueError: The download fails, the SHA-256 differs, or the .deb is damaged.
        """
        path = download(self.url, Path(downloads) / self.file_name, sha256=self.sha256)
        found: dict[str, bytes] = {}
        total = 0
        try:
            with open(path, "rb") as file:
                seek_ar_member(file, b"data.tar.xz")
                with tarfile.open(fileobj=file, mode="r|xz") as tar:
                    for member in tar:
                        name = member.name.removeprefix("./")
                        if not (member.isfile() and wanted(name)):
                            continue
                        total += member.size
                        if total > self.unpacked_bytes:
                            raise ValueError(f"{path}: its files have more than {self.unpacked_bytes} bytes")
                        stream = tar.extractfile(member)
                        found[name] = stream.read() if stream else b""
        except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); delete it to download it again") from error
        return found


def seek_ar_member(file: io.BufferedReader, wanted: bytes) -> None:
    """Moves a file to the content of a member of the `ar` archive that a .deb is.

    Raises:
        ValueError: The file is no .deb or lacks the member.
    """
    file.seek(0)
    start = file.read(8)
    if start != b"!<arch>\n":
        raise ValueError(f"the archive begins with {start!r}: expected the header of a .deb; get it again")
    while len(header := file.read(60)) == 60:
        if header[:16].rstrip(b" /") == wanted:
            return
        size = int(header[48:58])
        file.seek(size + size % 2, 1)
    raise ValueError(f"the archive lacks {wanted.decode()}; get the .deb again")
