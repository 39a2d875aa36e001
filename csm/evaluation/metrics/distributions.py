"""Distances of one-dimensional distributions: Wasserstein-1, Jensen-Shannon divergence, KS."""

from __future__ import annotations

import numpy as np


def _samples(values: np.ndarray | list[float], name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0:
        raise ValueError(f"{name} holds no values")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not numbers")
    return np.sort(array)


def _cumulative(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = np.sort(np.concatenate([left, right]))
    return (
        points,
        np.searchsorted(left, points, side="right") / left.size,
        np.searchsorted(right, points, side="right") / right.size,
    )


def wasserstein_1(left: np.ndarray | list[float], right: np.ndarray | list[float]) -> float:
    """Computes the earth mover's distance in the unit of the values: the area between the distribution "
    "functions."""
    points, first, second = _cumulative(_samples(left, "left"), _samples(right, "right"))
    return float((np.abs(first - second)[:-1] * np.diff(points)).sum())


def kolmogorov_smirnov(left: np.ndarray | list[float], right: np.ndarray | list[float]) -> float:
    """Computes the largest difference of the two distribution functions, 0 to 1."""
    _, first, second = _cumulative(_samples(left, "left"), _samples(right, "right"))
    return float(np.abs(first - second).max())


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
    first, second = histograms
    middle = (first + second) / 2.0
    return float((_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2.0)


def _relative_entropy(first: np.ndarray, second: np.ndarray) -> float:
    present = first > 0
    return float((first[present] * np.log2(first[present] / second[present])).sum())
