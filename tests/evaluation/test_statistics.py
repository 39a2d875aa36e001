"""Golden tests of the rules that no failure may break."""

import math

import numpy as np
import pytest

from csm.evaluation.statistics import (
    MetricInfo,
    Score,
    bootstrap_repeats,
    failed,
    judged,
    pooled_mean,
    summarise,
    summarise_groups,
)


def info(direction="higher", worst=1.0):
    return MetricInfo(
        name="m",
        title="M",
        area="a",
        unit="u",
        direction=direction,
        evaluator="e",
        definition="d",
        worst=worst,
    )


def scores(values):
    return [judged(f"clip{n}", f"conversation{n}", value) for n, value in enumerate(values)]


def summary(of, metric=None):
    return summarise(metric or info(), of, condition="generated", subset="lines", repeats=200)


def test_every_input_is_judged_or_failed_with_a_reason():
    entry = summary([*scores([3.0, 4.0]), failed("x", "c", "file missing"), failed("y", "c", "file missing")])
    assert (entry["n_in"], entry["n_ok"], entry["n_failed"]) == (4, 2, 2)
    assert entry["failures"] == {"file missing": 2}


@pytest.mark.parametrize(("direction", "worst"), [("higher", 1.0), ("lower", 5.0), ("lower", None)])
def test_no_metric_improves_when_outputs_are_deleted(direction, worst):
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    metric = info(direction, worst)
    full = summary(scores(values), metric)["mean"]
    for number in range(5):
        kept = scores(values)
        kept[number] = failed(f"clip{number}", f"conversation{number}", "deleted")
        mean = summary(kept, metric)["mean"]
        if worst is None:
            assert mean is None
        else:
            assert mean <= full if direction == "higher" else mean >= full


def test_the_mean_of_what_was_judged_stands_beside_the_guarded_one():
    entry = summary([*scores([3.0]), failed("x", "c", "gone")])
    assert entry["mean"] == 2.0 and entry["mean_of_judged"] == 3.0


def test_bootstrap_repeats_differ_and_are_the_same_for_the_same_seed():
    values = list(np.linspace(0, 1, 12))
    repeats = bootstrap_repeats(values, lambda picked: float(np.mean(picked)), repeats=100, seed=3)
    assert len(set(repeats.tolist())) > 50
    again = bootstrap_repeats(values, lambda picked: float(np.mean(picked)), repeats=100, seed=3)
    assert (repeats == again).all()


def test_the_interval_resamples_conversations_and_not_clips():
    alike = [judged(f"c{n}", f"k{n % 2}", float(n % 2)) for n in range(40)]
    apart = [judged(f"c{n}", f"k{n}", float(n % 2)) for n in range(40)]
    wide, narrow = summary(alike, info(worst=0.0))["ci95"], summary(apart, info(worst=0.0))["ci95"]
    assert wide == [0.0, 1.0]
    assert narrow[1] - narrow[0] < 0.5


def test_one_conversation_gives_no_interval():
    assert summary([judged("a", "same", 2.0), judged("b", "same", 3.0)])["ci95"] is None


def test_a_value_that_is_no_number_is_a_failure():
    assert judged("a", "c", math.nan).reason == "the judge returned nan"
    with pytest.raises(ValueError, match="report it as a failure"):
        Score(clip="a", conversation="c", value=math.inf)


def test_weights_pool_errors_over_words():
    pooled = [judged("a", "c", 1.0, weight=1.0), judged("b", "c", 0.0, weight=9.0)]
    assert pooled_mean(pooled, None) == pytest.approx(0.1)


def test_a_distance_is_withheld_where_something_failed():
    entry = summarise_groups(
        info("lower", None), [[1.0], [2.0]], lambda groups: 1.0, condition="generated", subset="s", n_in=3,
        failures={"silent": 1},
    )  # fmt: skip
    assert entry["mean"] is None and entry["mean_of_judged"] == 1.0
    assert entry["n_ok"] + entry["n_failed"] == entry["n_in"]
