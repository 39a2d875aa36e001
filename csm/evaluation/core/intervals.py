"""Intervals of means over few conversations: the studentised cluster bootstrap, and Holm's correction.

A percentile bootstrap of 6 to 10 conversations covers the true mean in 81 to 91 % instead of 95: it allows
neither for the uncertain spread of few conversations nor for the factor sqrt((n - 1) / n) that it lacks. Each
resample here is divided by its own standard error (Efron and Tibshirani 1993, section 12.5), no interval is
narrower than Student's; `benchmarks/verdicts.py` prints the coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

FEWEST_CONVERSATIONS = 6  # for resamples: below, too few differ; also the fewest that allow a verdict
LEVEL = 0.95


class MeanInterval(NamedTuple):
    """A weighted mean with its 95 % interval.

    Attributes:
        mean: The mean. ci95: Its interval.
        p: Two-sided probability of a mean this far from 0 where the true mean is 0.
    """

    mean: float
    ci95: list[float]
    p: float


def cluster_mean(sums: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes a weighted mean over conversations [..., N] and its standard error, both [...].

    Args:
        sums: Sum of value times weight of each conversation.
        weights: Sum of the weights of each conversation.

    Returns:
        The ratio of the totals, and its error by linearisation with the factor N / (N - 1) (Cochran 1977,
        section 6.3).
    """
    count, total = sums.shape[-1], weights.sum(axis=-1)
    mean = sums.sum(axis=-1) / total
    residues = sums - mean[..., None] * weights
    return mean, np.sqrt(count / (count - 1) * (residues**2).sum(axis=-1)) / total


def mean_interval(
    sums: Sequence[float], weights: Sequence[float], *, repeats: int, seed: int
) -> MeanInterval | None:
    """Computes mean, interval and probability; None with fewer than two conversations.

    Each end is the farther one of the studentised bootstrap and of Student's interval with N - 1 degrees of
    freedom, and `p` the larger one: the bootstrap alone is too narrow for shares, whose resamples have few
    distinct values, Student's for skewed values. Below `FEWEST_CONVERSATIONS` it is Student's alone. Where
    all conversations agree the interval is a point, and `p` that of N equal signs.

    Args:
        sums, weights: See `cluster_mean`, [N].
        repeats, seed: Repeats and seed of the bootstrap.
    """
    totals, sizes = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    count = len(totals)
    if count < 2:
        return None
    mean, error = (float(value) for value in cluster_mean(totals, sizes))
    nothing = 1e-12 * float(np.abs(totals / sizes).max())  # what rounding leaves of no spread
    if error <= nothing:
        return MeanInterval(mean, [mean, mean], 1.0 if abs(mean) <= nothing else 2.0 ** (1 - count))
    reach = float(student.ppf((1.0 + LEVEL) / 2.0, count - 1))
    p = 2.0 * float(student.sf(abs(mean) / error, count - 1))
    if count < FEWEST_CONVERSATIONS:
        return MeanInterval(mean, [mean - reach * error, mean + reach * error], p)
    ratios = _studentised(totals, sizes, mean, nothing, repeats=repeats, seed=seed)
    low, high = np.quantile(ratios, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    ends = [mean - max(float(high), reach) * error, mean - min(float(low), -reach) * error]
    return MeanInterval(mean, ends, max(p, _two_sided(ratios, mean / error)))


def _studentised(
    sums: np.ndarray, weights: np.ndarray, mean: float, nothing: float, *, repeats: int, seed: int
) -> np.ndarray:
    """Draws (resampled mean - mean) / resampled error; a resample without spread has no such ratio."""
    picks = np.random.default_rng(seed).integers(0, len(sums), size=(repeats, len(sums)))
    means, errors = cluster_mean(sums[picks], weights[picks])
    spread = errors > nothing
    return (means[spread] - mean) / errors[spread] if spread.any() else np.zeros(1)


def _two_sided(ratios: np.ndarray, observed: float) -> float:
    """Twice the smaller share of ratios beyond the observed one; never 0, since repeats are finite."""
    beyond = min((ratios >= observed).sum(), (ratios <= observed).sum())
    return min(1.0, 2.0 * (int(beyond) + 1) / (len(ratios) + 1))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Adjusts probabilities of several comparisons (Holm 1979), in their order.

    Verdicts wherever the adjusted one is at most 5 %: at most 5 % of tables without a difference hold one.
    """
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    adjusted, least = [1.0] * len(order), 0.0
    for place, number in enumerate(order):
        least = max(least, min(1.0, probabilities[number] * (len(order) - place)))
        adjusted[number] = least
    return adjusted
