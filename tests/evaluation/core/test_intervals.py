"""Intervals of few conversations hold the true mean, and tables of equal systems hold no verdict."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from csm.evaluation.core.intervals import FEWEST_CONVERSATIONS, cluster_mean, holm, mean_interval

COMMAND = runpy.run_path(str(Path(__file__).resolve().parents[3] / "benchmarks" / "verdicts.py"))
DRAWS, coverage, verdicts = (COMMAND[name] for name in ("DRAWS", "coverage", "verdicts"))


@pytest.mark.parametrize("count", [6, 10])
def test_intervals_hold_the_true_mean_where_percentiles_do_not(count):
    own, percentile = coverage(DRAWS["normal"], count, 3, trials=400, repeats=299)
    assert 0.92 <= own <= 0.98 and percentile < 0.92  # 400 trials: one standard error is 1.1 %


def test_tables_of_equal_systems_hold_a_verdict_in_at_most_one_of_twenty():
    wrong, _ = verdicts(6, 2, effect=0.0, trials=60, rows=6, repeats=599)
    assert wrong <= 0.1  # at a rate of 5 %, 60 tables hold more than 6 in 3 % of runs


def test_a_large_effect_is_found_in_a_table():
    _, right = verdicts(20, 1, effect=2.0, trials=20, rows=6, repeats=1999)
    assert right >= 0.95


def test_the_error_of_equal_clusters_is_that_of_scipy():
    values = np.random.default_rng(0).normal(size=9)
    mean, error = cluster_mean(values, np.ones(9))
    assert mean == pytest.approx(values.mean()) and error == pytest.approx(stats.sem(values))


def test_below_six_conversations_the_interval_is_student_s():
    values = [0.1, 0.4, 0.2, 0.9]
    found = mean_interval(values, [1.0] * 4, repeats=99, seed=0)
    assert found.ci95 == pytest.approx(stats.t.interval(0.95, 3, np.mean(values), stats.sem(values)))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)


def test_from_six_conversations_on_it_is_never_narrower_than_student_s():
    generator = np.random.default_rng(1)
    for count in range(FEWEST_CONVERSATIONS, 20):
        values = generator.exponential(size=count)
        low, high = mean_interval(values, np.ones(count), repeats=199, seed=0).ci95
        ends = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
        assert low <= ends[0] + 1e-12 and high >= ends[1] - 1e-12


def test_conversations_that_agree_have_a_point_and_the_probability_of_equal_signs():
    assert mean_interval([0.5] * 8, [1.0] * 8, repeats=99, seed=0) == (0.5, [0.5, 0.5], 2.0**-7)
    assert mean_interval([0.0] * 8, [1.0] * 8, repeats=99, seed=0) == (0.0, [0.0, 0.0], 1.0)
    assert mean_interval([1.0], [1.0], repeats=99, seed=0) is None


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(2).normal(size=8)
    first, again = (mean_interval(values, np.ones(8), repeats=99, seed=5) for _ in range(2))
    assert first == again


def test_holm_multiplies_by_the_number_of_what_is_left_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]
