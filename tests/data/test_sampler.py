"""Chunks of conversations: every turn once an epoch, never more rows than allowed, the same for everyone."""

import time
from collections import Counter

import numpy as np
import pytest

from csm.data import sampler as sampler_file
from csm.data.sampler import ChunkSampler


def conversations(seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 60, size=rng.integers(1, 25)).tolist() for _ in range(30)]


def sampler(rows=None, *, max_rows=100, rows_per_micro_batch=250, micro_batches=2, seed=0) -> ChunkSampler:
    rows = conversations() if rows is None else rows
    return ChunkSampler(
        rows,
        max_rows=max_rows,
        rows_per_micro_batch=rows_per_micro_batch,
        micro_batches=micro_batches,
        seed=seed,
    )


def epoch_of(s: ChunkSampler, epoch: int):
    micro_batches, size = s.epoch(epoch), s.micro_batches
    return [micro_batches[i : i + size] for i in range(0, len(micro_batches), size)]


def turns_of(steps) -> Counter:
    return Counter(
        (chunk.conversation, turn)
        for step in steps
        for micro_batch in step
        for chunk in micro_batch
        for turn in range(chunk.first, chunk.first + chunk.turns)
    )


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_every_turn_appears_once_an_epoch(epoch) -> None:
    found = turns_of(epoch_of(sampler(), epoch))
    assert set(found.values()) == {1} and len(found) == sum(map(len, sampler().rows))


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 7])
def test_steps_take_the_micro_batches_of_all_epochs_without_a_rest(micro_batches: int) -> None:
    s = sampler(micro_batches=micro_batches)
    expected = [batch for epoch in range(6) for batch in s.epoch(epoch)]
    steps = [s.step(number) for number in range(1, len(expected) // micro_batches + 1)]
    drawn = [batch for step in steps for batch in step]
    assert drawn == expected[: len(drawn)] and len(expected) - len(drawn) < micro_batches


def test_epochs_beyond_a_cycle_are_found_and_hold_every_turn_once(monkeypatch) -> None:
    monkeypatch.setattr(sampler_file, "CYCLE", 3)
    s = sampler(micro_batches=3)
    expected = [batch for epoch in range(10) for batch in s.epoch(epoch)]
    steps = [s.step(number) for number in range(1, len(expected) // 3 + 1)]
    assert [batch for step in steps for batch in step] == expected[: 3 * len(steps)]
    assert s.epoch(3) != s.epoch(0) and sorted(s.epoch(3)) == sorted(s.epoch(0))
    assert sampler(micro_batches=3).step(len(steps)) == steps[-1]
    assert set(turns_of(epoch_of(s, 8)).values()) == {1}


def test_step_a_million_of_a_small_corpus_is_reached_in_a_second() -> None:
    rows = [np.random.default_rng(i).integers(20, 120, 9).tolist() for i in range(40)]
    s = sampler(rows, max_rows=400, rows_per_micro_batch=600)
    began = time.process_time()
    s.step(1_000_000)
    assert time.process_time() - began < 1.0


def test_one_shard_a_step_leaves_nothing_out() -> None:
    s = sampler(micro_batches=1)
    assert len(turns_of(epoch_of(s, 0))) == sum(map(len, s.rows))


def test_chunks_and_shards_keep_to_their_rows() -> None:
    s = sampler()
    for step in epoch_of(s, 0) + epoch_of(s, 1):
        assert len(step) in (1, 2)
        for micro_batch in step:
            sizes = [sum(s.rows[c.conversation][c.first : c.first + c.turns]) for c in micro_batch]
            assert micro_batch and max(sizes) <= 100 and sum(sizes) <= 250


def test_turns_that_are_too_long_are_left_out_and_cut_the_chunk() -> None:
    s = sampler([[30, 400, 30, 30], [500], [60, 60, 101]], micro_batches=1)
    found = turns_of(epoch_of(s, 0))
    assert set(found) == {(0, 0), (0, 2), (0, 3), (2, 0), (2, 1)}
    assert all(
        c.first != 0 or c.turns == 1 for step in epoch_of(s, 0) for c in step[0] if c.conversation == 0
    )


def test_a_step_depends_on_seed_and_step_alone() -> None:
    steps = [7, 1, 30, 2]
    forwards = {n: sampler().step(n) for n in steps}
    s = sampler()
    assert forwards == {n: s.step(n) for n in reversed(steps)}
    assert sampler(seed=1).step(1) != forwards[1]


def test_every_epoch_is_another_order_and_other_cuts() -> None:
    s = sampler()
    chunks = [{c for step in epoch_of(s, e) for micro_batch in step for c in micro_batch} for e in (0, 1)]
    assert chunks[0] != chunks[1] and epoch_of(s, 0) != epoch_of(s, 1)


def test_what_cannot_fill_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most rows_per_micro_batch"):
        sampler(max_rows=300)
    with pytest.raises(ValueError, match="1 micro-batches of 250 rows: expected 4 or more"):
        sampler([[10, 10]], micro_batches=4).step(1)
    with pytest.raises(ValueError, match="steps are counted from 1"):
        sampler().step(0)
