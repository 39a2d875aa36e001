"""Audio files that end before their headers say so, which libsndfile shortens without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNKNOWN_LENGTH = 0xFFFFFFFF  # of a file that was written to a pipe: its data reach to its end
_LAST_PAGES = 1 << 17  # an Ogg page has at most 65,307 bytes


def refuse_truncated(path: Path, name: str) -> None:
    """Checks that a WAV, RF64, W64, AIFF, AU, Ogg or MP3 file holds what its header states.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        ValueError: It is truncated.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(40)
        if head[:4] == b"OggS":
            _require_last_page(file, size, name)
            return
        stated = _stated_bytes(file, head, size)
    if stated is not None and stated > size:
        raise ValueError(
            f"{name}: is truncated: its header states {stated} bytes, it has {size}; copy it again"
        )


def _stated_bytes(file: BinaryIO, head: bytes, size: int) -> int | None:
    """Returns how many bytes a file must have at least by its header; None where that says nothing."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _end_of_wave(file)
    if head[:4] == b"riff":  # Sony Wave64: a GUID, then the size of the whole file
        return int.from_bytes(head[16:24], "little")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _end_of_aiff(file)
    if head[:4] == b".snd":
        offset, length = (int.from_bytes(head[place : place + 4], "big") for place in (4, 8))
        return None if length == UNKNOWN_LENGTH else offset + length
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return _end_of_mp3(file, head)
    return None


def _chunks(file: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, place of the content and length of every chunk of a WAV or AIFF file."""
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        length = int.from_bytes(chunk[4:], "little" if order == "little" else "big")
        place = file.tell()
        yield chunk[:4], place, length
        file.seek(place + length + length % 2)


def _end_of_wave(file: BinaryIO) -> int | None:
    wide = None
    for kind, place, length in _chunks(file, "little"):
        if kind == b"ds64":  # RF64: sizes of 64 bits
            file.seek(place + 8)
            wide = int.from_bytes(file.read(8), "little")
        if kind == b"data":
            if length != UNKNOWN_LENGTH:
                return place + length
            return None if wide is None else place + wide
    return None


def _end_of_aiff(file: BinaryIO) -> int | None:
    return next((place + length for kind, place, length in _chunks(file, "big") if kind == b"SSND"), None)


def _end_of_mp3(file: BinaryIO, head: bytes) -> int | None:
    """Returns where the stream ends by its Xing or Info header, which encoders of files write."""
    start = 0
    if head[:3] == b"ID3":
        # Four times seven bits.
        start = 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
    file.seek(start)
    frame = file.read(200)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:1] != b"\xff" or place < 0 or place > 40:
        return None
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    if not flags & 2:
        return None
    field = place + 8 + (4 if flags & 1 else 0)
    return start + int.from_bytes(frame[field : field + 4], "big")


def _require_last_page(file: BinaryIO, size: int, name: str) -> None:
    """Checks that an Ogg file ends with a whole page that ends its stream."""
    file.seek(max(0, size - _LAST_PAGES))
    tail = file.read()
    place = tail.rfind(b"OggS")
    page = tail[place:] if place >= 0 else b""
    whole = len(page) >= 27 and len(page) >= 27 + page[26]
    whole = whole and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & 4:
        raise ValueError(
            f"{name}: is truncated: its last page does not end the stream, at {size} bytes; copy it again"
        )
