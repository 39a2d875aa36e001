"""Distances of one-dimensional distributions Wasserstein-1 and Jensen-Shannon divergence by SciPy, KS."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon


def _samples(values: np.ndarray | list[float], name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0:
        raise ValueError(f"{name} holds no values")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not numbers")
    return np.sort(array)


def wasserstein_1(left: np.ndarray | list[float], right: np.ndarray | list[float]) -> float:
    """Computes the earth mover's distance in the unit of the values."""
    return float(stats.wasserstein_distance(_samples(left, "left"), _samples(right, "right")))


def kolmogorov_smirnov(left: np.ndarray | list[float], right: np.ndarray | list[float]) -> float:
    """Computes the largest difference of the two distribution functions, 0 to 1."""
    # By SciPy only together with a probability, whose computation takes longer and warns of few values.
    first, second = _samples(left, "left"), _samples(right, "right")
    points = np.concatenate([first, second])
    below = [np.searchsorted(one, points, side="right") / one.size for one in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def jensen_shannon_divergence(
    left: np.ndarray | list[float], right: np.ndarray | list[float], *, low: float, high: float, width: float
) -> float:
    """Computes the Jensen-Shannon divergence in bits (base 2, 0 to 1) of histograms with bins of `width`.

    The divergence, not its square root, which is called the Jensen-Shannon distance (Lin 1991).
    Values outside `[low, high]` are counted in the outermost bins, so that no value is lost.
    """
    count = round((high - low) / width)
    edges = low + width * np.arange(count + 1)
    histograms = []
    for values, name in ((left, "left"), (right, "right")):
        inside = np.clip(_samples(values, name), low, high)
        counts, _ = np.histogram(inside, bins=edges)
        histograms.append(counts / counts.sum())
    return float(jensenshannon(*histograms, base=2) ** 2)
