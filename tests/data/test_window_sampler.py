"""Steps of a large corpus: every turn once an epoch, no micro-batch too large, any step found at once."""

import time
from collections import Counter
from itertools import accumulate

import numpy as np
import pytest

from csm.data import window_sampler
from csm.data.window_sampler import WindowSampler, packed, totals_of


class Rows(list):
    """Rows of conversations; counts how many are asked for."""

    asked = 0

    def __getitem__(self, place):
        self.asked += 1
        return super().__getitem__(place)


def conversations(count: int, seed: int = 0, longest: int = 120) -> Rows:
    rng = np.random.default_rng(seed)
    return Rows(rng.integers(5, longest, size=rng.integers(1, 25)).tolist() for _ in range(count))


def sampler(rows, *, max_rows=200, rows_per_micro_batch=600, micro_batches=2, seed=0) -> WindowSampler:
    flat = np.concatenate([np.array(turns, np.int32) for turns in list.__iter__(rows)])
    starts = np.array([0, *accumulate(map(len, list.__iter__(rows)))], np.int64)
    totals = totals_of(lambda first, last: flat[first:last], starts, max_rows)
    sizes = {"max_rows": max_rows, "rows_per_micro_batch": rows_per_micro_batch}
    return WindowSampler(rows, totals, len(flat), **sizes, micro_batches=micro_batches, seed=seed)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(window_sampler, "WINDOW_TURNS", 600)
    monkeypatch.setattr(window_sampler, "BLOCK", 64)


def epochs(s: WindowSampler, count: int) -> list[list]:
    """All micro-batches of the first epochs, in order."""
    drawn, place = [[] for _ in range(count)], 0
    while (found := s.epoch_of(place)[0]) < count:
        drawn[found].append(s._micro_batch(place))
        place += 1
    return drawn


def turns_of(micro_batches) -> Counter:
    return Counter((c.conversation, c.first + n) for m in micro_batches for c in m for n in range(c.turns))


@pytest.mark.parametrize(
    ("longest", "max_rows", "capacity"), [(120, 200, 600), (300, 400, 1200), (90, 90, 100)]
)
def test_every_turn_appears_once_an_epoch_in_micro_batches_of_bounded_size(longest, max_rows, capacity):
    rows = conversations(300, longest=longest)
    s = sampler(rows, max_rows=max_rows, rows_per_micro_batch=capacity)
    drawn = epochs(s, 3)
    for epoch in drawn:
        found = turns_of(epoch)
        assert len(found) == sum(map(len, rows)) and set(found.values()) == {1}
        sizes = [sum(sum(rows[c.conversation][c.first : c.first + c.turns]) for c in m) for m in epoch]
        assert max(sizes) <= capacity and min(map(len, epoch)) > 0
    assert drawn[0] != drawn[1]


def test_micro_batches_are_well_filled_and_alike():
    rows = conversations(300)
    s = sampler(rows, max_rows=400, rows_per_micro_batch=1200)
    (epoch,) = epochs(s, 1)
    sizes = np.array([sum(sum(rows[c.conversation][c.first : c.first + c.turns]) for c in m) for m in epoch])
    assert sizes.mean() > 0.85 * 1200 and sizes.std() < 0.1 * 1200


def test_a_turn_above_max_rows_is_left_out():
    rows = conversations(100)
    rows[3] = [10, 500, 20]
    found = turns_of(epochs(sampler(rows), 1)[0])
    assert (3, 1) not in found and {(3, 0), (3, 2)} <= set(found)


def test_steps_depend_on_seed_and_step_alone_and_come_in_any_order():
    rows = conversations(200)
    first, second = sampler(rows), sampler(rows)
    steps = {step: first.step(step) for step in (1, 2, 5, 900)}
    assert all(second.step(step) == steps[step] for step in (900, 5, 1, 2))
    assert sampler(rows, seed=1).step(1) != steps[1]
    # One micro-batch a step, or three: the same micro-batches in the same order.
    one, three = sampler(rows, micro_batches=1), sampler(rows, micro_batches=3)
    assert [m for step in range(1, 5) for m in three.step(step)] == [one.step(n)[0] for n in range(1, 13)]


def test_epochs_beyond_a_cycle_hold_every_turn_once(monkeypatch):
    monkeypatch.setattr(window_sampler, "CYCLE", 2)
    rows = conversations(150)
    drawn = epochs(sampler(rows), 5)
    assert all(set(turns_of(epoch).values()) == {1} for epoch in drawn)
    assert sorted(drawn[3]) == sorted(drawn[1]) and drawn[3] != drawn[1]


def test_a_late_step_is_found_without_planning_those_before_it(monkeypatch):
    monkeypatch.setattr(window_sampler, "BLOCK", 1 << 20)
    rows = conversations(3000)
    s = sampler(rows, micro_batches=8)
    rows.asked = 0
    began = time.process_time()
    s.step(1_000_000)
    assert time.process_time() - began < 3.0
    assert rows.asked < 10 * 600  # a few windows of 600 turns


def test_items_are_packed_into_the_emptiest_bin():
    assert packed([5, 4, 3, 3, 1], 2, 8) == ([[0, 3], [1, 2, 4]], [])
    assert packed([5, 5, 5], 2, 8) == ([[0], [1]], [2])
