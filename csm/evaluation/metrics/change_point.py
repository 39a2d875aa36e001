"""Where a voice changes: the turn from which on its similarity drops, with a stated rate of errors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Below, no order of the turns is rare enough: two changed turns of 7 are the last two in 1 of 21 orders.
FEWEST_TURNS = 7
# Of more turns orders are drawn; up to here all are looked at, so that the probability is exact.
MOST_EXACT = 8
ORDERS = 9999
ERROR_RATE = 0.05


class ChangePoint(NamedTuple):
    """The most likely change of a voice.

    Attributes:
        place: Number of the first changed turn among the given ones, from 1.
        drop: Mean similarity before minus that from there on.
        p: Share of the orders of these turns in which some drop stands out as much: the rate at which voices
            that do not change are said to change, where a change is claimed at this `p`.
    """

    place: int
    drop: float
    p: float

    @property
    def found(self) -> bool:
        """Whether a change is claimed, at ERROR_RATE."""
        return self.p <= ERROR_RATE


def change_point(similarities: Sequence[float], *, seed: int = 0) -> ChangePoint | None:
    """Finds the turn from which on a voice is less like its reference.

    The largest drop of the mean over all places, each divided by what it varies by, against its values over
    orders of the same turns (a permutation test of the maximum: exact whatever the distribution, if turns of
    an unchanged voice can be exchanged).

    Args:
        similarities: Of each turn to the voice's reference, in order.
        seed: Of the orders that are drawn, for more than MOST_EXACT turns.

    Returns:
        None below FEWEST_TURNS turns.
    """
    values = np.asarray(similarities, dtype=np.float64)
    count = len(values)
    if count < FEWEST_TURNS:
        return None
    own = _drops(values[None])[0]
    place = int(own.argmax()) + 1
    largest = _drops(_orders(values, seed)).max(axis=1)
    # Rounding must not make a drop smaller than itself in another order.
    beyond = int((largest >= own.max() - 1e-9 * max(1.0, float(np.abs(values).max()))).sum())
    exact = count <= MOST_EXACT
    return ChangePoint(
        place=place,
        drop=float(values[:place].mean() - values[place:].mean()),
        p=beyond / len(largest) if exact else (beyond + 1) / (len(largest) + 1),
    )


def _orders(values: np.ndarray, seed: int) -> np.ndarray:
    """Returns the values in all orders, or in ORDERS drawn ones, [orders, N]."""
    count = len(values)
    if count <= MOST_EXACT:
        return values[np.array(list(itertools.permutations(range(count))))]
    return np.random.default_rng(seed).permuted(np.tile(values, (ORDERS, 1)), axis=1)


def _drops(rows: np.ndarray) -> np.ndarray:
    """Returns mean before minus mean after each place, times sqrt(before * after), [rows, N - 1]."""
    count = rows.shape[1]
    before = np.arange(1, count)
    sums = rows.cumsum(axis=1)
    first, whole = sums[:, :-1], sums[:, -1:]
    return (first / before - (whole - first) / (count - before)) * np.sqrt(before * (count - before))
