"""Files of the game Beneath a Steel Sky: its archive, and Rob Northen's compression.

Sources: ScummVM's engine (engines/sky/disk.cpp) for the archive, and the published descriptions of the format
RNC, method 1: Huffman codes of run lengths, distances and match lengths, and literal bytes in between.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: Length of the header that a file of the archive may have before its content.
HEADER_BYTES = 22
MAGIC, RNC_HEADER_BYTES = b"RNC\x01", 18
SPEECH_FROM = 50_000  # number of the first file with speech


class ArchivedFile(NamedTuple):
    """Place of a file in sky.dsk: its number, offset and length in bytes."""

    number: int
    offset: int
    length: int


def read_index(content: bytes) -> list[ArchivedFile]:
    """Reads sky.dnr, the index of the archive.

    Raises:
        ValueError: The index is cut off.
    """
    count = struct.unpack_from("<I", content)[0] if len(content) >= 4 else 0
    if not count or len(content) < 4 + 8 * count:
        raise ValueError(f"sky.dnr has {len(content)} bytes: expected an index; get the package again")
    files = []
    for place in range(4, 4 + 8 * count, 8):
        number, low, high, length, flags = struct.unpack_from("<HHBHB", content, place)
        offset = low | (high & 0x7F) << 16
        if high & 0x80:  # large offsets are counted in paragraphs of 16 bytes
            offset <<= 4
        files.append(ArchivedFile(number, offset, length | (flags & 0x3F) << 16))
    return files


def speech_files(index: Sequence[ArchivedFile], archive: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields number and packed content of the files that hold compressed speech."""
    for file in index:
        content = archive[file.offset : file.offset + file.length]
        if file.number >= SPEECH_FROM and content[HEADER_BYTES:].startswith(MAGIC):
            yield file.number, content[HEADER_BYTES:]


def unpack(packed: bytes) -> bytes:
    """Unpacks RNC, method 1.

    Raises:
        ValueError: The content is no RNC, or damaged (its checksums say so).
    """
    if not packed.startswith(MAGIC) or len(packed) < RNC_HEADER_BYTES:
        raise ValueError("the file is not packed by RNC, method 1")
    size, length, out_sum, in_sum, _, chunks = struct.unpack_from(">IIHHBB", packed, len(MAGIC))
    body = packed[RNC_HEADER_BYTES : RNC_HEADER_BYTES + length]
    if len(body) < length or checksum(body) != in_sum:
        raise ValueError("the packed bytes are damaged: their checksum is another one")
    out = _unpacked(_Bits(body), chunks)
    if len(out) != size or checksum(out) != out_sum:
        raise ValueError("the unpacked bytes are damaged: their checksum is another one")
    return out


def _unpacked(bits: _Bits, chunks: int) -> bytes:
    out = bytearray()
    bits.take(2)  # whether the file is locked or encrypted
    for _ in range(chunks):
        runs, distances, matches = (_Huffman(bits) for _ in range(3))
        parts = bits.take(16)
        for part in range(parts):
            if run := runs.read(bits):
                out += bits.literals(run)
            if part == parts - 1:
                break
            distance, length = distances.read(bits) + 1, matches.read(bits) + 2
            first = len(out) - distance
            if first < 0:
                raise ValueError("the packed bytes are damaged: a match begins before the file")
            for place in range(first, first + length) if distance < length else ():
                out.append(out[place])
            if distance >= length:
                out += out[first : first + length]
    return bytes(out)


class _Bits:
    """Bits from the lowest of 16-bit words on, with literal bytes between the words."""

    def __init__(self, data: bytes) -> None:
        self._data = data + bytes(4)  # the last word may lie beyond the data
        self._next, self._count = 0, 16
        self.buffer = self._word()

    def _word(self) -> int:
        return self._data[self._next] | self._data[self._next + 1] << 8

    def take(self, count: int) -> int:
        """Takes the next `count` bits, at most 16."""
        value = self.buffer & (1 << count) - 1
        self.buffer >>= count
        self._count -= count
        if self._count < 16:
            self._next = min(self._next + 2, len(self._data) - 2)
            self.buffer |= self._word() << self._count
            self._count += 16
        return value

    def literals(self, count: int) -> bytes:
        """Takes `count` bytes, which lie where the last word that was read ahead began."""
        found = self._data[self._next : self._next + count]
        self._next = min(self._next + count, len(self._data) - 2)
        self._count -= 16
        self.buffer = self.buffer & (1 << self._count) - 1 | self._word() << self._count
        self._count += 16
        return found


class _Huffman:
    """A canonical Huffman code of numbers' bit lengths, read from its code lengths."""

    def __init__(self, bits: _Bits) -> None:
        lengths = [bits.take(4) for _ in range(bits.take(5))]
        longest = max(lengths, default=0)
        self._mask = (1 << longest) - 1
        self._table: list[tuple[int, int]] = [(0, 0)] * (1 << longest)
        code = 0
        for length in range(1, longest + 1):
            for value, own in enumerate(lengths):
                if own == length:
                    first = int(f"{code:0{length}b}"[::-1], 2)
                    for place in range(first, 1 << longest, 1 << length):
                        self._table[place] = (length, value)
                    code += 1
            code <<= 1

    def read(self, bits: _Bits) -> int:
        """Reads a number: the length of its bits by the code, then all but the highest of them."""
        length, value = self._table[bits.buffer & self._mask]
        bits.take(length)
        return value if value < 2 else 1 << value - 1 | bits.take(value - 1)


def checksum(data: bytes) -> int:
    """Returns the CRC-16 (polynomial 0xA001) of the format."""
    value = 0
    for byte in data:
        value = _CRC[(value ^ byte) & 0xFF] ^ value >> 8
    return value


def _crc_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


_CRC = [_crc_entry(byte) for byte in range(256)]
