"""Distances of distributions against hand-made values and their definitions."""

import numpy as np
import pytest
from scipy import stats

from csm.evaluation.metrics.distributions import jensen_shannon_divergence, kolmogorov_smirnov, wasserstein_1

RANGE = {"low": -2000.0, "high": 2000.0, "width": 50.0}


def test_jensen_shannon_is_a_divergence_in_bits_and_not_a_distance():
    assert jensen_shannon_divergence([-500.0], [500.0], **RANGE) == pytest.approx(1.0)
    # half of the mass is shared: 0.3113 bit; a distance would be its root, 0.558; natural logs 0.2158
    value = jensen_shannon_divergence([0.0, 500.0], [0.0, 0.0], **RANGE)
    assert value == pytest.approx(0.3112781, abs=1e-6)
    assert jensen_shannon_divergence([1.0, 2.0], [2.0, 1.0], **RANGE) == 0.0


def test_values_outside_the_bins_are_counted_at_the_ends():
    assert jensen_shannon_divergence([-9000.0], [9000.0], **RANGE) == pytest.approx(1.0)


def test_wasserstein_and_ks_are_the_area_and_the_largest_gap_between_the_distribution_functions():
    draw = np.random.default_rng(0)
    left, right = draw.normal(0, 300, 57), draw.normal(100, 200, 83)
    points = np.sort(np.concatenate([left, right]))
    gaps = np.array([abs((left <= point).mean() - (right <= point).mean()) for point in points])
    assert wasserstein_1(left, right) == pytest.approx((gaps[:-1] * np.diff(points)).sum())
    assert kolmogorov_smirnov(left, right) == pytest.approx(gaps.max())
    assert kolmogorov_smirnov(left, right) == pytest.approx(stats.ks_2samp(left, right).statistic)


def test_a_shift_costs_its_length():
    assert wasserstein_1([0.0, 10.0], [5.0, 15.0]) == pytest.approx(5.0)


def test_empty_sets_are_refused():
    with pytest.raises(ValueError, match="left holds no values"):
        wasserstein_1([], [1.0])
