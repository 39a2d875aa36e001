"""Data files of the game Drascula: texts and talk sequences (drascula.dat), dialogues (OP_N.CAL).

drascula.dat is big-endian: "DRASCULA", the version (1 byte), tables of records, each after its count (2
bytes), the number of languages (2 bytes), tables of texts. A table of texts is its count, then for each
language a block: length of the block (2 bytes), 2 zero bytes, the texts. A text is its length with these 2
bytes, the letters in code page 437, zeros up to a multiple of 4 bytes. The format is that of ScummVM
(devtools/create_drascula), file version 6.

OP_N.CAL has each bit inverted: four options that a player chooses from, their four clips, and for the first
three the talk sequence that answers. Lines end with line feeds; a blank is the byte 0xA7.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VERSION = 6
ENGLISH = 0

# Bytes of a record of each table before the texts; the last one holds the talk sequences.
_RECORD_BYTES = (4, 4, 4, 2, 4, 2, 4, 2, 2, 20, 20, 10, 8)
# Prefixes of the clips of each table of texts, in the order of the file; other tables have no speech.
CLIP_PREFIXES = ("", "D", "B", "BJ", "E", "I", "L", "P", "T", "VB")

# Command of a talk sequence -> prefix of the clip that it plays.
_COMMANDS = dict(enumerate(("", "B", "P", "BJ", "VB", "VB", "I", "L", "E", "D", "T", "T"), start=13))
_BARTENDER, _BARTENDER_IN_D = (23, 24), 82  # this one line of the bartender is in Drascula's table


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a player may say in a dialogue.

    Attributes:
        clip: Name of the clip.
        text: Text of the option.
        answer: Number of the talk sequence that answers, None ends the dialogue.
    """

    clip: str
    text: str
    answer: int | None


def read_texts(data: bytes) -> dict[str, str]:
    """Reads the English texts of drascula.dat.

    Returns:
        Clip -> text as it is written; lines without a text are left out.

    Raises:
        ValueError: The file begins with other bytes or ends inside a table.
    """
    try:
        position, _ = _read_records(data)
        (languages,) = struct.unpack_from(">H", data, position)
        position += 2
        texts = {}
        for prefix in CLIP_PREFIXES:
            position += 2  # the count; the blocks state their lengths
            for language in range(languages):
                (length,) = struct.unpack_from(">H", data, position)
                position += 2
                if language == ENGLISH:
                    lines = _read_block(data[position + 2 : position + length])
                    texts.update({f"{prefix}{i}": line for i, line in enumerate(lines) if line})
                position += length
        if position > len(data):
            raise struct.error("a block is longer than the file")
    except struct.error as error:
        raise ValueError(f"drascula.dat ends inside a table ({error}); get the package again") from error
    return texts


def read_sequences(data: bytes) -> dict[str, list[str]]:
    """Reads the talk sequences of drascula.dat.

    Returns:
        "CHAPTER:NUMBER" -> clips in the order in which the game plays them.

    Raises:
        ValueError: As `read_texts`.
    """
    try:
        _, records = _read_records(data)
    except struct.error as error:
        raise ValueError(f"drascula.dat ends inside a table ({error}); get the package again") from error
    sequences: dict[str, list[str]] = {}
    for chapter, sequence, command, line in struct.iter_unpack(">4h", records):
        if command in _COMMANDS:
            in_d = command in _BARTENDER and line == _BARTENDER_IN_D
            prefix = "D" if in_d else _COMMANDS[command]
            sequences.setdefault(f"{chapter}:{sequence}", []).append(f"{prefix}{line}")
    return sequences


def read_dialogue(data: bytes, name: str) -> list[Option]:
    """Reads a file OP_N.CAL.

    Raises:
        ValueError: It does not hold four texts, four clips and three numbers.
    """
    plain = bytes(byte ^ 0xFF for byte in data).replace(b"\xa7", b" ").decode("cp437")
    lines = [line for line in (line.strip() for line in plain.replace("\r", "").split("\n")) if line]
    clips = [line.upper().removesuffix(".ALS") for line in lines[4:8]]
    answers = lines[8:11]
    if len(answers) < 3 or not all(part.isdecimal() for part in (*clips, *answers)):
        raise ValueError(
            f"{name} has the lines {lines[4:]}: expected four texts, four clips N.ALS and three numbers; "
            "get the package again"
        )
    numbers = [*map(int, answers), None]
    return [
        Option(clip=clip, text=text, answer=answer)
        for text, clip, answer in zip(lines[:4], clips, numbers, strict=True)
    ]


def _read_records(data: bytes) -> tuple[int, bytes]:
    """Returns the position behind the tables of records, and the last one's bytes."""
    if data[:8] != b"DRASCULA" or data[8:9] != bytes([VERSION]):
        raise ValueError(
            f"drascula.dat begins with {data[:9]!r}: expected b'DRASCULA' and version {VERSION}; get "
            "the package again"
        )
    position, records = 9, b""
    for size in _RECORD_BYTES:
        (count,) = struct.unpack_from(">H", data, position)
        position += 2
        records = data[position : position + count * size]
        position += count * size
        if position > len(data):
            raise struct.error("its records are longer than the file")
    return position, records


def _read_block(block: bytes) -> list[str]:
    lines, position = [], 0
    while position < len(block):
        (length,) = struct.unpack_from(">H", block, position)
        if length < 4:
            raise struct.error(f"a text states {length} bytes")
        lines.append(block[position + 2 : position + length].split(b"\0")[0].decode("cp437"))
        position += length
    return lines
