"""A random order of any length that no memory holds: the number at a place is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6


class RandomOrder:
    """A permutation of 0..size-1, a pure function of the seed.

    It is a Feistel network on the next larger even number of bits; a number beyond the size is encrypted
    again until it is below ("cycle walking": Black and Rogaway 2002).

    Args:
        size: How many numbers.
        seed: Integers.
    """

    def __init__(self, size: int, seed: Sequence[int]) -> None:
        self.size = size
        self.half = max(1, -(-(size - 1).bit_length() // 2))
        self.keys = np.random.default_rng(list(seed)).integers(0, 2**63, ROUNDS, dtype=np.uint64)

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the numbers at some places."""
        found = self._encrypted(places.astype(np.uint64))
        while len(beyond := np.flatnonzero(found >= self.size)):
            found[beyond] = self._encrypted(found[beyond])
        return found.astype(np.int64)

    def _encrypted(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        mask, half = np.uint64(2**self.half - 1), np.uint64(self.half)
        left, right = numbers >> half, numbers & mask
        for key in self.keys:
            # The mixing of splitmix64 (Steele, Lea and Flood 2014).
            mixed = (right + key) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(29))) & mask)
        return (left << half) | right
