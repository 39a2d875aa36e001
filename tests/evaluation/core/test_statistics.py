"""Golden tests of the rules that no failure may break."""

import dataclasses
import math

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip
from csm.evaluation.core.metric import Estimate, MetricInfo, Pooled, Score, Scores, failed, scored
from csm.evaluation.core.statistics import (
    bootstrap_repeats,
    entry_of,
    pairs_by_conversation,
    pooled_mean,
    quantiles,
)


def info(direction="higher", worst=1.0, best=None):
    return MetricInfo(
        name="m",
        title="M",
        area="a",
        unit="u",
        direction=direction,
        evaluator="e",
        definition="d",
        worst=worst,
        best=best,
    )


def clip(name, conversation):
    return Clip(id=name, conversation=conversation)


def scores(values):
    return [scored(clip(f"clip{n}", f"conversation{n}"), value) for n, value in enumerate(values)]


def summary(of, metric=None, **options):
    measured = Scores(info=metric or info(), scores=of, **options)
    return entry_of(measured, group="lines", condition="generated", repeats=200)


def test_every_input_is_scored_or_failed_with_a_reason():
    entry = summary(
        [*scores([3.0, 4.0]), failed(clip("x", "c"), "file missing"), failed(clip("y", "c"), "file missing")]
    )
    assert (entry.n_in, entry.n_ok, entry.n_failed) == (4, 2, 2)
    assert entry.failures == {"file missing": 2}


@pytest.mark.parametrize(("direction", "worst"), [("higher", 1.0), ("lower", 5.0), ("lower", None)])
def test_no_metric_improves_when_outputs_are_deleted(direction, worst):
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    metric = info(direction, worst)
    full = summary(scores(values), metric).mean
    for number in range(5):
        kept = scores(values)
        kept[number] = failed(clip(f"clip{number}", f"conversation{number}"), "deleted")
        mean = summary(kept, metric).mean
        if worst is None:
            assert mean is None
        else:
            assert mean <= full if direction == "higher" else mean >= full


def test_the_mean_of_what_was_scored_stands_beside_the_guarded_one():
    entry = summary([*scores([3.0]), failed(clip("x", "c"), "gone")])
    assert entry.mean == 2.0 and entry.mean_of_scored == 3.0


def test_bootstrap_repeats_differ_and_are_the_same_for_the_same_seed():
    values = list(np.linspace(0, 1, 12))
    repeats = bootstrap_repeats(values, lambda picked: float(np.mean(picked)), repeats=100, seed=3)
    assert len(set(repeats.tolist())) > 50
    again = bootstrap_repeats(values, lambda picked: float(np.mean(picked)), repeats=100, seed=3)
    assert (repeats == again).all()


def test_the_interval_resamples_conversations_and_not_clips():
    alike = [scored(clip(f"c{n}", f"k{n % 2}"), float(n % 2)) for n in range(40)]
    apart = [scored(clip(f"c{n}", f"k{n}"), float(n % 2)) for n in range(40)]
    wide, narrow = summary(alike, info(worst=0.0)).ci95, summary(apart, info(worst=0.0)).ci95
    assert wide[0] == 0.0 and wide[1] > 6.0  # Student's with two conversations, cut off at the worst value
    assert narrow[1] - narrow[0] < 0.5


@pytest.mark.parametrize(
    "direction, ends", [("higher", {"worst": 0.0, "best": 1.0}), ("lower", {"worst": None, "best": 0.0})]
)
def test_no_interval_goes_beyond_an_end_of_the_scale(direction, ends):
    alike = [scored(clip(f"c{n}", f"k{n % 2}"), float(n % 2)) for n in range(40)]
    low, high = summary(alike, info(direction=direction, **ends)).ci95
    assert low == 0.0 and (high == 1.0 if direction == "higher" else high > 1.0)


def test_one_conversation_gives_no_interval():
    assert summary([scored(clip("a", "same"), 2.0), scored(clip("b", "same"), 3.0)]).ci95 is None


def test_a_value_that_is_no_number_is_a_failure():
    assert scored(clip("a", "c"), math.nan).reason == "the evaluator returned nan"
    with pytest.raises(ValueError, match="report it as a failure"):
        Score(clip="a", conversation="c", value=math.inf)


def test_weights_pool_errors_over_words():
    pooled = [scored(clip("a", "c"), 1.0, weight=1.0), scored(clip("b", "c"), 0.0, weight=9.0)]
    assert pooled_mean(pooled, None) == pytest.approx(0.1)


@pytest.mark.parametrize("worst", [None, 1.0])
def test_a_distance_with_a_failure_is_the_worst_of_its_scale(worst):
    measured = Pooled(
        info=info("lower", worst),
        groups=[[1.0], [2.0]],
        statistic=lambda groups: 0.2,
        n_in=3,
        failures={"silent": 1},
    )
    entry = entry_of(measured, group="s", condition="generated")
    assert entry.mean == worst and entry.mean_of_scored == 0.2 and entry.ci95 is None
    assert entry.n_ok + entry.n_failed == entry.n_in


def test_an_estimate_keeps_its_own_interval_unless_something_failed():
    whole = Estimate(info=info(worst=None), value=0.5, ci95=[0.4, 0.6], n_in=3, conversations=2)
    entry = entry_of(whole, group="s", condition="generated")
    assert (entry.mean, entry.ci95, entry.n_ok, entry.conversations) == (0.5, [0.4, 0.6], 3, 2)
    partial = entry_of(dataclasses.replace(whole, failures={"silent": 1}), group="s", condition="generated")
    assert (partial.mean, partial.mean_of_scored, partial.ci95) == (None, 0.5, None)
    assert (partial.n_ok, partial.n_failed) == (2, 1)


def test_a_median_has_an_interval_of_its_own():
    entry = summary(scores([1.0, 2.0, 3.0, 4.0, 50.0]), quantiles=True)
    assert entry.quantiles["p50"] == 3.0 and entry.quantiles["n"] == 5.0
    low, high = entry.median_ci95
    assert 1.0 <= low <= 3.0 <= high <= 50.0 and entry.ci95 != entry.median_ci95
    assert summary(scores([1.0, 2.0])).quantiles is None


def test_quantiles_of_negative_values_stay_negative_and_refuse_what_is_no_number():
    assert quantiles([-0.75, -0.25])["p50"] == -0.5
    with pytest.raises(ValueError, match="finite"):
        quantiles([1.0, float("nan")])


def test_pairs_are_grouped_by_conversation_and_failures_name_their_side():
    clips = [clip("a", "1"), clip("b", "1"), clip("c", "2"), clip("d", "2")]
    groups, failures = pairs_by_conversation(clips, [1, 2, "torn", 4], [5, 6, 7, "silent"])
    assert groups == [[(1, 5), (2, 6)]] and failures == {"recording: torn": 1, "silent": 1}
