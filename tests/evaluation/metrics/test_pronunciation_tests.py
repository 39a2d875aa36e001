"""Scores of the two tests: right, wrong, kept, not as spelled, and silent."""

import dataclasses

import numpy as np
import pytest
import torch

from csm.evaluation.core.clips import ClipSet, ClipSets
from csm.evaluation.core.runner import RunnerOptions, measure_metric
from csm.evaluation.metrics.pronunciation import PronunciationScorer
from csm.evaluation.metrics.pronunciation_tests import FIRST, GIVEN, OWN, PronunciationTests
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, PAIRS, VARIANTS
from csm.evaluation.subjects.pronunciation_lines import PUBLISHED, clip_of_word


class LevelScorer(PronunciationScorer):
    """Takes a loud clip for the first reading, a soft one for the second."""

    def ratio(self, steps, first, second):
        assert first != second
        return 10.0 if float(steps.max()) > 0.5 else -10.0


def clip(word, number, asked, said):
    sentence = PAIRS[word.word][number] if word.word in PAIRS else word.readings[asked].sentences[number]
    made = clip_of_word(word, sentence, asked, f"{word.word}.{asked}.{number}")
    level = None if said is None else np.full(8000, (0.9, 0.1)[said], np.float32)
    return dataclasses.replace(made, waveform=level, reason="silent" if said is None else None)


def entries(*sets):
    metric = PronunciationTests(LevelScorer(None, lambda sound: sound))
    found = list(measure_metric(metric, ClipSets(sets=sets, reference=FIRST), RunnerOptions(repeats=20)))
    return found, metric


def test_a_homograph_is_right_where_the_likelier_reading_is_the_sentences_own():
    word = HOMOGRAPHS[0]
    clips = (clip(word, 0, 0, 0), clip(word, 1, 0, 1), clip(word, 0, 1, 1), clip(word, 1, 1, None))
    (entry,), _ = entries(ClipSet(group=PUBLISHED, condition="generated", clips=clips))
    assert [score.value for score in entry.values] == [1.0, 0.0, 1.0, None]
    assert entry.mean == 0.5 and entry.failures == {"silent": 1}
    assert entry.values[1].detail == "lead as lid, by 10 nats"


def test_one_pronunciation_for_both_readings_is_at_chance():
    clips = tuple(clip(word, n, asked, 0) for word in HOMOGRAPHS for asked in (0, 1) for n in (0, 1))
    (entry,), _ = entries(ClipSet(group=PUBLISHED, condition="generated", clips=clips))
    assert entry.mean == 0.5


@pytest.mark.parametrize(("listens", "share"), [(True, 1.0), (False, 0.5)])
def test_a_voice_that_follows_the_turn_before_keeps_its_pronunciation(listens, share):
    pairs = [(word, given) for word in VARIANTS for given in (0, 1)]
    first = tuple(clip(word, 0, given, given) for word, given in pairs)
    second = tuple(clip(word, 1, given, given if listens else 0) for word, given in pairs)
    (entry,), metric = entries(
        ClipSet(group=GIVEN, condition=FIRST, clips=first),
        ClipSet(group=GIVEN, condition="generated", clips=second),
    )
    assert entry.mean == share and entry.n_in == 20 and not metric.missing


def test_a_first_turn_that_was_not_said_as_spelled_is_left_out_and_named():
    word, other = VARIANTS[0], VARIANTS[1]
    first = (clip(word, 0, 0, 0), clip(other, 0, 1, 0))
    second = (clip(word, 1, 0, 0), clip(other, 1, 1, 0))
    (entry,), metric = entries(
        ClipSet(group=GIVEN, condition=FIRST, clips=first),
        ClipSet(group=GIVEN, condition="generated", clips=second),
    )
    assert entry.n_in == 1 and entry.mean == 1.0
    assert metric.missing == [
        f"{GIVEN}: 1 of 2 first turns lack the pronunciation that they were spelled for, and are left "
        "out: data"
    ]


def test_a_silent_first_turn_counts_against_the_voice():
    word = VARIANTS[0]
    (entry,), _ = entries(
        ClipSet(group=OWN, condition=FIRST, clips=(clip(word, 0, None, None),)),
        ClipSet(group=OWN, condition="generated", clips=(clip(word, 1, None, 0),)),
    )
    assert entry.mean == 0.0 and entry.n_failed == 1


def test_features_are_read_at_16_khz():
    word = VARIANTS[0]
    seen = []
    metric = PronunciationTests(LevelScorer(None, lambda sound: seen.append(sound.shape) or sound))
    metric.found(dataclasses.replace(clip(word, 0, 0, 0), sample_rate=8000))
    assert seen == [torch.Size([1, 16000])]
