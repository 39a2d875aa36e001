"""Which stretches of which conversations make up a step: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Chunk(NamedTuple):
    """Consecutive turns of one conversation: `turns` from `first` on."""

    conversation: int
    first: int
    turns: int


class ChunkSampler:
    """Cuts conversations into chunks of at most `max_rows`, shuffles, fills shards up to `rows_per_shard`.

    Every epoch cuts at other places (the first chunk of a conversation is shortened at random) and every turn
    appears once per epoch. The same for any number of ranks.

    Args:
        rows: Rows of every turn of every conversation.
        max_rows: Most rows of a chunk; a longer turn is left out (the dataset counts them).
        rows_per_shard: Rows a shard is filled to.
        shards: Shards per step.
        seed: Of the order.

    Raises:
        ValueError: max_rows above rows_per_shard; from `step`, too few rows for one step, or a step below 1.
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], *, max_rows: int, rows_per_shard: int, shards: int, seed: int
    ) -> None:
        if max_rows > rows_per_shard:
            raise ValueError(f"max_rows is {max_rows}: expected at most rows_per_shard {rows_per_shard}")
        self.rows, self.max_rows, self.rows_per_shard = rows, max_rows, rows_per_shard
        self.shards, self.seed = shards, seed
        self._starts = [0]
        self.epoch_steps = lru_cache(maxsize=4)(self._epoch_steps)

    def step(self, step: int) -> list[list[Chunk]]:
        """The chunks of each shard of a step (counted from 1)."""
        if step < 1:
            raise ValueError(f"step is {step}: steps are counted from 1")
        index = step - 1
        epoch = 0
        while True:
            if epoch + 1 < len(self._starts):
                size = self._starts[epoch + 1] - self._starts[epoch]
            else:
                size = len(self.epoch_steps(epoch))
                self._starts.append(self._starts[-1] + size)
            if index < self._starts[epoch + 1]:
                return self.epoch_steps(epoch)[index - self._starts[epoch]]
            epoch += 1

    def _epoch_steps(self, epoch: int) -> list[list[list[Chunk]]]:
        rng = np.random.default_rng([self.seed, 10, epoch])
        chunks: list[Chunk] = []
        for index, rows in enumerate(self.rows):
            limit = int(rng.integers(self.max_rows // 4, self.max_rows + 1))
            chunks.extend(self.cut(index, rows, limit=limit))
        order = rng.permutation(len(chunks))
        shards: list[list[Chunk]] = [[]]
        filled = 0
        for place in order:
            chunk = chunks[place]
            size = sum(self.rows[chunk.conversation][chunk.first : chunk.first + chunk.turns])
            if filled + size > self.rows_per_shard and shards[-1]:
                shards.append([])
                filled = 0
            shards[-1].append(chunk)
            filled += size
        usable = len(shards) // self.shards * self.shards
        if usable == 0:
            raise ValueError(
                f"one epoch fills only {len(shards)} shards of {self.rows_per_shard} rows, {self.shards} are "
                f"needed for a step: lower data.rows_per_shard or add recordings"
            )
        return [shards[i : i + self.shards] for i in range(0, usable, self.shards)]

    def cut(self, conversation: int, rows: Sequence[int], limit: int) -> list[Chunk]:
        """Chunks of a conversation, the first of at most `limit` rows, the others of at most max_rows.

        A single turn may exceed `limit`; one above max_rows is left out and ends the chunk before it.
        """
        chunks: list[Chunk] = []
        first, filled = 0, 0
        for index, size in enumerate(rows):
            if size > self.max_rows:
                if index > first:
                    chunks.append(Chunk(conversation, first, index - first))
                first, filled = index + 1, 0
                continue
            if filled + size > limit and index > first:
                chunks.append(Chunk(conversation, first, index - first))
                first, filled, limit = index, 0, self.max_rows
            filled += size
        if first < len(rows):
            chunks.append(Chunk(conversation, first, len(rows) - first))
        return chunks
