"""Random orders that are computed: every number once, another order for every seed."""

import numpy as np
import pytest

from csm.data.random_order import RandomOrder


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000, 4097])
def test_every_number_comes_once(size):
    for seed in range(3):
        assert sorted(RandomOrder(size, [seed]).at(np.arange(size)).tolist()) == list(range(size))


def test_an_order_is_a_function_of_its_seed_and_of_one_place_at_a_time():
    order = RandomOrder(1000, [1, 2]).at(np.arange(1000))
    assert [int(RandomOrder(1000, [1, 2]).at(np.array([n]))[0]) for n in (7, 0, 999)] == order[
        [7, 0, 999]
    ].tolist()
    assert (order != RandomOrder(1000, [1, 3]).at(np.arange(1000))).mean() > 0.98


def test_places_and_numbers_are_uncorrelated_as_in_a_drawn_permutation():
    size = 10_000
    for seed in range(5):
        order = RandomOrder(size, [seed]).at(np.arange(size))
        # The standard error of both correlations is 0.01.
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.045
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.045


def test_numbers_far_beyond_memory_cost_nothing():
    assert len(set(RandomOrder(10**12, [0]).at(np.arange(5)).tolist())) == 5
