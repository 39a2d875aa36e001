"""Reads the weights of a CTranslate2 model file (`model.bin`), as faster-whisper's packages carry them.

The layout, all little-endian: uint32 version; from version 2 on a string with the name of the specification
and a uint32 revision; uint32 number of variables; then for each variable a string name, uint8 rank, rank
times uint32 dimensions, uint8 type, uint32 bytes, data. A string is uint16 length, closing zero included,
and bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from torch import Tensor

#: Type number of CTranslate2 -> torch.
TYPES = {0: torch.float32, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.float16}
MOST_DIMENSIONS = 8


def read_weights(path: str | Path, *, prefix: str = "") -> dict[str, Tensor]:
    """Returns name -> tensor of the variables whose names start with `prefix`, the prefix cut off.

    Args:
        path: File `model.bin`.
        prefix: For example "encoder/".

    Raises:
        ValueError: The file is no CTranslate2 model, ends early, or holds no such variable.
    """
    content = memoryview(Path(path).read_bytes())
    try:
        weights = _variables(content, prefix)
    except (struct.error, UnicodeDecodeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: is not a whole CTranslate2 model file ({error}); get it again") from error
    if not weights:
        raise ValueError(f"{path}: holds no variable {prefix}...: expected a model with that part")
    return weights


def _variables(content: memoryview, prefix: str) -> dict[str, Tensor]:
    reader = _Reader(content)
    if reader.number("I") >= 2:
        reader.string()
        reader.number("I")
    weights: dict[str, Tensor] = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        rank = reader.number("B")
        if rank > MOST_DIMENSIONS:
            raise KeyError(f"variable {name} has {rank} dimensions")
        shape = [reader.number("I") for _ in range(rank)]
        dtype = TYPES[reader.number("B")]
        data = reader.take(reader.number("I"))
        if name.startswith(prefix):
            weights[name[len(prefix) :]] = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
    return weights


class _Reader:
    """A position in the file's bytes."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.place = content, 0

    def take(self, count: int) -> memoryview:
        if self.place + count > len(self.content):
            raise struct.error(f"{count} bytes expected at {self.place} of {len(self.content)}")
        self.place += count
        return self.content[self.place - count : self.place]

    def number(self, kind: str) -> int:
        (value,) = struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))
        return int(value)

    def string(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode("utf-8")
