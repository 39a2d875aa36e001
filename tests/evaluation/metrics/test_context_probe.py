"""The probe of our own: it learns a relation that is there and finds none where there is none."""

import numpy as np
import pytest

from csm.evaluation.metrics.context_probe import context_swap, train_probe
from csm.evaluation.metrics.contours import clip_contours
from csm.evaluation.metrics.logistic import area_under_roc
from csm.evaluation.metrics.style import STYLE, concordance, cosine, style, style_scale


def pairs(count, strength, seed):
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        context = draw.standard_normal(len(STYLE))
        reply = strength * context + draw.standard_normal(len(STYLE))
        made.append((f"c{number}", "ABC"[number % 3], context, reply))
    return made


def test_the_probe_learns_an_echo_and_says_how_well():
    probe = train_probe(pairs(200, 1.0, 0), pairs(60, 1.0, 1))
    assert probe.auroc is not None and probe.auroc > 0.75
    assert "AUROC 0." in probe.evaluator and "our own" in probe.evaluator
    assert probe.above_chance and probe.ci95[0] < probe.auroc < probe.ci95[1]
    held_out = pairs(40, 1.0, 2)
    assert np.mean(context_swap(probe, [(context, reply) for _, _, context, reply in held_out])) > 0.5


def test_without_a_relation_the_probe_is_no_better_than_chance():
    probe = train_probe(pairs(200, 0.0, 0), pairs(100, 0.0, 1))
    assert probe.auroc == pytest.approx(0.5, abs=0.12)
    assert not probe.above_chance and probe.ci95[0] <= 0.5 <= probe.ci95[1]


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="20 real pairs"):
        train_probe(pairs(10, 1.0, 0), [])


def test_concordance_falls_with_a_constant_offset_where_correlation_does_not():
    values = [0.0, 1.0, 2.0, 3.0]
    assert concordance(values, values) == pytest.approx(1.0)
    assert concordance(values, [value + 2 for value in values]) == pytest.approx(5 / 13)
    assert concordance([1.0, 1.0], [1.0, 1.0]) is None


def test_auroc_counts_ties_half():
    assert area_under_roc(np.array([1.0, 1.0]), np.array([1.0, 0.0])) == 0.5


def test_a_real_clip_is_most_like_itself(real_clips):
    pytest.importorskip("parselmouth")
    clips = real_clips["JOE"] + real_clips["FAYE"]
    shapes = clip_contours(clips)
    values = [(clip.speaker, style(shape)) for clip, shape in zip(clips, shapes, strict=True)]
    scale = style_scale(values)
    standardised = [scale.standardised(value, speaker) for speaker, value in values]
    assert cosine(standardised[0], standardised[0]) == pytest.approx(1.0)
    assert all(cosine(standardised[0], other) < 0.99 for other in standardised[1:])


def test_a_probe_that_was_not_tested_is_not_above_chance():
    probe = train_probe(pairs(60, 1.0, 0), [])
    assert probe.auroc is None and not probe.above_chance and "not measured" in probe.evaluator
