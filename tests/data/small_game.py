"""Small Debian packages and a clip bundle in place of the real ones."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from csm.data.corpora.amazon_queen_bundle import BUNDLE_MEMBER


def mp3(seconds: float) -> bytes:
    file = io.BytesIO()
    samples = 0.3 * np.sin(2 * np.pi * 200 * np.arange(int(11_025 * seconds)) / 11_025)
    soundfile.write(file, samples, 11_025, format="MP3")
    return file.getvalue()


def make_bundle(clips: dict[str, bytes]) -> bytes:
    table, content, offset = b"", b"", 15 + 21 * len(clips)
    for name, stream in clips.items():
        table += struct.pack(">12sBII", name.encode(), 1, offset + len(content), len(stream))
        content += stream
    return b"QTBL" + bytes(9) + struct.pack(">H", len(clips)) + table + content


def make_deb(path: Path, bundle: bytes, member: str = BUNDLE_MEMBER) -> None:
    make_package(path, {member: bundle})


def make_package(path: Path, files: dict[str, bytes]) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for member, content in files.items():
            info = tarfile.TarInfo(f"./{member}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    content = b"!<arch>\n"
    for name, blob in parts.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(blob):<10}`\n".encode()
            + blob
            + b"\n" * (len(blob) % 2)
        )
    path.write_bytes(content)
