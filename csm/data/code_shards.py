"""A corpus as codes on disk: large safetensors shards that are mapped into memory, and a small index.

A folder of codes holds

    codes_*.safetensors   the turns of whole conversations, end to end: frames [V, F, K] of V time shifts
    index.json            which tokenizer and corpus, the shards in order; written last

A shard is read where a turn of it is asked for, by pages: what a process holds does not grow with the corpus.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from csm.data.id_index import HASH_BYTES, HashIndex, IdIndex
from csm.data.remote_files import fetch
from csm.system.digests import folder_digests, record_digests, require_intact
from csm.system.files import new_file, write_atomically

INDEX_NAME = "index.json"
REMEDY = "delete the folder of the codes and run csm encode again"
# Sizes of the first shards, 75 minutes of 32 codebooks in one cut, and of the largest ones.
SHARD_BYTES, LARGEST_SHARD_BYTES = 4 * 2**20, 256 * 2**20
# A shard is at most this fraction of those before it, or of the first size.
SHARDS_BEFORE = 32
KEY_BYTES = 16


class EncodedTurn(NamedTuple):
    """One encoded turn.

    Attributes:
        id: Turn id.
        codes: int16 [K, T]. prosody: float16 [T, 3]. speaker: float16 [E], the tokenizer's speaker embedding.
        shifted: Codes [K, T] of the further time shifts.
        key: Hash of what it was made of, in hexadecimal; "" if that is unknown.
    """

    id: str
    codes: Tensor
    prosody: Tensor
    speaker: Tensor
    shifted: tuple[Tensor, ...] = ()
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What the index says of a shard.

    Attributes:
        name: Of its file.
        turns, frames: Counts.
        codebooks: Codebooks of every frame.
        lowest, highest: Range of its codes.
    """

    name: str
    turns: int
    frames: int
    codebooks: int
    lowest: int
    highest: int

    def __post_init__(self) -> None:
        counts = (self.turns, self.frames, self.codebooks, self.lowest, self.highest)
        if not all(type(count) is int for count in counts) or self.turns < 1 or "/" in self.name:
            raise ValueError(f"a shard is {asdict(self)}: expected a file name and counts")


def write_shard(path: Path, turns: list[EncodedTurn]) -> ShardInfo:
    """Writes turns of equal codebooks and time shifts as one shard."""
    lengths = torch.tensor([turn.codes.shape[1] for turn in turns])
    versions = [[turn.codes, *turn.shifted] for turn in turns]
    keys = b"".join(bytes.fromhex(turn.key or "00" * KEY_BYTES) for turn in turns)
    codes = torch.stack([torch.cat([v.T for v in version]) for version in zip(*versions, strict=True)])
    tensors = {
        "ids": bytes_tensor("\n".join(turn.id for turn in turns).encode()),
        "keys": bytes_tensor(keys).view(len(turns), KEY_BYTES),
        "starts": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        "codes": codes.to(torch.int16).contiguous(),
        "prosody": torch.cat([turn.prosody for turn in turns]).half().contiguous(),
        "speaker": torch.stack([turn.speaker for turn in turns]).half().contiguous(),
    }
    with new_file(path) as file:
        save_file(tensors, file)
    return _info(path.name, tensors)


def bytes_tensor(data: bytes) -> Tensor:
    """Returns bytes as a tensor, for a safetensors file."""
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def shard_info(path: Path) -> ShardInfo:
    """Returns the index entry of a shard from its file."""
    with opened(path) as file:
        return _info(path.name, {name: file.get_tensor(name) for name in ("starts", "codes")})


def _info(name: str, tensors: Mapping[str, Tensor]) -> ShardInfo:
    starts, codes = tensors["starts"], tensors["codes"]
    low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
    counts = {"turns": len(starts) - 1, "frames": int(starts[-1]), "codebooks": codes.shape[2]}
    return ShardInfo(name=name, **counts, lowest=low, highest=high)


def shard_bytes(before: int) -> int:
    """Returns the size at which a shard is closed that follows others of `before` bytes together.

    Many ranks share a small corpus, and a large one has few files: 100,000 hours of 32 codebooks in one cut
    are 1,300 shards instead of 75,000.
    """
    return min(max(SHARD_BYTES, before // SHARDS_BEFORE), LARGEST_SHARD_BYTES)


def write_code_shards(folder: Path, turns: Iterable[EncodedTurn], description: dict[str, object]) -> int:
    """Writes turns as shards (`shard_bytes`) and, last, the index; returns the count.

    Args:
        folder: Made if missing.
        turns: In any order.
        description: Goes into the index: which tokenizer and corpus the codes are of.

    Raises:
        ValueError: Two turns of one id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX_NAME).unlink(missing_ok=True)
    shards = [
        write_shard(folder / f"codes_{number:04d}.safetensors", part)
        for number, part in enumerate(_parts(turns))
    ]
    write_index(folder, shards, description)
    return sum(shard.turns for shard in shards)


def _parts(turns: Iterable[EncodedTurn]) -> Iterator[list[EncodedTurn]]:
    """Yields the turns of each shard."""
    part: list[EncodedTurn] = []
    size = before = 0
    seen: set[str] = set()
    for turn in turns:
        if turn.id in seen:
            raise ValueError(f"turn {turn.id} came twice: expected unique ids")
        seen.add(turn.id)
        alike = not part or len(part[-1].shifted) == len(turn.shifted)
        if part and (size >= shard_bytes(before) or not alike):
            yield part
            part, size, before = [], 0, before + size
        part.append(turn)
        codebooks, frames = turn.codes.shape
        size += turn_bytes(codebooks, frames, 1 + len(turn.shifted))
    if part:
        yield part


def turn_bytes(codebooks: int, frames: int, versions: int) -> int:
    """Returns about the size of a turn in a shard."""
    return frames * (2 * codebooks * versions + 6) + 512


def write_index(folder: Path, shards: list[ShardInfo], description: Mapping[str, object]) -> None:
    """Writes the index, and the SHA-256 of the shards and of the index before it."""
    content = {**description, "shards": [asdict(shard) for shard in shards]}
    index = json.dumps(content, indent=1) + "\n"
    record_digests(folder, [shard.name for shard in shards], planned={INDEX_NAME: index})
    write_atomically(folder / INDEX_NAME, index)


def read_index(folder: Path) -> dict[str, Any] | None:
    """Returns the index of finished shards, its "shards" as `ShardInfo`s, or None where there are none.

    Raises:
        ValueError: The index is damaged, or of a version that entered no SHA-256.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    require_intact(path, REMEDY, listed=True)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        names = {item.name for item in fields(ShardInfo)}
        index["shards"] = [ShardInfo(**{name: s[name] for name in names}) for s in index["shards"]]
        return dict(index)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no index of codes ({error!r}); {REMEDY}") from error


def read_code_shards(folder: Path) -> CodeShards:
    """Returns all turns by id, each read where it is asked for.

    Raises:
        ValueError: No finished shards there.
    """
    index = read_index(folder)
    if index is None:
        raise ValueError(
            f"{folder} holds no codes ({INDEX_NAME} expected): run launch/encode_corpus.py first"
        )
    return CodeShards(folder, index["shards"])


class CodeShards(Mapping[str, EncodedTurn]):
    """The encoded turns of a folder by id.

    The first use of an id makes an index (`IdIndex`: 4 to 16 bytes a turn); `at` needs none. Reading raises
    ValueError for a shard that is missing or damaged.

    Args:
        folder: Folder of the codes.
        shards: Its shards, in order.
    """

    def __init__(self, folder: Path, shards: list[ShardInfo]) -> None:
        self.folder, self.shards = folder, shards
        self._opened: dict[int, dict[str, Tensor]] = {}

    def __getitem__(self, turn: str) -> EncodedTurn:
        if (place := self.place_of(turn)) is None:
            raise KeyError(turn)
        return self.at(*place, turn)

    def __contains__(self, turn: object) -> bool:
        return isinstance(turn, str) and self.place_of(turn) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return sum(shard.turns for shard in self.shards)

    @cached_property
    def _ids(self) -> IdIndex:
        return IdIndex([self.tensors(number)["ids"].numpy() for number in range(len(self.shards))])

    @cached_property
    def _first(self) -> list[int]:
        """Place of the first turn of each shard among all turns, and their number."""
        return [0, *accumulate(shard.turns for shard in self.shards)]

    def place_of(self, turn: str) -> tuple[int, int] | None:
        """Returns shard and row of a turn, None where it is not encoded."""
        place = self._ids.place(turn)
        return None if place is None else self._shard_and_row(place)

    @cached_property
    def _keys(self) -> HashIndex:
        tables = (self.tensors(number)["keys"].numpy() for number in range(len(self.shards)))
        hashes = [table[:, :HASH_BYTES].copy().view(np.uint64)[:, 0] for table in tables]
        return HashIndex(np.concatenate([np.zeros(0, np.uint64), *hashes]))

    def place_of_key(self, key: str) -> tuple[int, int] | None:
        """Returns shard and row of a turn that was made of what a key stands for, or None."""
        wanted = bytes.fromhex(key)
        for place in reversed(self._keys.places(wanted[:HASH_BYTES])):
            shard, row = self._shard_and_row(place)
            if self.tensors(shard)["keys"][row].numpy().tobytes() == wanted:
                return shard, row
        return None

    def _shard_and_row(self, place: int) -> tuple[int, int]:
        shard = bisect_right(self._first, place) - 1
        return shard, place - self._first[shard]

    def frames_of(self, turn: str) -> int:
        """Returns the number of a turn's frames, 0 where it is not encoded."""
        place = self.place_of(turn)
        return 0 if place is None else self.frames_at(*place)

    def frames_at(self, shard: int, row: int) -> int:
        """Returns the number of frames of the turn of a row of a shard."""
        first, last = self.tensors(shard)["starts"][row : row + 2].tolist()
        return int(last - first)

    def at(self, shard: int, row: int, name: str) -> EncodedTurn:
        """Returns the turn of a row of a shard under its id; its tensors are views of the mapped file."""
        tensors = self.tensors(shard)
        first, last = tensors["starts"][row : row + 2].tolist()
        codes, *shifted = (version[first:last].T for version in tensors["codes"])
        return EncodedTurn(
            name,
            codes,
            tensors["prosody"][first:last],
            tensors["speaker"][row],
            tuple(shifted),
            bytes(tensors["keys"][row].numpy()).hex(),
        )

    def tensors(self, shard: int) -> dict[str, Tensor]:
        """Returns the tensors of a shard, mapped and not read; verified at their first use."""
        if shard not in self._opened:
            path = self.folder / self.shards[shard].name
            fetch(self.folder, path.name)
            require_intact(path, REMEDY, listed=True)
            with opened(path) as file:
                found = {name: file.get_tensor(name) for name in _TENSORS}
            if not _fits(found, self.shards[shard]):
                raise ValueError(f"{path} is damaged (its tensors do not fit each other); {REMEDY}")
            self._opened[shard] = found
        return self._opened[shard]


def _fits(tensors: Mapping[str, Tensor], shard: ShardInfo) -> bool:
    """Whether the tensors of a shard have the sizes that the index states."""
    starts, turns, frames = tensors["starts"], shard.turns, shard.frames
    if any(tensors[name].dtype != kind for name, kind in _TENSORS.items()) or starts.ndim != 1:
        return False
    return (
        starts.shape == (turns + 1,)
        and int(starts[0]) == 0
        and int(starts[-1]) == frames
        and bool((starts.diff() >= 0).all())
        and tensors["keys"].shape == (turns, KEY_BYTES)
        and tensors["codes"].ndim == 3
        and tensors["codes"].shape[1:] == (frames, shard.codebooks)
        and tensors["prosody"].shape == (frames, 3)
        and tensors["speaker"].ndim == 2
        and len(tensors["speaker"]) == turns
        and int((tensors["ids"] == ord("\n")).sum()) == turns - 1
    )


_TENSORS = {
    "ids": torch.uint8,
    "keys": torch.uint8,
    "starts": torch.int64,
    "codes": torch.int16,
    "prosody": torch.float16,
    "speaker": torch.float16,
}


def codes_digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of shards, alignment and code vectors by name.

    Not of the index: it names the tokenizer's folder too, which may be moved.
    """
    return {f"codes/{name}": digest for name, digest in folder_digests(folder).items() if name != INDEX_NAME}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file; what the library raises of it, the user sees in one line.

    Raises:
        ValueError: The file is none, or lacks a tensor.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); {REMEDY}") from error
