"""The stretches of conversations that make up a step: a pure function of (seed, step)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

# Epochs that are cut and packed by themselves. To count their micro-batches takes less than a second for a
# small corpus; a training on a large one does not come to the last of them.
CYCLE = 256


class Chunk(NamedTuple):
    """Consecutive turns of one conversation: `turns` from `first` on."""

    conversation: int
    first: int
    turns: int


class ChunkSampler:
    """Cuts conversations into chunks, shuffles these and fills micro-batches with them.

    An epoch cuts at its own places (the first chunk of a conversation is shortened at random), and every turn
    appears once in it. The micro-batches of all epochs follow each other, and a step takes the next ones,
    across the end of an epoch too. After CYCLE epochs the same micro-batches come in other orders: the epoch
    of any step is found without planning all before it. The same for any number of ranks.

    Args:
        rows: Rows of every turn of every conversation.
        max_rows: Most rows of a chunk; a longer turn is left out (the dataset counts them).
        rows_per_micro_batch: Rows a micro-batch is filled to.
        micro-batches: Micro-batches per step.
        seed: Seed of the order.

    Raises:
        ValueError: max_rows above rows_per_micro_batch; from `step`, too few rows or a step below 1.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        *,
        max_rows: int,
        rows_per_micro_batch: int,
        micro_batches: int,
        seed: int,
    ) -> None:
        if max_rows > rows_per_micro_batch:
            raise ValueError(
                f"max_rows is {max_rows}: expected at most rows_per_micro_batch {rows_per_micro_batch}"
            )
        self.rows, self.max_rows, self.rows_per_micro_batch = rows, max_rows, rows_per_micro_batch
        self.micro_batches, self.seed = micro_batches, seed
        # Micro-batches before each epoch of the first CYCLE, as far as they were asked for.
        self._starts = [0]
        self._plan = lru_cache(maxsize=4)(self._planned)

    def step(self, step: int) -> list[list[Chunk]]:
        """Returns the chunks of each micro-batch of a step (counted from 1)."""
        if step < 1:
            raise ValueError(f"step is {step}: steps are counted from 1")
        first = (step - 1) * self.micro_batches
        return [self._micro_batch(first + number) for number in range(self.micro_batches)]

    def epoch(self, number: int) -> list[list[Chunk]]:
        """Returns the micro-batches of an epoch, counted from 0."""
        cycles, epoch = divmod(number, CYCLE)
        plan = self._plan(epoch)
        if cycles == 0:
            return plan
        order = np.random.default_rng([self.seed, 11, number]).permutation(len(plan))
        return [plan[place] for place in order]

    def _micro_batch(self, place: int) -> list[Chunk]:
        """Returns the micro-batch at a place in the row of those of all epochs."""
        starts = self._starts
        while place >= starts[-1] and len(starts) <= CYCLE:
            starts.append(starts[-1] + len(self._plan(len(starts) - 1)))
        cycles, place = divmod(place, starts[-1]) if place >= starts[-1] else (0, place)
        epoch = bisect_right(starts, place) - 1
        return self.epoch(cycles * CYCLE + epoch)[place - starts[epoch]]

    def _planned(self, epoch: int) -> list[list[Chunk]]:
        rng = np.random.default_rng([self.seed, 10, epoch])
        chunks: list[Chunk] = []
        for index, rows in enumerate(self.rows):
            limit = int(rng.integers(self.max_rows // 4, self.max_rows + 1))
            chunks.extend(cut(index, rows, limit, self.max_rows))
        order = rng.permutation(len(chunks))
        micro_batches: list[list[Chunk]] = [[]]
        filled = 0
        for place in order:
            chunk = chunks[place]
            size = sum(self.rows[chunk.conversation][chunk.first : chunk.first + chunk.turns])
            if filled + size > self.rows_per_micro_batch and micro_batches[-1]:
                micro_batches.append([])
                filled = 0
            micro_batches[-1].append(chunk)
            filled += size
        if len(micro_batches) < self.micro_batches or not micro_batches[0]:
            raise ValueError(
                f"one epoch fills {len(micro_batches)} micro-batches of {self.rows_per_micro_batch} rows: "
                f"expected {self.micro_batches} or more, those of one step; lower "
                f"data.rows_per_micro_batch or add recordings"
            )
        return micro_batches


def cut(conversation: int, rows: Sequence[int], limit: int, max_rows: int) -> list[Chunk]:
    """Returns a conversation's chunks, the first of at most `limit` rows, the others of at most max_rows.

    A single turn may exceed `limit`; one above max_rows is left out and ends the chunk before it.
    """
    chunks: list[Chunk] = []
    first, filled = 0, 0
    for index, size in enumerate(rows):
        if size > max_rows:
            if index > first:
                chunks.append(Chunk(conversation, first, index - first))
            first, filled = index + 1, 0
            continue
        if filled + size > limit and index > first:
            chunks.append(Chunk(conversation, first, index - first))
            first, filled, limit = index, 0, max_rows
        filled += size
    if first < len(rows):
        chunks.append(Chunk(conversation, first, len(rows) - first))
    return chunks
