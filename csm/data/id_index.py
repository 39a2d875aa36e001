"""Ids by the first 64 bits of their SHA-256: a few bytes an id, where a dictionary takes some 250."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from csm.system.files import hash_key

HASH_BYTES = 8
LINE_END = 10
# Bytes of a block that are looked through together, and ids that are decoded together.
PART_BYTES, PART_IDS = 1 << 20, 4096
Array: TypeAlias = NDArray[Any]
T = TypeVar("T")


def id_hash(name: str) -> bytes:
    """Returns the hash of an id, 8 bytes."""
    return hash_key(name)[:HASH_BYTES]


def first_repeat(hashes: bytearray, ids: Iterable[tuple[str, T]]) -> tuple[str, T] | None:
    """Returns the first id that came before, with what stands beside it, or None.

    Args:
        hashes: `id_hash` of all ids; sorted in place.
        ids: The same ids with anything; read only where two hashes are equal.
    """
    found = np.frombuffer(hashes, np.uint64)
    found.sort()
    equal = {value.tobytes() for value in found[1:][found[1:] == found[:-1]]}
    seen: set[str] = set()
    for name, beside in ids if equal else ():
        if id_hash(name) in equal:
            if name in seen:
                return name, beside
            seen.add(name)
    return None


class HashIndex:
    """The places of hashes, found by bisection; holds 12 bytes a hash and takes 24 while it is made.

    Args:
        hashes: uint64 [N].
    """

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[order]
        self._places = order.astype(np.min_scalar_type(len(order)))

    def places(self, value: bytes) -> list[int]:
        """Returns all places of a hash, in order."""
        first, last = (
            int(np.searchsorted(self._sorted, np.frombuffer(value, np.uint64)[0], side))
            for side in ("left", "right")
        )
        found: list[int] = self._places[first:last].tolist()
        return found


class IdIndex:
    """Ids that lie in blocks, with a line end between two of a block, and the place of each.

    Holds 4 bytes an id. Ids are found in order without more; the first one out of order adds 12 bytes an id.

    Args:
        blocks: uint8 [bytes] each, of one or more ids in UTF-8.
    """

    def __init__(self, blocks: Sequence[Array]) -> None:
        self._blocks = blocks
        self._ends = [_ends(block) for block in blocks]
        self._first = [0, *accumulate(map(len, self._ends))]
        self._last = -1  # place that was found last

    def __len__(self) -> int:
        return self._first[-1]

    def __iter__(self) -> Iterator[str]:
        for block, ends in zip(self._blocks, self._ends, strict=True):
            start = 0
            for first in range(0, len(ends), PART_IDS):
                end = int(ends[first : first + PART_IDS][-1])
                yield from block[start:end].tobytes().decode().split("\n")
                start = end + 1

    def place(self, name: str) -> int | None:
        """Returns the place of an id, or None; of equal ids the place of any one."""
        wanted = name.encode("utf-8", "surrogatepass")
        for place in (self._last + 1, self._last):
            if 0 <= place < len(self) and self._bytes(place) == wanted:
                self._last = place
                return place
        for place in reversed(self._hashes.places(id_hash(name))):
            if self._bytes(place) == wanted:
                self._last = place
                return place
        return None

    @cached_property
    def _hashes(self) -> HashIndex:
        hashes = bytearray()
        for name in self:
            hashes += id_hash(name)
        return HashIndex(np.frombuffer(hashes, np.uint64))

    def _bytes(self, place: int) -> bytes:
        number = bisect_right(self._first, place) - 1
        row, ends = place - self._first[number], self._ends[number]
        start = int(ends[row - 1]) + 1 if row else 0
        return self._blocks[number][start : int(ends[row])].tobytes()


def _ends(block: Array) -> Array:
    """Returns where each id of a block ends."""
    kind = np.min_scalar_type(len(block))
    parts = range(0, len(block), PART_BYTES)
    found = [np.flatnonzero(block[p : p + PART_BYTES] == LINE_END).astype(kind) + kind.type(p) for p in parts]
    return np.concatenate([*found, np.array([len(block)], kind)])
