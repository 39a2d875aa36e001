"""A change of voice is found at its turn, and voices that do not change are seldom said to."""

import numpy as np
import pytest
from scipy import stats

from csm.evaluation.metrics.change_point import ERROR_RATE, FEWEST_TURNS, change_point


@pytest.mark.parametrize("turns", [7, 8, 14])
def test_a_swapped_voice_is_found_at_its_turn(turns: int) -> None:
    generator = np.random.default_rng(0)
    for place in range(2, turns - 1):
        values = 0.85 + 0.02 * generator.normal(size=turns)
        values[place:] -= 0.3
        found = change_point(values)
        assert found is not None and found.found and found.place == place
        assert found.drop == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("turns", "trials"), [(7, 400), (12, 150)])
def test_voices_that_do_not_change_are_said_to_at_the_stated_rate(turns: int, trials: int) -> None:
    """Whatever the distribution: one with a long tail of bad turns too."""
    generator = np.random.default_rng(1)
    flagged = 0
    for trial in range(trials):
        normal, skewed = generator.normal(size=turns), -(generator.exponential(size=turns) ** 2)
        flagged += change_point(normal if trial % 2 else skewed).found
    # Two standard deviations above 5 %.
    assert flagged <= trials * ERROR_RATE + 2 * (trials * ERROR_RATE * 0.95) ** 0.5


def test_probabilities_over_all_orders_of_seven_turns_are_exact() -> None:
    """Of distinct values each order is one of 7!, and the largest drop's share of them is its p."""
    falling = change_point([7, 6, 5, 4, 3, 2, 1])
    assert falling is not None and falling.found
    last_two = change_point([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    assert last_two is not None and last_two.p == pytest.approx(1 / 21) and last_two.place == 5
    rising = change_point([1, 2, 3, 4, 5, 6, 7])
    assert rising is not None and rising.p == 1.0


def test_a_voice_that_becomes_more_like_itself_or_has_few_turns_is_not_flagged() -> None:
    better = change_point([0.5] * 4 + [0.9] * 4)
    assert better is not None and not better.found
    assert change_point([0.5] * (FEWEST_TURNS - 1)) is None
    same = change_point([0.5] * 8)
    assert same is not None and same.p == 1.0 and not same.found
    values = list(np.random.default_rng(2).normal(size=12))
    assert change_point(values, seed=3) == change_point(values, seed=3)


def test_its_probability_is_that_of_scipy_s_permutation_test() -> None:
    def largest_drop(values: np.ndarray, axis: int) -> np.ndarray:
        values = np.moveaxis(values, axis, -1)
        places = range(1, values.shape[-1])
        drops = [
            (values[..., :k].mean(-1) - values[..., k:].mean(-1)) * np.sqrt(k * (values.shape[-1] - k))
            for k in places
        ]
        return np.max(drops, axis=0)

    generator = np.random.default_rng(5)
    for _ in range(3):
        values = generator.normal(size=FEWEST_TURNS)
        values[4:] -= 1.0
        expected = stats.permutation_test(
            (values,), largest_drop, permutation_type="pairings", alternative="greater", n_resamples=np.inf
        )
        found = change_point(values)
        assert found is not None and found.p == pytest.approx(expected.pvalue, abs=1e-12)
