"""A small archive of Beneath a Steel Sky: an index, and files that an encoder of its own packs."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from csm.data.corpora.steel_sky_files import HEADER_BYTES, MAGIC, checksum

#: A run of literal bytes, then a match (distance, length); None ends the list.
Part = tuple[bytes, tuple[int, int] | None]
CODE_BITS = 3  # of eight bit lengths, 0 to 7: numbers up to 127


class BitWriter:
    """Bits in words of 16, lowest first; literal bytes go before the word that a reader has read ahead."""

    def __init__(self) -> None:
        self.bits: list[int] = []
        self.items: list[bytes | None] = [None]  # None is a word
        self.count = 16

    def put(self, value: int, count: int) -> None:
        self.bits += [value >> place & 1 for place in range(count)]
        self.count -= count
        if self.count < 16:
            self.items.append(None)
            self.count += 16

    def literals(self, content: bytes) -> None:
        self.items.insert(len(self.items) - 1, content)

    def number(self, value: int) -> None:
        length = value.bit_length()
        assert length < 1 << CODE_BITS
        self.put(int(f"{length:0{CODE_BITS}b}"[::-1], 2), CODE_BITS)
        if length > 1:
            self.put(value & (1 << length - 1) - 1, length - 1)

    def content(self) -> bytes:
        out, place = b"", 0
        for item in self.items:
            if item is None:
                word = sum(bit << index for index, bit in enumerate(self.bits[place : place + 16]))
                out += struct.pack("<H", word)
                place += 16
            else:
                out += item
        return out


def pack(parts: Sequence[Part], whole: bytes) -> bytes:
    """Packs parts, which must give `whole`, as one chunk."""
    writer = BitWriter()
    writer.put(0, 2)
    for _ in range(3):
        writer.put(1 << CODE_BITS, 5)
        for _ in range(1 << CODE_BITS):
            writer.put(CODE_BITS, 4)
    writer.put(len(parts), 16)
    for run, match in parts:
        writer.number(len(run))
        if run:
            writer.literals(run)
        if match is not None:
            distance, length = match
            writer.number(distance - 1)
            writer.number(length - 2)
    body = writer.content()
    sums = struct.pack(">IIHHBB", len(whole), len(body), checksum(whole), checksum(body), 0, 1)
    return MAGIC + sums + body


def make_archive(files: dict[int, bytes]) -> tuple[bytes, bytes]:
    """Returns sky.dnr and sky.dsk of files by number, packed already or not."""
    index, archive = struct.pack("<I", len(files)), b""
    for number, content in files.items():
        offset = len(archive)
        index += struct.pack(
            "<HHBHB", number, offset & 0xFFFF, offset >> 16, len(content) & 0xFFFF, len(content) >> 16
        )
        archive += content
    return index, archive


def with_header(packed: bytes) -> bytes:
    return bytes(HEADER_BYTES) + packed
