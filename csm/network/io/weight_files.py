"""Safetensors files read and written one tensor at a time, so that no second copy of the weights is held.

The library safetensors maps whole files for reading and takes whole files for writing; the format itself is a
length, a JSON header and the tensors' bytes. Source: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from csm.system.digests import require_intact
from csm.system.files import full_disk_named, write_atomically

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The library's own bound; a longer header is no header.
LONGEST_HEADER = 100_000_000
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class Weight(NamedTuple):
    """A tensor that is not read before it is asked for.

    Attributes:
        shape, dtype: Of the tensor.
        read: Gives it, on the CPU.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def numel(self) -> int:
        """Values of the tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.numel * self.dtype.itemsize


def stored_weights(folder: Path, index: str | None = None) -> dict[str, Weight]:
    """The tensors of a folder by name, of one file or of several with an index.

    Args:
        folder: Of model.safetensors or model.safetensors.index.json.
        index: Name of another file or index to read instead.

    Raises:
        ValueError: No such file, a damaged one, or an index that does not match its files.
    """
    names = [index] if index else [INDEX, WEIGHTS]
    found = [name for name in names if (folder / name).is_file()]
    if not found:
        hint = "; safetensors are read, convert others first" if [*folder.glob("*.pt")] else ""
        raise ValueError(f"no weights in {folder}: expected {' or '.join(names)} there{hint}")
    require_intact(folder / found[0], "copy the folder again")
    if not found[0].endswith(".json"):
        return _file_weights(folder / found[0])
    try:
        places: dict[str, str] = json.loads((folder / found[0]).read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{folder / found[0]} is not a safetensors index: download or copy it again"
        ) from error
    if outside := [name for name in files if Path(name).name != name or (folder / name).is_symlink()]:
        raise ValueError(
            f"{folder / found[0]} names {outside}: expected files of its own folder; copy it again"
        )
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise ValueError(f"{folder / found[0]} names {absent}, not in the folder: copy the missing files")
    weights: dict[str, Weight] = {}
    for name in files:
        require_intact(folder / name, "copy the folder again")
        weights.update(_file_weights(folder / name))
    wrong = sorted(set(places) ^ set(weights))
    if wrong:
        raise ValueError(f"{folder / found[0]} and its files differ in {wrong}: copy the folder again")
    return weights


def _file_weights(path: Path) -> dict[str, Weight]:
    """The tensors of one file."""
    size = path.stat().st_size
    damaged = f"{path} is not a whole safetensors file ({size} bytes): copy it again"
    weights: dict[str, Weight] = {}
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(LONGEST_HEADER, size - 8):
                raise ValueError("header beyond the file's end")
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
            weight = Weight(shape, dtype, _reader(path, 8 + length + first, dtype, shape))
            if last - first != weight.nbytes or not 0 <= first <= last <= size - 8 - length:
                raise ValueError(f"{name} lies outside the file")
            weights[name] = weight
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ValueError(f"{damaged} ({error})") from error
    return weights


def _reader(path: Path, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Callable[[], Tensor]:
    def read() -> Tensor:
        raw = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8)
        with path.open("rb") as file:
            file.seek(start)
            if file.readinto(raw.numpy().data) != len(raw):
                raise ValueError(f"{path} ended early: it was changed while it was read")
        return raw.view(dtype).reshape(shape)

    return read


def write_weights(folder: Path, weights: dict[str, Weight], shard_bytes: int) -> None:
    """Writes tensors in the order given, to one file or to several of at most `shard_bytes` with an index.

    New files take their names when all are written; then weights of an earlier save are removed.

    Args:
        folder: There already.
        weights: By name.
        shard_bytes: Most bytes of tensors per file; a tensor above has a file of its own.

    Raises:
        ValueError: shard_bytes below 1.
    """
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes is {shard_bytes}: expected 1 or more")
    shards: list[list[str]] = [[]]
    filled = 0
    for name, weight in weights.items():
        if shards[-1] and filled + weight.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += weight.nbytes
    count = len(shards)
    names = (
        [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)] if count > 1 else [WEIGHTS]
    )
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / f"{name}.part", {key: weights[key] for key in shard})
    for name in names:
        (folder / f"{name}.part").replace(folder / name)
    if count > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = {"total_size": sum(weight.nbytes for weight in weights.values())}
        index = json.dumps({"metadata": total, "weight_map": places}, indent=1)
        write_atomically(folder / INDEX, index + "\n")
        names.append(INDEX)
    for path in folder.iterdir():
        if path.name not in names and (path.name in (WEIGHTS, INDEX) or SHARD.fullmatch(path.name)):
            path.unlink()


def _write_file(path: Path, weights: dict[str, Weight]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, weight in weights.items():
        offsets = [place, place + weight.nbytes]
        header[name] = {"dtype": NAMES[weight.dtype], "shape": list(weight.shape), "data_offsets": offsets}
        place = offsets[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with full_disk_named(path), path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, weight in weights.items():
            tensor = weight.read()
            assert tuple(tensor.shape) == weight.shape and tensor.dtype == weight.dtype, name
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
