"""The rule of a verdict: an effect is supported, noise is not decided, a lost clip improves nothing."""

import numpy as np
import pytest

from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.research.question import Claim, Measured
from csm.research.verdict import decide, overall

CLAIM = Claim("Ours is better.", "nats", "ours", "theirs", 0.1)


def info(direction="lower", worst=None) -> MetricInfo:
    return MetricInfo(
        name="nats",
        title="Nats",
        area="",
        unit="nats",
        direction=direction,
        evaluator="none",
        definition="",
        worst=worst,
    )


def measured(
    effect, *, noise=0.5, of_seeds=0.0, seeds=3, conversations=12, draw=0, direction="lower"
) -> list[Measured]:
    """Scores of two arms; ours is better by `effect`, with noise of clips and of seeds."""
    rng = np.random.default_rng(draw)
    found = []
    for seed in range(seeds):
        shift = of_seeds * rng.standard_normal()
        for arm, gain in (("ours", effect + shift), ("theirs", 0.0)):
            sign = -1 if direction == "lower" else 1
            scores = [
                Score(
                    clip=f"{c}/{n}",
                    conversation=str(c),
                    value=5 + sign * gain + noise * rng.standard_normal(),
                    weight=1.0 + n,
                )
                for c in range(conversations)
                for n in range(3)
            ]
            found.append(Measured(arm, seed, Scores(info=info(direction), scores=scores)))
    return found


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_a_planted_effect_is_supported_in_either_direction(direction) -> None:
    (verdict,) = decide([CLAIM], measured(1.0, direction=direction))
    assert verdict.decision == "supported" and verdict.difference == pytest.approx(1.0, abs=0.3)
    low, high = verdict.interval
    assert 0 < low < verdict.difference < high and verdict.p < 0.05
    assert (verdict.seeds, verdict.conversations, verdict.clips) == (3, 12, 108)
    (reversed_claim,) = decide([CLAIM._replace(arm="theirs", against="ours")], measured(1.0))
    assert reversed_claim.decision == "not supported"


def test_noise_is_not_decided_and_almost_never_supported() -> None:
    decisions = [decide([CLAIM], measured(0.0, noise=2.0, draw=draw))[0].decision for draw in range(40)]
    assert decisions.count("not decided") >= 34 and decisions.count("supported") <= 2


def test_a_difference_too_small_to_count_is_not_supported() -> None:
    (verdict,) = decide([CLAIM], measured(0.03, noise=0.02))
    assert verdict.decision == "not supported" and 0 < verdict.interval[0] and verdict.interval[1] < 0.1


def test_seeds_that_disagree_are_not_decided_though_all_clips_of_a_seed_agree() -> None:
    (verdict,) = decide([CLAIM], measured(0.5, noise=0.01, of_seeds=0.8, draw=3))
    assert verdict.decision == "not decided"


def test_one_seed_or_one_conversation_decides_nothing() -> None:
    for given in (measured(1.0, seeds=1), measured(1.0, conversations=1)):
        (verdict,) = decide([CLAIM], given)
        assert verdict.decision == "not decided" and "fewer than two" in verdict.reason
        assert verdict.difference == pytest.approx(1.0, abs=0.6)


def test_several_claims_are_corrected_together() -> None:
    alone = decide([CLAIM], measured(1.0))[0].p
    nothing = CLAIM._replace(metric="other")
    together = decide([CLAIM, CLAIM._replace(text="Again."), nothing], measured(1.0))
    assert together[0].p == pytest.approx(2 * alone) and together[2].reason.startswith(
        "other was not measured"
    )
    assert overall(together) == "not decided" and overall(together[:2]) == "supported"
    assert overall([together[0], together[0]._replace(decision="not supported")]) == "not supported"


def test_a_failed_clip_counts_as_the_worst_and_a_missing_one_is_no_comparison() -> None:
    def with_failure(worst):
        given = measured(1.0)
        scores = list(given[0].scores.scores)
        scores[0] = Score(
            clip=scores[0].clip, conversation=scores[0].conversation, value=None, reason="no", weight=1.0
        )
        return [Measured("ours", 0, Scores(info=info(worst=worst), scores=scores)), *given[1:]]

    whole = decide([CLAIM], measured(1.0))[0]
    (worse,) = decide([CLAIM], with_failure(20.0))
    assert worse.difference < whole.difference and worse.clips == whole.clips
    (unknown,) = decide([CLAIM], with_failure(None))
    assert unknown.decision == "not decided" and "no worst end" in unknown.reason
    fewer = measured(1.0)
    fewer[0] = fewer[0]._replace(scores=Scores(info=info(), scores=fewer[0].scores.scores[1:]))
    assert "not the same" in decide([CLAIM], fewer)[0].reason
