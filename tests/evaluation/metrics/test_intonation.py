"""Intonation on contours whose ends and pauses are known, and the control of other texts."""

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.runner import RunnerOptions, measure_metric
from csm.evaluation.metrics.contours import Contour
from csm.evaluation.metrics.intonation import (
    CONTROL,
    Intonation,
    final_movement,
    is_polar_question,
    is_statement,
    placement,
    with_other_texts,
)


def voiced(*levels, frames=40):
    """A contour of 40 voiced frames at each level in semitones above 100 Hz; None is 300 ms of silence."""
    f0 = [[0.0] * 30 if level is None else [100.0 * 2 ** (level / 12)] * frames for level in levels]
    energy = [[-60.0] * 30 if level is None else [-10.0] * frames for level in levels]
    return Contour(f0=np.concatenate(f0), energy=np.concatenate(energy))


@pytest.mark.parametrize(
    ("text", "asks", "states"),
    [
        ("Are you there?", True, False),
        ("I see. Are you there?", True, False),
        ("Where are you?", False, False),
        ("And so, why not?", False, False),
        ("He is there.", False, True),
        ("He was...", False, False),
        ("Go!", False, False),
        ("?", False, False),
    ],
)
def test_questions_that_rise_are_told_from_those_with_a_question_word(text, asks, states):
    assert is_polar_question(text) == asks and is_statement(text) == states


def test_the_end_is_compared_with_what_is_before_it():
    assert final_movement(voiced(0, 0, 5)) == pytest.approx(5.0)
    assert final_movement(voiced(0, 0, -3)) == pytest.approx(-3.0)
    with pytest.raises(ValueError, match="fewer than 30 voiced frames"):
        final_movement(voiced(0, frames=29))


@pytest.mark.parametrize(
    ("text", "shape", "found"),
    [
        ("Aaaa, bbbb.", voiced(0, None, 0), (1, 1, 1)),
        ("Aaaa bbbb.", voiced(0, None, 0), (1, 0, 0)),
        ("Aaaa, bbbb.", voiced(0, 0), (0, 1, 0)),
        ("Aaaa, bbbbbbbbbbbbbbbb.", voiced(0, None, 0), (1, 1, 0)),
        ("Aaaa, bbbb, cccc.", voiced(0, None, 0, None, 0), (2, 2, 2)),
        ("Aaaa -- bbbb.", voiced(0, None, 0), (1, 1, 1)),
        ("It's 3.5 miles.", voiced(0, 0), (0, 0, 0)),
    ],
)
def test_pauses_are_paired_with_marks_at_their_place(text, shape, found):
    assert placement(shape, text) == found


class Known:
    """Contours that are given."""

    def __init__(self, shapes):
        self.shapes = shapes

    def of(self, clips):
        return self.shapes


def measured(texts, shapes):
    pytest.importorskip("parselmouth")
    clips = tuple(Clip(id=str(n), conversation=str(n), text=text) for n, text in enumerate(texts))
    sets = ClipSets(sets=(ClipSet(group="lines", condition="recording", clips=clips),))
    found = measure_metric(Intonation(Known(shapes)), sets, RunnerOptions(repeats=50))
    return {(entry.name, entry.condition): entry for entry in found}


def test_questions_rise_and_with_the_texts_of_others_nothing_does():
    generator = np.random.default_rng(0)
    ends = [4.0, -2.0, 4.0, -2.0] * 10
    shapes = [voiced(0, 0, end + generator.normal()) for end in ends]
    found = measured(["Is he?", "He is.", "Is it?", "It is."] * 10, shapes)
    assert found["question_rise", "recording"].mean == pytest.approx(6.0, abs=1.0)
    assert found["final_lowering", "recording"].mean == pytest.approx(-2.0, abs=0.7)
    assert found["question_end", "recording"].ci95[0] > 3.0
    # Neighbours in the list say the same kinds of texts: a half turn of this one would exchange equals.
    mixed = measured(["Is he?"] * 20 + ["He is."] * 20, [voiced(0, 0, 4)] * 10 + [voiced(0, 0, -2)] * 30)
    assert mixed["question_rise", "recording"].mean == pytest.approx(3.0)
    assert mixed["question_rise", CONTROL].mean == pytest.approx(-3.0)


def test_pauses_at_marks_score_and_a_failed_clip_scores_nothing():
    texts = ["Aaaa, bbbb.", "Aaaa bbbb.", "Aaaa, bbbb.", "Aaaa bbbb."]
    found = measured(texts, [voiced(0, None, 0), voiced(0, 0), "no audio", voiced(0, 0)])
    entry = found["pause_placement", "recording"]
    assert entry.n_in == 2 and entry.n_failed == 1 and entry.values[0].value == 1.0 and entry.mean < 1.0


def test_without_questions_there_is_no_rise():
    found = measured(["He is.", "It is."], [voiced(0, 0, -2)] * 2)
    assert ("question_rise", "recording") not in found and found["final_lowering", "recording"].n_in == 2


def test_no_clip_keeps_its_text():
    clips = [Clip(id=str(n), text=str(n)) for n in range(5)]
    assert sorted(clip.text for clip in with_other_texts(clips)) == list("01234")
    assert all(clip.text != clip.id for clip in with_other_texts(clips))
