"""The stretches of conversations that make up a step, for a corpus too large to be planned as a whole."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from csm.data.random_order import RandomOrder
from csm.data.sampler import CYCLE, Chunk, cut
from csm.system.log import log

# Turns that are planned together, about 16 hours of speech; up to here `ChunkSampler` plans the whole.
WINDOW_TURNS = 1 << 14
# Share of the rows that fit into a window's micro-batches that it is expected to fill: room for chance.
RESERVE = 0.97
# Conversations whose rows are summed at a time.
BLOCK = 1 << 20


class WindowSampler:
    """Draws an epoch in windows of random conversations, each cut, shuffled and packed by itself.

    The conversations of an epoch follow in a random order that is computed and not stored. How many
    micro-batches a window has follows from its rows alone, so any step is found without planning those
    before it. Every turn of at most max_rows rows appears once an epoch.

    Args:
        rows: Rows of every turn of every conversation.
        totals: int [C], the sum of each conversation's turns of at most max_rows rows.
        turns: Number of all turns.
        max_rows, rows_per_micro_batch, micro_batches, seed: As in `ChunkSampler`.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        totals: NDArray[np.int32],
        turns: int,
        *,
        max_rows: int,
        rows_per_micro_batch: int,
        micro_batches: int,
        seed: int,
    ) -> None:
        self.rows, self.totals = rows, totals
        self.max_rows, self.rows_per_micro_batch = max_rows, rows_per_micro_batch
        self.micro_batches, self.seed = micro_batches, seed
        windows = max(1, min(turns // WINDOW_TURNS, len(totals)))
        self.edges = np.linspace(0, len(totals), windows + 1).astype(np.int64)
        self._starts = [0]
        self._counts = lru_cache(maxsize=2)(self._counted)
        self._window = lru_cache(maxsize=4)(self._planned)
        self.filled = RESERVE * self._share_filled()

    def step(self, step: int) -> list[list[Chunk]]:
        """Returns the chunks of each micro-batch of a step (counted from 1)."""
        if step < 1:
            raise ValueError(f"step is {step}: steps are counted from 1")
        first = (step - 1) * self.micro_batches
        return [self._micro_batch(first + number) for number in range(self.micro_batches)]

    def epoch_of(self, place: int) -> tuple[int, int]:
        """Returns the epoch of a micro-batch in the row of all, and its place in it."""
        starts = self._starts
        while place >= starts[-1] and len(starts) <= CYCLE:
            starts.append(starts[-1] + int(self._counts(len(starts) - 1)[-1]))
        cycles, place = divmod(place, starts[-1]) if place >= starts[-1] else (0, place)
        epoch = bisect_right(starts, place) - 1
        return cycles * CYCLE + epoch, place - starts[epoch]

    def _micro_batch(self, place: int) -> list[Chunk]:
        epoch, place = self.epoch_of(place)
        ends = self._counts(epoch % CYCLE)
        window = int(np.searchsorted(ends, place, side="right"))
        start = int(ends[window - 1]) if window else 0
        # The windows of an epoch beyond the first CYCLE hold what they held before, in another order.
        order = RandomOrder(int(ends[window]) - start, [self.seed, 17, epoch, window])
        return self._window(epoch % CYCLE, window)[int(order.at(np.array([place - start]))[0])]

    def _counted(self, epoch: int) -> NDArray[np.int64]:
        """Returns how many micro-batches an epoch has up to the end of each window."""
        order, sums = RandomOrder(len(self.totals), [self.seed, 14, epoch]), []
        ends = self.edges.tolist()
        first = 0
        while first < len(ends) - 1:
            last = max(first + 1, bisect_right(ends, ends[first] + BLOCK) - 1)
            places = np.arange(ends[first], ends[last])
            rows = self.totals[order.at(places)].astype(np.int64)
            sums.append(np.add.reduceat(rows, np.array(ends[first:last]) - ends[first]))
            first = last
        return np.cumsum(self._size(np.concatenate(sums)))

    def _size(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the number of micro-batches of windows with these numbers of rows."""
        return np.maximum(1, np.ceil(rows / (self.filled * self.rows_per_micro_batch))).astype(np.int64)

    def _planned(self, epoch: int, window: int) -> list[list[Chunk]]:
        """Returns the micro-batches of a window."""
        ends = self._counts(epoch)
        count = int(ends[window] - (ends[window - 1] if window else 0))
        chunks, sizes = self._chunks(epoch, window)
        micro_batches, left_over = packed(sizes, count, self.rows_per_micro_batch)
        planned = [[chunks[place] for place in micro_batch] for micro_batch in micro_batches]
        if left_over:
            log.warning("epoch %d: %d chunks of conversations fit into no micro-batch", epoch, len(left_over))
        for empty in (place for place, micro_batch in enumerate(planned) if not micro_batch):
            planned[empty] = planned[empty - 1][:1]
        return planned

    def _chunks(self, epoch: int, window: int) -> tuple[list[Chunk], list[int]]:
        """Returns the chunks of a window in random order, and their rows."""
        order = RandomOrder(len(self.totals), [self.seed, 14, epoch])
        rng = np.random.default_rng([self.seed, 15, epoch, window])
        chunks: list[Chunk] = []
        sizes: list[int] = []
        for conversation in order.at(np.arange(*self.edges[window : window + 2])).tolist():
            rows = self.rows[conversation]
            limit = int(rng.integers(self.max_rows // 4, self.max_rows + 1))
            for chunk in cut(conversation, rows, limit, self.max_rows):
                chunks.append(chunk)
                sizes.append(sum(rows[chunk.first : chunk.first + chunk.turns]))
        shuffled = rng.permutation(len(chunks)).tolist()
        return [chunks[place] for place in shuffled], [sizes[place] for place in shuffled]

    def _share_filled(self) -> float:
        """Returns the share of full micro-batches that the chunks of this corpus fill, of one window."""
        _, sizes = self._chunks(0, 0)
        count = max(1, -(-sum(sizes) // self.rows_per_micro_batch))
        while packed(sizes, count, self.rows_per_micro_batch)[1]:
            count += max(1, count // 100)
        return max(sum(sizes), 1) / (count * self.rows_per_micro_batch)


def packed(sizes: Sequence[int], count: int, capacity: int) -> tuple[list[list[int]], list[int]]:
    """Packs items into `count` bins, the largest first, each into the emptiest one (LPT: Graham 1969).

    Returns:
        Items of each bin, and the items that fit into none.
    """
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    left_over = []
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        load, number = loads[0]
        if load + sizes[item] > capacity:
            left_over.append(item)
            continue
        bins[number].append(item)
        heapq.heapreplace(loads, (load + sizes[item], number))
    return bins, left_over


def totals_of(
    rows: Callable[[int, int], NDArray[np.int32]], starts: NDArray[np.int64], max_rows: int
) -> NDArray[np.int32]:
    """Returns the rows of each conversation in turns of at most max_rows rows.

    Args:
        rows: Gives int32 those of the turns from one number up to another.
        starts: int64 [C + 1], first turn of each conversation, and the total; no conversation is empty.
    """
    totals = []
    for first in range(0, len(starts) - 1, BLOCK):
        edges = np.asarray(starts[first : first + BLOCK + 1])
        found = rows(int(edges[0]), int(edges[-1]))
        counted = np.where(found <= max_rows, found, 0).astype(np.int64)
        totals.append(np.add.reduceat(counted, edges[:-1] - edges[0]).astype(np.int32))
    return np.concatenate(totals)
